"""New vocabularies: the text they are trained on, and the trainers."""

from tokensurgeon.training.corpus import (
    Corpus,
    Document,
    corpus_of_texts,
    find_files,
    read_corpus,
    read_documents,
)
from tokensurgeon.training.mixture import Part, parse_mixture
from tokensurgeon.training.pretokenizers import DIGITS, PRETOKENIZERS
from tokensurgeon.training.train import Shape, train_vocabulary
from tokensurgeon.training.trained import TrainedVocabulary
from tokensurgeon.training.trainers import METHODS

__all__ = [
    "DIGITS",
    "METHODS",
    "PRETOKENIZERS",
    "Part",
    "Shape",
    "Corpus",
    "Document",
    "TrainedVocabulary",
    "corpus_of_texts",
    "find_files",
    "read_corpus",
    "parse_mixture",
    "read_documents",
    "train_vocabulary",
]

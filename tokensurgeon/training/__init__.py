"""New vocabularies: the text they are trained on, how they are trained, and what they do to text.

The names below are imported when first used: the command line reads the lists of names alone.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokensurgeon.training.corpus import Corpus as Corpus
    from tokensurgeon.training.corpus import Document as Document
    from tokensurgeon.training.corpus import corpus_of_texts as corpus_of_texts
    from tokensurgeon.training.corpus import find_files as find_files
    from tokensurgeon.training.corpus import read_corpus as read_corpus
    from tokensurgeon.training.corpus import read_documents as read_documents
    from tokensurgeon.training.extend import extend_vocabulary as extend_vocabulary
    from tokensurgeon.training.methods import METHODS as METHODS
    from tokensurgeon.training.mixture import Part as Part
    from tokensurgeon.training.mixture import parse_mixture as parse_mixture
    from tokensurgeon.training.plan import Shape as Shape
    from tokensurgeon.training.pretokenizers import DIGITS as DIGITS
    from tokensurgeon.training.pretokenizers import PRETOKENIZERS as PRETOKENIZERS
    from tokensurgeon.training.reduce import prune_vocabulary as prune_vocabulary
    from tokensurgeon.training.train import train_vocabulary as train_vocabulary
    from tokensurgeon.training.trained import TrainedVocabulary as TrainedVocabulary

_HOMES = {
    "Corpus": "corpus",
    "Document": "corpus",
    "corpus_of_texts": "corpus",
    "find_files": "corpus",
    "read_corpus": "corpus",
    "read_documents": "corpus",
    "extend_vocabulary": "extend",
    "METHODS": "methods",
    "Part": "mixture",
    "parse_mixture": "mixture",
    "Shape": "plan",
    "DIGITS": "pretokenizers",
    "PRETOKENIZERS": "pretokenizers",
    "prune_vocabulary": "reduce",
    "train_vocabulary": "train",
    "TrainedVocabulary": "trained",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)

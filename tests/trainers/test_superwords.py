"""Laws of superwords: cuts are only lifted, two stages are one BPE, limits hold."""

from __future__ import annotations

import numpy as np
import pytest
import regex
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from tokensurgeon.errors import UnknownNameError
from tokensurgeon.text.corpus import corpus_of_texts
from tokensurgeon.trainers import DIGITS, PRETOKENIZERS, train_vocabulary
from tokensurgeon.trainers.counting.pretokenizers import joined_pattern, pattern, pretokenizer
from tokensurgeon.trainers.counting.sequences import Sequences
from tokensurgeon.trainers.encoders import byte_level_bpe
from tokensurgeon.trainers.learned import Merges
from tokensurgeon.trainers.learners.merging import Merger
from tokensurgeon.trainers.plan import MOST_WORDS
from tokensurgeon.vocabulary.hard_text import hard_texts

LINES = (
    "In order to read the value of a setting, see the section on files.\n",
    "As a result of the change, the value of the option is read in order.\n",
    "if x[10] == 3.14159: return self.value(), None  # don't go on\n",
    "The end of the file,\r\n\tand    the end of the line\n",
)
TEXTS = [LINES[i % 4] + LINES[(i * 7 + 2) % 4] for i in range(80)]


def _cuts(found: str, text: str) -> set[int]:
    return {start for _, (start, _) in pretokenizer(found).pre_tokenize_str(text)}


@pytest.mark.parametrize("preset", PRETOKENIZERS[:-1])
@pytest.mark.parametrize("digits", DIGITS)
def test_the_longer_cut_only_joins(preset: str, digits: str) -> None:
    base, joined = str(pattern(preset, digits)), joined_pattern(preset, digits)
    for text in (*hard_texts(), *LINES):
        assert _cuts(joined, text) <= _cuts(base, text)


@pytest.mark.parametrize("preset", PRETOKENIZERS[:-1])
def test_lines_and_numbers_stay_apart(preset: str) -> None:
    joined = regex.compile(joined_pattern(preset, "right-3"))
    found = joined.findall("one, two (three)\nfour 12345 five\n\n  six")
    assert "one, two (three" in found[0]
    assert not any("\n" in piece.strip("\r\n )") for piece in found)
    assert [piece for piece in found if piece.strip().isdigit()] == ["12", "345"]


def test_a_preset_without_words_has_nothing_to_join() -> None:
    with pytest.raises(UnknownNameError, match="there are gpt2, cl100k"):
        joined_pattern("none", "any")


def test_one_bpe_spells_as_the_two_stages_do() -> None:
    pieces = sorted({line for text in TEXTS for line in text.splitlines(keepends=True)})
    sequences = Sequences.of_bytes(pieces, np.ones(len(pieces), np.int64))
    first = Merger(sequences, Merges(), min_count=1).run(300)
    stage = byte_level_bpe(first, (), None)
    ids = [np.array(stage.encode(piece).ids, np.int32) for piece in pieces]
    lengths = np.array(list(map(len, ids)))
    flat = Sequences.of_flat(np.concatenate(ids), lengths, np.ones(len(ids), np.int64))
    merger = Merger(flat, first, min_count=1)
    whole = byte_level_bpe(merger.run(340), (), None)
    found, segment = merger.ids()
    for number, piece in enumerate(pieces):
        assert whole.encode(piece).ids == found[segment == number].tolist()


def test_superwords_are_learned_within_their_limits_and_load(tmp_path) -> None:
    corpus = corpus_of_texts(TEXTS)
    size = 340
    trained = train_vocabulary(corpus, method="superbpe", size=size, output=tmp_path / "v")
    plain = train_vocabulary(corpus, method="bpe", size=size)
    assert trained.size == size
    assert trained.figures["bytes_per_token"] > plain.figures["bytes_per_token"]
    cut = regex.compile(str(pattern("cl100k", "left-3")))
    words = [len(cut.findall(trained.tokenizer.decode([i]))) for i in range(1, size)]
    assert 1 < max(words) <= MOST_WORDS
    fast = AutoTokenizer.from_pretrained(tmp_path / "v")
    stock = Tokenizer.from_file(str(tmp_path / "v" / "tokenizer.json"))
    for text in (*LINES, *hard_texts()):
        assert fast(text)["input_ids"] == stock.encode(text).ids


def test_the_same_text_gives_the_same_superwords() -> None:
    corpus = corpus_of_texts(TEXTS)
    first, second = (train_vocabulary(corpus, method="superbpe", size=380) for _ in range(2))
    assert first.fingerprint == second.fingerprint

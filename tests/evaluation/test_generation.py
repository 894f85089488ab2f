"""Generated text: what the tokenizer would have written itself is canonical."""

from __future__ import annotations

import pytest

from tokensurgeon.errors import EvaluationError
from tokensurgeon.evaluation import evaluate, measure_generation
from tokensurgeon.evaluation.generation import non_canonical


class Says:
    """Always writes the same samples."""

    def __init__(self, *samples):
        self.samples = [list(sample) for sample in samples]

    def generate(self, prefix, max_new_tokens, seed, starts=((),)):
        return self.samples


def test_the_tokenizers_own_cut_is_canonical(source, texts):
    ids = source.vocabulary.encode(texts[0])
    figures = measure_generation(Says(ids), source.vocabulary, n=1)
    assert figures.non_canonical_tokens == figures.non_canonical_samples == 0
    assert figures.n_bytes == len(texts[0].encode())
    assert figures.bytes_per_token == figures.n_bytes / len(ids)


def test_a_word_written_byte_by_byte_is_not_canonical(source):
    vocabulary = source.vocabulary
    row = vocabulary.encode(" row")
    bytewise = [vocabulary.emits(bytes([byte])) for byte in b" row"]
    assert len(row) < len(bytewise)
    figures = measure_generation(Says(bytewise), vocabulary, n=1)
    assert figures.non_canonical_samples == 1
    assert non_canonical(vocabulary, [*row, *vocabulary.encode("\n")]) == 0


def test_the_end_of_text_ends_a_sample(source):
    vocabulary = source.vocabulary
    row = vocabulary.encode(" row")
    ended = measure_generation(Says([*row, vocabulary.eos_id, *row]), vocabulary, n=1)
    assert ended.n_tokens == len(row)


def test_bytes_that_are_no_text_count_only_themselves(source):
    vocabulary = source.vocabulary
    row = vocabulary.encode(" row")
    broken = vocabulary.emits(b"\xff")
    assert non_canonical(vocabulary, [*row, broken, *row]) == 1
    begun = vocabulary.emits("é".encode()[:1])
    assert non_canonical(vocabulary, [*row, begun]) == 0


def test_nothing_written_has_no_figure(source):
    figures = measure_generation(Says([]), source.vocabulary, n=1)
    assert figures.bytes_per_token is None


def test_a_real_model_writes_and_repeats_itself(source, texts):
    first = evaluate([source], texts, generate=2, seed=3).entries[0].generation
    assert first == evaluate([source], texts, generate=2, seed=3).entries[0].generation
    assert first.n_samples == 2


def test_a_model_that_cannot_write_is_named(source, texts):
    class Mute:
        kind = "causal"
        max_positions = None
        nll = source.model.nll

    mute = type(source)("mute", Mute(), source.vocabulary)
    with pytest.raises(EvaluationError, match="mute cannot generate"):
        evaluate([mute], texts, generate=1)

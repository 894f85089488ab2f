"""Laws of byte views: sums over every spelling, on real tiny models of three kinds of tokenizer."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vocabulary.tiny_tokenizers import SENTENCES, TINY
from tests.world import make_model, save_tokenizer
from tokensurgeon.errors import EvaluationError
from tokensurgeon.models.covers import END, ByteView
from tokensurgeon.models.language_model import LanguageModel
from tokensurgeon.models.load import load_model
from tokensurgeon.vocabulary import Vocabulary, load_vocabulary

KINDS = {
    "byte_level": {"eos_token": "<|endoftext|>"},
    "sentencepiece_bpe": {"bos_token": "<s>", "eos_token": "</s>"},
    "unigram_bytes": {"bos_token": "<s>", "eos_token": "</s>"},
}
"""Byte-level BPE, BPE with ▁ and Unigram, each with its special tokens."""
PREFIXED = ("sentencepiece_bpe", "unigram_bytes")
"""Those that put a space in front of a text, which decoding takes away."""
TEXTS = [text.encode() for text in SENTENCES]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[LanguageModel, Vocabulary]]:
    """A random model for each kind of tokenizer, sure enough that masses differ."""
    found: dict[str, tuple[LanguageModel, Vocabulary]] = {}
    for name, roles in KINDS.items():
        folder = save_tokenizer(TINY[name](), tmp_path_factory.mktemp(name), **roles)
        rows = load_vocabulary(folder).n_rows + 3  # rows without a token
        make_model(folder, n_rows=rows, noise=0.3, seed=len(found))
        found[name] = load_model(folder), load_vocabulary(folder)
    return found


def every_spelling(
    model: LanguageModel, vocabulary: Vocabulary, text: bytes, *, strips: bool
) -> float:
    """Return the mass of all token sequences whose text begins with some bytes, one by one.

    All tokens are tried after all sequences that are not yet long enough; a sequence is counted
    where it first is.
    """

    def written(ids: tuple[int, ...]) -> bytes:
        data = vocabulary.bytes_of(ids)
        return data.removeprefix(b" ") if strips else data

    def found(ids: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        for token in range(vocabulary.n_rows):
            if vocabulary.token_bytes[token]:
                longer = (*ids, token)
                data = written(longer)
                if data.startswith(text) and data:
                    yield longer
                elif text.startswith(data):
                    yield from found(longer)

    sequences = [[vocabulary.start_id, *ids] for ids in found(())]
    return float(np.logaddexp.reduce([-loss.sum() for loss in model.nll(sequences)]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["the c", "42", "é", "a  b"])
def test_a_text_has_the_mass_of_every_token_sequence_that_begins_so(
    models: dict[str, tuple[LanguageModel, Vocabulary]], kind: str, text: str
) -> None:
    model, vocabulary = models[kind]
    reading = ByteView(model, vocabulary, least_share=0, most_covers=None).read(text.encode())
    brute = every_spelling(model, vocabulary, text.encode(), strips=kind in PREFIXED)
    assert reading.log_probability == pytest.approx(brute, abs=1e-5)
    assert reading.log_kept == pytest.approx(brute, abs=1e-5)
    assert reading.log_left_out == -np.inf
    canonical = model.nll([[vocabulary.start_id, *vocabulary.encode(text)]])[0].sum()
    assert reading.log_spelled() <= reading.log_probability + 1e-9
    assert -canonical <= reading.log_spelled() + 1e-5


cut = st.tuples(st.integers(0, len(TEXTS) - 1), st.integers(0, 40), st.integers(0, 4))
"""A text, where in it to begin and how many bytes to read."""


@settings(max_examples=8)
@given(kind=st.sampled_from(sorted(KINDS)), cut=cut, byte=st.integers(0, 255))
def test_products_telescope_and_next_bytes_sum_to_one(
    models: dict[str, tuple[LanguageModel, Vocabulary]],
    kind: str,
    cut: tuple[int, int, int],
    byte: int,
) -> None:
    number, start, length = cut
    data = TEXTS[number][start : start + length]
    view = ByteView(*models[kind], least_share=0, most_covers=None)
    reading = view.start(data or bytes([byte])).read(data)
    following = reading.next_bytes()
    assert (following >= 0).all()
    assert following.sum() == pytest.approx(1, abs=1e-9)
    longer = reading.read(bytes([byte]))
    assert longer.log_probability - reading.log_probability == pytest.approx(
        np.log(following[byte]), abs=1e-9
    )
    assert view.start(data or bytes([byte])).read(data + bytes([byte])).log_kept == (
        pytest.approx(longer.log_kept, abs=1e-9)
    )
    # Tokens that may come next, summed by their next byte, are the same distribution.
    by_byte = np.zeros(END + 1)
    vocabulary = view.vocabulary
    for cover, tokens, masses in reading.continuations():
        for token, mass in zip(tokens.tolist(), masses.tolist(), strict=True):
            written = vocabulary.token_bytes[token] if token < vocabulary.n_rows else None
            by_byte[written[len(cover.open)] if written else END] += mass
    np.testing.assert_allclose(by_byte, following, atol=1e-9)


@settings(max_examples=8)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    cut=cut,
    least_share=st.sampled_from([0.3, 0.1, 0.01]),
    most=st.sampled_from([1, 3, None]),
)
def test_what_was_left_out_bounds_what_is_missing(
    models: dict[str, tuple[LanguageModel, Vocabulary]],
    kind: str,
    cut: tuple[int, int, int],
    least_share: float,
    most: int | None,
) -> None:
    number, start, length = cut
    data = TEXTS[number][start : start + length + 1]
    exact = ByteView(*models[kind], least_share=0, most_covers=None).read(data).log_kept
    view = ByteView(*models[kind], least_share=least_share, most_covers=most)
    found = view.start().read(data)  # what is to come is not known
    known = view.read(data)
    assert found.log_kept <= exact + 1e-9
    assert exact <= np.logaddexp(found.log_kept, found.log_left_out) + 1e-9
    assert most is None or len(found.covers) <= most
    model, vocabulary = models[kind]
    text = data.decode("utf-8", "ignore")
    if text.encode() == data:
        (own,) = model.nll([[vocabulary.start_id, *vocabulary.encode(text)]])
        assert -own.sum() <= known.log_kept + 1e-5
        assert known.log_kept <= exact + 1e-9


def test_few_covers_read_a_text_where_the_likeliest_cannot_go_on(
    models: dict[str, tuple[LanguageModel, Vocabulary]],
) -> None:
    data = TEXTS[1][:12]
    few = ByteView(*models["byte_level"], least_share=0.5, most_covers=1).start().read(data)
    assert np.isfinite(few.log_probability)
    more = ByteView(*models["byte_level"], least_share=1e-3).read(data)
    assert few.log_kept <= more.log_kept


def test_a_prompt_is_read_as_from_its_start_where_its_tokens_are_certain(
    models: dict[str, tuple[LanguageModel, Vocabulary]],
) -> None:
    model, vocabulary = models["byte_level"]
    view = ByteView(model, vocabulary, least_share=0, most_covers=None)
    prompt = "the cat sat on th"
    reading = view.read_prompt(prompt)
    given = len(prompt.encode()) - len(reading.text)
    ids = vocabulary.encode(prompt)
    taken = ids[: len(ids) - len(vocabulary.encode(reading.text.decode()))]
    assert vocabulary.bytes_of(taken) == prompt.encode()[:given]
    assert reading.text.endswith(b" th")
    by_hand = np.zeros(END + 1)
    sequences = [[vocabulary.start_id, *taken, token] for token in range(340)]
    p = np.exp([-loss[-1] for loss in model.nll(sequences)])
    for token in range(340):
        data = vocabulary.token_bytes[token] or b""
        if data.startswith(reading.text) and len(data) > len(reading.text):
            by_hand[data[len(reading.text)]] += p[token]
    likely = by_hand.argmax()
    assert reading.next_bytes()[likely] * np.exp(reading.log_kept) >= by_hand[likely] - 1e-6


def test_what_cannot_be_read_is_said(
    models: dict[str, tuple[LanguageModel, Vocabulary]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    model, vocabulary = models["byte_level"]
    with pytest.raises(EvaluationError, match=r"positions and the model has 128"):
        ByteView(model, vocabulary, most_covers=1).read(b"\x80" * 400)
    folder = save_tokenizer(TINY["characters"](), tmp_path_factory.mktemp("characters"))
    make_model(folder, n_rows=load_vocabulary(folder).n_rows)
    few = ByteView(load_model(folder), load_vocabulary(folder))
    with pytest.raises(EvaluationError, match="neither BOS nor EOS"):
        few.read(b"a")

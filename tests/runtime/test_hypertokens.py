"""Hypertokens: the codec is lossless, and the model sees and writes what the codec says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokensurgeon.errors import SettingError, TokenizerError
from tokensurgeon.runtime.hypertokens.codec import (
    Codebook,
    Limits,
    decode,
    encode,
    encode_many,
)

N_IDS = 6
LIMITS = st.builds(
    Limits,
    n_ids=st.just(N_IDS),
    max_hypertokens=st.integers(0, 12),
    max_ids=st.integers(2, 6),
    disabled=st.frozensets(st.integers(0, N_IDS - 1), max_size=2),
)
SEQUENCES = st.lists(st.integers(0, N_IDS - 1), max_size=60)


@given(SEQUENCES, LIMITS)
def test_codes_give_back_the_ids_within_the_limits(ids: list[int], limits: Limits) -> None:
    book = Codebook(limits)
    codes = book.encode(ids)
    assert decode(codes, limits) == ids
    assert len(codes) <= len(ids)
    assert len(book.phrases) <= limits.max_hypertokens
    for phrase in book.phrases:
        assert 2 <= len(phrase) <= limits.max_ids
        assert not limits.disabled & set(phrase)
    assert len(set(book.phrases)) == len(book.phrases)


@given(SEQUENCES, LIMITS)
def test_reader_and_writer_have_the_same_codebook_after_every_code(ids, limits) -> None:
    written = Codebook(limits)
    codes = written.encode(ids)
    read = Codebook(limits)
    for number, code in enumerate(codes):
        known = len(read.phrases)
        assert code < N_IDS + known, "a code is used before its reader can know it"
        if code >= N_IDS:
            assert read.born[code - N_IDS] <= number
        new = read.read(code)
        assert (new is None) == (len(read.phrases) == known)
    assert read.phrases == written.phrases
    assert read.born == written.born


@given(SEQUENCES, st.integers(0, 60), LIMITS)
def test_a_text_can_be_coded_in_two_parts(ids: list[int], cut: int, limits: Limits) -> None:
    book = Codebook(limits)
    codes = [*book.encode(ids[:cut]), *book.encode(ids[cut:])]
    assert decode(codes, limits) == ids
    assert book.n_read == len(codes)


@given(st.lists(st.integers(0, 30), max_size=80), LIMITS)
def test_whatever_a_model_writes_can_be_read(choices: list[int], limits: Limits) -> None:
    """A model need not choose the longest phrase: any codes that exist are codes of some ids."""
    book = Codebook(limits)
    ids: list[int] = []
    codes: list[int] = []
    for choice in choices:
        codes.append(choice % (N_IDS + len(book.phrases)))
        ids.extend(book.phrase(codes[-1]))
        book.read(codes[-1])
    assert decode(codes, limits) == ids
    assert len(set(book.phrases)) == len(book.phrases)
    assert all(not limits.disabled & set(phrase) for phrase in book.phrases)


@given(SEQUENCES, LIMITS, st.integers(0, 5))
def test_padding_on_the_left_changes_no_codebook(ids: list[int], limits: Limits, n: int) -> None:
    if not limits.disabled:
        return
    pad = min(limits.disabled)
    plain, padded = Codebook(limits), Codebook(limits)
    codes = plain.encode(ids)
    padded.decode([pad] * n)
    assert padded.encode(ids) == codes
    assert padded.phrases == plain.phrases


def textbook(ids: list[int], n_ids: int) -> list[int]:
    """LZW as published, where the writer is one phrase ahead of the reader."""
    table: dict[tuple[int, ...], int] = {(i,): i for i in range(n_ids)}
    codes: list[int] = []
    phrase: tuple[int, ...] = ()
    for token in ids:
        if (*phrase, token) in table:
            phrase = (*phrase, token)
            continue
        codes.append(table[phrase])
        table[(*phrase, token)] = len(table)
        phrase = (token,)
    return [*codes, table[phrase]] if phrase else codes


@given(SEQUENCES)
def test_without_limits_codes_are_those_of_textbook_lzw_but_for_immediate_repeats(ids) -> None:
    published = textbook(ids, N_IDS)
    if any(code - N_IDS == number - 1 for number, code in enumerate(published)):
        return  # a phrase used at once, which its reader has to guess
    assert encode(ids, Limits(N_IDS, 1000, 1000)) == published


def test_a_batch_is_its_sequences_one_by_one() -> None:
    limits = Limits(N_IDS)
    sequences = [[1, 2, 1, 2, 1, 2], [], [3], [0, 0, 0, 0, 0]]
    codes, books = encode_many(sequences, limits)
    assert codes == [encode(one, limits) for one in sequences]
    assert [book.n_read for book in books] == list(map(len, codes))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Limits(0), "give 1 or more"),
        (lambda: Limits(5, -1), "-1 hypertokens cannot be made"),
        (lambda: Limits(5, 3, 1), "give 2 or more"),
    ],
)
def test_limits_out_of_range_are_refused(make, words: str) -> None:
    with pytest.raises(SettingError, match=words):
        make()


@pytest.mark.parametrize("code", [-1, 6, 99])
def test_a_code_that_there_is_not_is_refused_and_changes_nothing(code: int) -> None:
    book = Codebook(Limits(N_IDS))
    with pytest.raises(TokenizerError, match="neither one of 6 ids nor one of 0 hypertokens"):
        book.read(code)
    assert book.n_read == 0
    with pytest.raises(TokenizerError, match="is none of 6"):
        book.encode([0, code])


@pytest.mark.sweep
def test_ten_thousand_random_sequences_come_back() -> None:
    rng = np.random.default_rng(0)
    for _ in range(10_000):
        n_ids = int(rng.integers(2, 50))
        limits = Limits(
            n_ids,
            int(rng.integers(0, 300)),
            int(rng.integers(2, 9)),
            frozenset(rng.integers(0, n_ids, rng.integers(0, 4)).tolist()),
        )
        ids = rng.integers(0, n_ids, rng.integers(0, 400)).tolist()
        assert decode(encode(ids, limits), limits) == ids

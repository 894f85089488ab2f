"""Bytes, offsets and pieces: laws that hold for tokenizers of every kind."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.vocabulary.tiny_tokenizers import HARD_TEXTS, LOSSLESS, TINY, made, shuffled_json
from tokensurgeon.vocabulary import Kind, Vocabulary, vocabulary_from_tokenizer

TEXTS = st.text(
    alphabet=st.one_of(
        st.sampled_from("the cat\n\t  0123456789<>s/▁Ġ日é\u0301\x00"),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=40,
)
small = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


def fewest(vocabulary: Vocabulary, data: bytes) -> int | None:
    """Return the least number of ids that spell the bytes: plain recursion, as an oracle."""
    table = {d for d in vocabulary.token_bytes if d}

    @functools.cache
    def best(start: int) -> int | None:
        if start == len(data):
            return 0
        found = [
            rest + 1
            for end in range(start + 1, len(data) + 1)
            if data[start:end] in table and (rest := best(end)) is not None
        ]
        return min(found, default=None)

    return best(0)


def test_bytes_are_what_decoding_adds_between_two_neighbours(vocabulary: Vocabulary) -> None:
    tokenizer = vocabulary.tokenizer
    left = right = next(
        i
        for i, data in enumerate(vocabulary.token_bytes)
        if data and data.strip().isalpha() and data.strip().isascii()
    )
    pair = tokenizer.decode([left, right])
    for i, data in enumerate(vocabulary.token_bytes):
        if data is None:
            continue
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            continue
        half = len(tokenizer.decode([left]))
        ending = vocabulary.token_bytes[right].decode()
        between = tokenizer.decode([left, i, right])
        if ending.endswith(" "):
            continue  # The last </w> has no space: its neighbours are tested below.
        assert between == pair[:half] + text + ending, vocabulary.spellings[i]


def test_the_end_of_a_word_is_the_space_after_it() -> None:
    vocabulary = made("end_of_word")
    ids = vocabulary.encode("the cat")
    assert vocabulary.bytes_of(ids) == b"the cat "


def test_controls_and_holes_have_no_bytes(vocabulary: Vocabulary) -> None:
    for i, kind in enumerate(vocabulary.kinds):
        assert (vocabulary.token_bytes[i] is not None) == (kind in (Kind.ORDINARY, Kind.BYTE))
        assert vocabulary.token_bytes[i] != b""


@pytest.mark.parametrize("text", HARD_TEXTS)
def test_lossless_means_that_the_bytes_spell_the_text(vocabulary: Vocabulary, text: str) -> None:
    check_encoding(vocabulary, text)


@pytest.mark.parametrize("name", sorted(TINY))
@small
@given(text=TEXTS)
def test_offsets_hold_on_any_text(name: str, text: str) -> None:
    check_encoding(made(name), text)


def check_encoding(vocabulary: Vocabulary, text: str) -> None:
    data = text.encode()
    encoding = vocabulary.encode_with_bytes(text)
    assert encoding.n_bytes == len(data)
    assert encoding.ends.dtype == np.int64
    assert len(encoding.ends) == len(encoding.ids) == len(encoding)
    assert (np.diff(encoding.ends) >= 0).all()
    if encoding.ids:
        assert encoding.ends[0] >= 0
        assert encoding.ends[-1] == len(data)
    if encoding.lossless:
        spelled = vocabulary.bytes_of(encoding.ids)
        assert spelled in (data, b" " + data, data + b" ")
        shift = 1 if spelled == b" " + data and spelled != data else 0
        for n, end in enumerate(encoding.ends.tolist()):
            so_far = vocabulary.bytes_of(encoding.ids[: n + 1])[shift:]
            assert so_far == data[:end] or (end == len(data) and so_far == data + b" ")
        decoded = vocabulary.decode(encoding.ids)
        assert decoded == text or (
            vocabulary.segmentation["prefix_space"] and decoded == " " + text
        )


@pytest.mark.parametrize("name", LOSSLESS)
@small
@given(text=TEXTS.filter(lambda t: "▁" not in t and "<" not in t and not t.startswith(" ")))
def test_byte_complete_tokenizers_lose_nothing(name: str, text: str) -> None:
    assert made(name).encode_with_bytes(text).lossless


def test_offsets_are_right_inside_a_character_of_several_tokens() -> None:
    vocabulary = made("byte_level")
    encoding = vocabulary.encode_with_bytes("a🎉b")
    assert encoding.ends.tolist() == [1, 2, 3, 4, 5, 6]


def test_a_dummy_prefix_does_not_shift_offsets() -> None:
    vocabulary = made("sentencepiece_bpe")
    encoding = vocabulary.encode_with_bytes("q\n")
    assert vocabulary.bytes_of(encoding.ids) == b" q\n"
    assert encoding.ends.tolist()[-2:] == [1, 2]
    assert encoding.lossless


def test_a_batch_is_the_single_encodings(vocabulary: Vocabulary) -> None:
    for text, each in zip(HARD_TEXTS, vocabulary.encode_many(HARD_TEXTS), strict=True):
        alone = vocabulary.encode_with_bytes(text)
        assert each.ids == alone.ids == vocabulary.encode(text)
        assert each.ends.tolist() == alone.ends.tolist()
        assert each.lossless == alone.lossless


@pytest.mark.parametrize("name", [*LOSSLESS, "byte_level_single_digits"])
def test_markers_in_a_text_are_text(name: str) -> None:
    vocabulary = made(name)
    for text in ("a <|im_start|> b", "a</s>", "a<tool_call>"):
        if name != "unigram_bytes":
            kinds = vocabulary.kinds[vocabulary.encode(text)]
            assert (kinds != Kind.CONTROL).all()


def test_lowered_text_is_not_lossless() -> None:
    vocabulary = made("wordpiece_lower")
    assert vocabulary.encode_with_bytes("the cat").lossless
    assert not vocabulary.encode_with_bytes("The cat").lossless
    assert not vocabulary.encode_with_bytes("the  cat").lossless


# Pieces


@pytest.mark.parametrize("name", sorted(TINY))
@small
@given(data=st.one_of(TEXTS.map(str.encode), st.binary(max_size=12)))
def test_pieces_spell_exactly_or_nothing_can(name: str, data: bytes) -> None:
    vocabulary = made(name)
    pieces = vocabulary.pieces_of(data)
    if pieces is None:
        assert fewest(vocabulary, data) is None
    else:
        assert vocabulary.bytes_of(pieces) == data
        assert np.isin(vocabulary.kinds[list(pieces)], (Kind.ORDINARY, Kind.BYTE)).all()


@pytest.mark.parametrize("name", sorted(TINY))
@small
@given(data=TEXTS.map(str.encode).filter(len))
def test_forbidden_ids_are_not_used_and_the_detour_is_shortest(name: str, data: bytes) -> None:
    vocabulary = made(name)
    pieces = vocabulary.pieces_of(data)
    if pieces is None:
        return
    banned = set(pieces[:1])
    others = vocabulary.pieces_of(data, forbid=banned)
    if others is not None:
        assert not banned.intersection(others)
        assert vocabulary.bytes_of(others) == data
    assert vocabulary.pieces_of(data, forbid=list(banned)) == others


def test_a_byte_complete_vocabulary_spells_every_byte() -> None:
    for name in LOSSLESS:
        vocabulary = made(name)
        for byte in range(256):
            assert vocabulary.pieces_of(bytes([byte])) is not None
        assert vocabulary.segmentation["byte_coverage"] == 256


def test_a_token_forbidden_to_itself_is_spelled_by_others(vocabulary: Vocabulary) -> None:
    for i, data in enumerate(vocabulary.token_bytes):
        if data is None or len(data) < 2:
            continue
        pieces = vocabulary.pieces_of(data, forbid=[i])
        if pieces is not None:
            assert i not in pieces
            assert vocabulary.bytes_of(pieces) == data


def test_no_piece_begins_with_a_space_that_was_not_asked_for() -> None:
    for name in ("sentencepiece_bpe", "unigram_bytes", "byte_level_prefix", "metaspace_first"):
        vocabulary = made(name)
        pieces = vocabulary.pieces_of(b"cat")
        assert pieces is not None
        assert vocabulary.bytes_of(pieces) == b"cat"


def test_a_wordpiece_continues_a_word_where_no_space_is_asked_for() -> None:
    vocabulary = made("wordpiece_lower")
    start, inside = vocabulary.pieces_of(b" the"), vocabulary.pieces_of(b"he")
    assert start == (vocabulary.id_of("the"),)
    assert inside is not None
    assert (vocabulary.spellings[inside[0]] or "").startswith("##")


def test_the_empty_string_has_no_pieces(vocabulary: Vocabulary) -> None:
    assert vocabulary.pieces_of(b"") == ()


def test_near_pieces_are_the_normalised_text() -> None:
    vocabulary = made("wordpiece_lower")
    assert vocabulary.pieces_of(b" The") is None
    assert vocabulary.near_pieces_of(b" The") == vocabulary.pieces_of(b" the")
    assert vocabulary.near_pieces_of("日\u2603".encode()) is None
    assert made("byte_level").near_pieces_of(b" The") is None
    composed = made("byte_level_single_digits")
    assert composed.near_pieces_of("e\u0301".encode()) == composed.pieces_of("é".encode())


# Twins: two ids with the same bytes


def test_a_letter_and_its_byte_token_are_two_ids_and_the_letter_is_emitted() -> None:
    vocabulary = made("sentencepiece_bpe")
    letter, byte = vocabulary.id_of("a"), vocabulary.id_of("<0x61>")
    assert vocabulary.kinds[letter] == Kind.ORDINARY
    assert vocabulary.kinds[byte] == Kind.BYTE
    assert vocabulary.ids_of_bytes(b"a") == (letter, byte)
    assert vocabulary.emits(b"a") == letter
    assert vocabulary.pieces_of(b"a") == (letter,)
    assert vocabulary.pieces_of(b"a", forbid=[letter]) == (byte,)


def test_a_byte_without_a_letter_is_written_by_its_token() -> None:
    vocabulary = made("sentencepiece_bpe")
    for byte in (0, 0xE3):
        assert vocabulary.pieces_of(bytes([byte])) == (vocabulary.id_of(f"<0x{byte:02X}>"),)


def test_only_a_model_with_byte_fallback_has_byte_tokens() -> None:
    tokenizer = TINY["words"]()
    tokenizer.add_tokens(["<0x41>"])
    vocabulary = vocabulary_from_tokenizer(tokenizer)
    token = vocabulary.id_of("<0x41>")
    assert vocabulary.kinds[token] != Kind.BYTE
    assert not (vocabulary.kinds == Kind.BYTE).any()


@pytest.mark.parametrize("seed", [1, 2])
def test_the_order_of_the_vocabulary_in_the_file_changes_nothing(kind: str, seed: int) -> None:
    vocabulary = made(kind)
    other = vocabulary_from_tokenizer(shuffled_json(vocabulary.tokenizer, seed))
    assert other.fingerprint == vocabulary.fingerprint
    assert other.token_bytes == vocabulary.token_bytes
    for data in (b"a", b" ", b"the", b"\n", b" cat", b"22"):
        assert other.ids_of_bytes(data) == vocabulary.ids_of_bytes(data)
        assert other.pieces_of(data) == vocabulary.pieces_of(data)
        assert other.emits(data) == vocabulary.emits(data)


def test_an_added_token_that_is_text_is_emitted_as_one() -> None:
    vocabulary = made("byte_level_single_digits")
    run = vocabulary.id_of("      ")
    assert vocabulary.kinds[run] == Kind.ORDINARY
    assert vocabulary.token_bytes[run] == b"      "
    assert vocabulary.emits(b"      ") == run
    assert run in vocabulary.encode("x      y")

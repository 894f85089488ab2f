"""Added tokens that repeat a token of the model, or its way of writing: whose bytes they have."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer

from tests.vocabulary.tiny_tokenizers import TINY
from tokensurgeon.vocabulary import Kind, Vocabulary, vocabulary_from_tokenizer

FLAGS = [
    {"special": special, "normalized": normalized}
    for special in (False, True)
    for normalized in (False, True)
]


def with_entry(document: dict[str, Any], spelling: str, flags: dict[str, bool]) -> Vocabulary:
    """Return a vocabulary with an `added_tokens` entry that repeats one of its model's tokens."""
    table = document["model"]["vocab"]
    ids = table if isinstance(table, dict) else {piece: i for i, (piece, _) in enumerate(table)}
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
    entry = {"id": ids[spelling], "content": spelling, **plain, **flags}
    added = sorted([*document["added_tokens"], entry], key=lambda token: token["id"])
    whole = json.dumps({**document, "added_tokens": added})
    return vocabulary_from_tokenizer(Tokenizer.from_str(whole))


@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize(
    ("name", "spelling", "data"),
    [
        ("byte_level", "Ġthe", b" the"),
        ("byte_level_prefix", "Ġthe", b" the"),
        ("byte_level", "the", b"the"),
        ("sentencepiece_bpe", "▁the", b" the"),
        ("metaspace_first", "▁the", b" the"),
        ("unigram_no_bytes", "▁row", b" row"),
        ("wordpiece_lower", "##s", b"s"),
        ("end_of_word", "the</w>", b"the "),
    ],
)
def test_a_repeated_token_keeps_the_bytes_that_encoding_emits_it_for(
    name: str, spelling: str, data: bytes, flags: dict[str, bool]
) -> None:
    document = json.loads(TINY[name]().to_str())
    vocabulary = with_entry(document, spelling, flags)
    plain = vocabulary_from_tokenizer(Tokenizer.from_str(json.dumps(document)))
    token = plain.id_of(spelling)
    assert token is not None
    assert vocabulary.token_bytes[token] == data == plain.token_bytes[token]
    assert vocabulary.kinds[token] == Kind.ORDINARY
    assert vocabulary.emits(data) == plain.emits(data)
    text = "the cat and the row's " * 2
    assert vocabulary.encode_with_bytes(text).lossless == plain.encode_with_bytes(text).lossless


@pytest.mark.parametrize("name", ["sentencepiece_bpe", "unigram_bytes", "byte_level"])
def test_a_control_in_the_models_table_stays_one(name: str) -> None:
    document = json.loads(TINY[name]().to_str())
    control = document["added_tokens"][0]["content"]
    document["added_tokens"] = document["added_tokens"][1:]
    vocabulary = with_entry(document, control, {"special": True, "normalized": False})
    token = vocabulary.id_of(control)
    assert token is not None
    assert vocabulary.kinds[token] == Kind.CONTROL
    assert vocabulary.token_bytes[token] is None


def test_a_token_that_the_model_cannot_make_is_its_spelling() -> None:
    document = json.loads(TINY["byte_level"]().to_str())
    merges = document["model"]["merges"]
    document["model"]["merges"] = [m for m in merges if "".join(m) not in ("Ġthe", "Ġt", "the")]
    vocabulary = with_entry(document, "Ġthe", {"special": False, "normalized": False})
    token = vocabulary.id_of("Ġthe")
    assert token is not None
    assert vocabulary.token_bytes[token] == "Ġthe".encode()
    assert vocabulary.encode("see Ġthe")[-1] == token
    assert token not in vocabulary.encode("see the")


@pytest.mark.parametrize(
    ("name", "content", "normalized", "data"),
    [
        ("sentencepiece_bpe", "▁zebra", True, b" zebra"),
        ("sentencepiece_bpe", "▁zebra", False, "▁zebra".encode()),
        ("unigram_bytes", "▁zebra", True, b" zebra"),
        ("metaspace_first", "▁zebra", True, "▁zebra".encode()),
        ("byte_level", "Ġzebra", True, "Ġzebra".encode()),
    ],
)
def test_a_new_token_with_a_mark_is_the_text_it_is_emitted_for(
    name: str, content: str, normalized: bool, data: bytes
) -> None:
    tokenizer = TINY[name]()
    tokenizer.add_tokens([AddedToken(content, normalized=normalized)])
    vocabulary = vocabulary_from_tokenizer(tokenizer)
    token = vocabulary.id_of(content)
    assert token is not None
    assert vocabulary.token_bytes[token] == data
    assert token in vocabulary.encode(data.decode())

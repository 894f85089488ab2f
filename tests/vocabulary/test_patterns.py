"""What llama.cpp calls the ways to cut text."""

from __future__ import annotations

import pytest
from tokenizers import Regex, pre_tokenizers

from tests.vocabulary.tiny_tokenizers import TINY
from tokensurgeon.vocabulary import vocabulary_from_tokenizer
from tokensurgeon.vocabulary.patterns import GGUF, PATTERNS


@pytest.mark.parametrize("name", PATTERNS)
def test_published_patterns_have_their_name(name: str) -> None:
    tokenizer = TINY["byte_level"]()
    split = pre_tokenizers.Split(Regex(PATTERNS[name]), "isolated")
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, level])
    assert vocabulary_from_tokenizer(tokenizer).segmentation["gguf"] == GGUF[name]
    other = pre_tokenizers.Split(Regex(r"\p{L}+|."), "isolated")
    for parts in ([split, other, level], [other, level]):
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)
        assert vocabulary_from_tokenizer(tokenizer).segmentation["gguf"] is None


def test_other_models_need_none() -> None:
    told = {name: vocabulary_from_tokenizer(TINY[name]()).segmentation["gguf"] for name in TINY}
    assert told["byte_level"] == "gpt-2"
    assert told["unigram_bytes"] == "SentencePiece"
    assert told["wordpiece_lower"] == "WordPiece"

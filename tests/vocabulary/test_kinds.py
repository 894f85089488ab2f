"""Kinds, roles and number schemes."""

from __future__ import annotations

import json

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, pre_tokenizers, processors

from tests.vocabulary.tiny_tokenizers import TINY, made
from tokensurgeon.vocabulary import Kind, vocabulary_from_tokenizer
from tokensurgeon.vocabulary.kinds import looks_like_marker, looks_unused


@pytest.mark.parametrize(
    "spelling",
    ["<|im_start|>", "<tool_call>", "</think>", "[INST]", "[/INST]", "<｜User｜>", "<<SYS>>"],
)
def test_markers_are_known_by_their_spelling(spelling: str) -> None:
    assert looks_like_marker(spelling)


@pytest.mark.parametrize("spelling", ["    ", "</html>", "<div>", "http://", "<", "[x]", "\n\n"])
def test_text_is_not_taken_for_a_marker(spelling: str) -> None:
    assert not looks_like_marker(spelling)


@pytest.mark.parametrize(
    "spelling",
    ["[unused12]", "<|reserved_special_token_3|>", "<unused9>", "<|unused_100256|>", "<SPECIAL_7>"],
)
def test_reserved_ids_are_unused(spelling: str) -> None:
    assert looks_unused(spelling)


@pytest.mark.parametrize("spelling", ["unused", "<extra_id_0>", "<|im_end|>", "[MASK]", "reserved"])
def test_other_ids_are_not_unused(spelling: str) -> None:
    assert not looks_unused(spelling)


def test_a_marker_is_a_control_even_where_it_is_not_flagged_special() -> None:
    vocabulary = made("byte_level_single_digits")
    token = vocabulary.id_of("<tool_call>")
    assert vocabulary.kinds[token] == Kind.CONTROL
    assert vocabulary.roles["tool_call"] == token


def test_roles_come_from_the_configuration_first() -> None:
    tokenizer = TINY["byte_level"]()
    config = {
        "bos_token": {"content": "<|im_start|>"},
        "eos_token": "<|im_end|>",
        "pad_token": "<|im_end|>",
        "chat_template": "{{ messages }}",
    }
    vocabulary = vocabulary_from_tokenizer(tokenizer, config)
    assert vocabulary.bos_id == vocabulary.id_of("<|im_start|>") == vocabulary.roles["im_start"]
    assert vocabulary.eos_id == vocabulary.pad_id == vocabulary.id_of("<|im_end|>")
    assert set(vocabulary.role_of[vocabulary.eos_id]) == {"eos", "pad", "im_end"}
    assert vocabulary.chat_template == "{{ messages }}"
    assert vocabulary.unk_id is None


def test_a_role_that_the_configuration_denies_is_not_guessed() -> None:
    vocabulary = vocabulary_from_tokenizer(TINY["sentencepiece_bpe"](), {"bos_token": None})
    assert vocabulary.bos_id is None
    assert vocabulary.kinds[vocabulary.id_of("<s>")] == Kind.CONTROL


def test_roles_come_from_the_post_processor() -> None:
    vocabulary = made("wordpiece_lower")
    assert vocabulary.roles["cls"] == vocabulary.id_of("[CLS]")
    assert vocabulary.roles["sep"] == vocabulary.id_of("[SEP]")
    tokenizer = TINY["byte_level"]()
    start = tokenizer.token_to_id("<|im_start|>")
    tokenizer.post_processor = processors.TemplateProcessing(
        "<|im_start|> $A", None, [("<|im_start|>", start)]
    )
    assert vocabulary_from_tokenizer(tokenizer).bos_id == start


def test_unused_tokens_of_a_wordpiece_model_are_unused() -> None:
    vocabulary = made("wordpiece_lower")
    assert vocabulary.kinds[vocabulary.id_of("[unused1]")] == Kind.UNUSED


def test_an_id_without_a_token_is_padding() -> None:
    document = json.loads(TINY["words"]().to_str())
    table = document["model"]["vocab"]
    document["model"]["vocab"] = {t: i if i < 10 else i + 2 for t, i in table.items()}
    vocabulary = vocabulary_from_tokenizer(Tokenizer.from_str(json.dumps(document)))
    assert vocabulary.n_rows == len(table) + 2
    assert vocabulary.spellings[10] is None
    assert vocabulary.kinds[10] == vocabulary.kinds[11] == Kind.PADDING


def cut(*patterns: str, invert: bool = False) -> Tokenizer:
    tokenizer = TINY["byte_level"]()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            *(pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return tokenizer


@pytest.mark.parametrize(
    ("pattern", "scheme"),
    [
        (r"\p{N}", "single"),
        (r"\p{N}{1,3}", "left-3"),
        (r"\p{N}{1,2}", "left-2"),
        (r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))", "right-3"),
        (r"\p{L}+", "any"),
    ],
)
def test_number_schemes_are_found_by_trying(pattern: str, scheme: str) -> None:
    assert vocabulary_from_tokenizer(cut(pattern)).number_scheme == scheme


def test_digits_that_cannot_be_written_have_no_scheme() -> None:
    assert made("words").number_scheme == "none"


def test_the_tokenizer_given_is_not_changed_and_ours_does_not_truncate_or_drop() -> None:
    tokenizer = TINY["byte_level"]()
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=20)
    tokenizer.model.dropout = 0.9
    vocabulary = vocabulary_from_tokenizer(tokenizer)
    runs = {tuple(vocabulary.encode("the cat sat on the mat")) for _ in range(5)}
    assert len(runs) == 1
    assert vocabulary.encode_with_bytes("the cat sat on the mat").lossless
    assert tokenizer.truncation is not None
    assert tokenizer.padding is not None
    assert tokenizer.model.dropout is not None


def test_facts_say_what_a_tokenizer_does_to_text() -> None:
    lowered = made("wordpiece_lower").segmentation
    assert lowered["lower_cases"]
    assert lowered["joins_with_space"]
    assert not lowered["lossless"]
    plain = made("byte_level").segmentation
    assert plain["byte_level"]
    assert plain["lossless"]
    assert not plain["lower_cases"]
    assert json.dumps(plain)


def test_a_token_added_later_keeps_its_id_in_our_copies() -> None:
    tokenizer = TINY["byte_level"]()
    tokenizer.add_special_tokens([AddedToken("<|late|>", special=True)])
    tokenizer.add_tokens(["later text"])
    tokenizer.add_special_tokens([AddedToken("<|last|>", special=True)])
    vocabulary = vocabulary_from_tokenizer(tokenizer)
    later = vocabulary.id_of("later text")
    assert later in vocabulary.encode("see later text <|late|>")
    assert vocabulary.id_of("<|late|>") not in vocabulary.encode("see later text <|late|>")

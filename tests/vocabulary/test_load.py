"""Loading: what is read, and what is refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, pre_tokenizers

from tests.vocabulary.tiny_tokenizers import TINY, made
from tokensurgeon.errors import TokenizerError, UnknownNameError
from tokensurgeon.vocabulary import Kind, load_vocabulary, vocabulary_from_tokenizer
from tokensurgeon.vocabulary.parts import guarded


def write(folder: Path, name: str = "byte_level", change: Callable[[Any], None] | None = None):
    document = json.loads(TINY[name]().to_str())
    if change is not None:
        change(document)
    (folder / "tokenizer.json").write_text(json.dumps(document), "utf-8")
    return folder


def test_a_folder_and_its_file_are_the_same_vocabulary(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<|im_end|>"}')
    (tmp_path / "special_tokens_map.json").write_text('{"pad_token": "<|im_end|>"}')
    (tmp_path / "chat_template.jinja").write_text("{{ bos_token }}")
    folder, file = load_vocabulary(tmp_path), load_vocabulary(str(tmp_path / "tokenizer.json"))
    assert folder.fingerprint == file.fingerprint
    assert folder.eos_id == folder.pad_id == folder.id_of("<|im_end|>")
    assert folder.chat_template == "{{ bos_token }}"
    assert folder.folder == tmp_path
    assert folder.raw_config == {"eos_token": "<|im_end|>"}


def test_a_default_among_several_chat_templates_is_taken(tmp_path: Path) -> None:
    templates = [{"name": "tool", "template": "T"}, {"name": "default", "template": "D"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": templates}))
    assert load_vocabulary(write(tmp_path)).chat_template == "D"


def duplicate_id(document: Any) -> None:
    table = document["model"]["vocab"]
    table[list(table)[50]] = table[list(table)[60]]


def huge_id(document: Any) -> None:
    table = document["model"]["vocab"]
    table[list(table)[50]] = 4_000_000_000


def negative_id(document: Any) -> None:
    table = document["model"]["vocab"]
    table[list(table)[50]] = -1


def colliding_added(document: Any) -> None:
    document["added_tokens"].append({**document["added_tokens"][0], "content": "<|x|>", "id": 77})


def empty_added(document: Any) -> None:
    document["added_tokens"].append({**document["added_tokens"][0], "content": "", "id": 900})


def renumbered_added(document: Any) -> None:
    document["added_tokens"].append({**document["added_tokens"][0], "content": "<|x|>", "id": 900})


def long_id(document: Any) -> None:
    table = document["model"]["vocab"]
    table[list(table)[50]] = "a" * 3000


def piece_that_is_a_list(document: Any) -> None:
    document["model"] = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], [["a"], -1.0]]}


def merge_of_nothing(document: Any) -> None:
    document["model"]["merges"].append(["nothing", "known"])


def no_model(document: Any) -> None:
    del document["model"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (duplicate_id, "both have the id"),
        (huge_id, "4000000000"),
        (negative_id, "not an id"),
        (long_id, "not an id"),
        (piece_that_is_a_list, "a piece without text"),
        (colliding_added, "both have the id 77"),
        (empty_added, "without content"),
        (renumbered_added, "once loaded"),
        (merge_of_nothing, "cannot be loaded"),
        (no_model, "no model vocabulary"),
    ],
)
def test_ids_that_cannot_be_meant_are_refused(tmp_path: Path, change: Any, says: str) -> None:
    with pytest.raises(TokenizerError, match=says) as caught:
        load_vocabulary(write(tmp_path, change=change))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_two_pieces_of_a_unigram_list_and_an_added_token_may_not_collide(tmp_path: Path) -> None:
    def change(document: Any) -> None:
        document["added_tokens"].append({**document["added_tokens"][0], "content": "<q>", "id": 9})

    with pytest.raises(TokenizerError, match="both have the id 9"):
        load_vocabulary(write(tmp_path, "unigram_bytes", change))


@pytest.mark.parametrize(
    ("content", "says"),
    [("{", "not readable JSON"), ("[1]", "not an object"), ("[" * 50_000, "nested too deeply")],
)
def test_broken_json_is_refused(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(TokenizerError, match=says):
        load_vocabulary(tmp_path)


def test_a_folder_without_a_tokenizer_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="save_pretrained"):
        load_vocabulary(tmp_path)


def test_a_folder_of_plain_files_is_converted(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s"]
    (tmp_path / "vocab.txt").write_text("\n".join(names))
    vocabulary = load_vocabulary(tmp_path)
    assert vocabulary.token_bytes[5:] == (b" the", b" cat", b"s")
    assert vocabulary.roles["cls"] == 2


def test_a_path_that_is_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="neither a folder"):
        load_vocabulary(tmp_path / "nowhere" / "at all")
    with pytest.raises(TokenizerError, match="not a folder here"):
        load_vocabulary("nobody-at-all/no-such-model")


def test_a_panic_beneath_is_one_of_our_errors() -> None:
    class PanicException(BaseException):
        pass

    def panic() -> None:
        raise PanicException("called `Option::unwrap()` on a `None` value\nat line 3")

    with pytest.raises(TokenizerError, match="here: called"):
        guarded("here", panic)
    with pytest.raises(KeyboardInterrupt):
        guarded("here", interrupt)


def interrupt() -> None:
    raise KeyboardInterrupt


def test_a_regex_that_runs_away_is_one_of_our_errors(capfd: pytest.CaptureFixture[str]) -> None:
    tokenizer = TINY["byte_level"]()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex("(a+)+$"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    vocabulary = vocabulary_from_tokenizer(tokenizer)
    with pytest.raises(TokenizerError, match="cannot be encoded: Onig"):
        vocabulary.encode("a" * 40 + "b")
    assert vocabulary.pieces_of(b"a" * 40 + b"b") is not None
    capfd.readouterr()


def test_a_stored_padding_of_a_million_is_off(tmp_path: Path) -> None:
    tokenizer = TINY["byte_level"]()
    tokenizer.enable_padding(length=1_000_000)
    tokenizer.enable_truncation(1)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert len(load_vocabulary(tmp_path).encode("the cat")) < 8


def test_two_equal_pieces_of_a_unigram_list_are_one_token_and_one_unused_id() -> None:
    document = json.loads(TINY["unigram_bytes"]().to_str())
    entries = document["model"]["vocab"]
    twin = next(n for n, (piece, _) in enumerate(entries) if piece == "▁t")
    entries.append(list(entries[twin]))
    vocabulary = vocabulary_from_tokenizer(Tokenizer.from_str(json.dumps(document)))
    emitted = vocabulary.emits(b" t")
    assert emitted in (twin, len(entries) - 1, None)
    assert sorted(vocabulary.kinds[[twin, len(entries) - 1]].tolist()) == [
        Kind.ORDINARY,
        Kind.UNUSED,
    ]


def test_an_unknown_spelling_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"<\|im_start\|>"):
        made("byte_level").require_id("<|im_strat|>")

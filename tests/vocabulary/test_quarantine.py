"""Files that could hang or fill memory are tried in a child, and only those."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from tokenizers import AddedToken, Regex, pre_tokenizers

from tests.vocabulary.tiny_tokenizers import TINY
from tokensurgeon.errors import TokenizerError
from tokensurgeon.vocabulary import load_vocabulary, quarantine
from tokensurgeon.vocabulary.tame import may_backtrack


def save(folder: Path, pattern: str | None = None) -> Path:
    tokenizer = TINY["byte_level"]()
    if pattern is not None:
        split = pre_tokenizers.Split(Regex(pattern), "isolated")
        level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, level])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def never(*args: object, **more: object) -> None:
    raise AssertionError("no child was wanted")


def test_an_ordinary_file_is_not_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", never)
    load_vocabulary(save(tmp_path))
    load_vocabulary(save(tmp_path, r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|\s+(?!\S)|\s+"))


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)+$"])
def test_a_pattern_that_backtracks_without_end_is_refused(pattern: str, tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"process of its own.*it failed") as caught:
        load_vocabulary(save(tmp_path, pattern))
    assert "\n" not in str(caught.value)


def test_a_repeat_in_a_repeat_that_is_tame_loads(tmp_path: Path) -> None:
    assert may_backtrack(r"(?:\p{L}\p{M}*)+")
    vocabulary = load_vocabulary(save(tmp_path, r"(?:\p{L}\p{M}*)+|\s+|."))
    assert vocabulary.encode("the cat")


@pytest.mark.parametrize(
    ("child", "said"),
    [
        ("while True: pass", "took more than 1 seconds"),
        ("import time; time.sleep(9)", "took more than 1 seconds"),
        ("import os; os.abort()", "or 6 GiB"),
        ("print(1 / 0)", "ZeroDivisionError"),
    ],
)
def test_a_child_that_comes_to_no_good_end(
    child: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarantine, "CLOCK", 1)
    monkeypatch.setattr(quarantine, "CHILD", child)
    with pytest.raises(TokenizerError, match=said):
        load_vocabulary(save(tmp_path, "(?:a+)+"))


def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine, "MEMORY", 1 << 30)
    start, _ = quarantine.CHILD.split("from tokenizers")
    monkeypatch.setattr(quarantine, "CHILD", start + "x = bytearray(2 << 30)")
    with pytest.raises(TokenizerError, match="MemoryError"):
        load_vocabulary(save(tmp_path, "(?:b+)+"))


def test_many_added_tokens_are_tried_and_load(tmp_path: Path) -> None:
    tokenizer = TINY["byte_level"]()
    tokenizer.add_tokens([AddedToken(f"<<{i}>>") for i in range(10_500)])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    document = json.loads((tmp_path / "tokenizer.json").read_text())
    assert str(quarantine.unusual(document, 0)).endswith("added tokens")
    assert load_vocabulary(tmp_path).id_of("<<10499>>") is not None

"""Files that could hang or fill memory are tried in a child, and only those."""

from __future__ import annotations

import base64
import json
import struct
import subprocess
from pathlib import Path
from typing import Any

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


def with_part(folder: Path, name: str = "byte_level", **parts: Any) -> Path:
    document = {**json.loads(TINY[name]().to_str()), **parts}
    (folder / "tokenizer.json").write_text(json.dumps(document))
    return folder


def replace(content: str, **pattern: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def charsmap(array: list[int], texts: bytes) -> dict[str, Any]:
    data = struct.pack(f"<I{len(array)}I", 4 * len(array), *array) + texts
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(data).decode()}


def sequence(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "normalizers": list(parts)}


TEN = "x" * 10


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (
            {"normalizer": sequence(*[replace(TEN * 5, Regex=".")] * 3)},
            r"up to 125,000 bytes of one.*makes 125,000 bytes of 1\b",
        ),
        (
            {"normalizer": sequence(replace(TEN, String="a"), sequence(replace(TEN, String="x")))},
            r"up to 100 bytes of one.*makes 4,000 bytes of 40\b",
        ),
        ({"normalizer": replace(TEN * 20, String="qu")}, "up to 100 bytes of one.*of 80"),
        ({"normalizer": replace(TEN * 40, Regex=r"\\x{A7}")}, "by 400 bytes; at most 256"),
        ({"normalizer": replace("x", String="")}, r"the empty text.*index out of bounds"),
        ({"normalizer": {"type": "Prepend", "prepend": TEN * 100}}, "1,000 characters.*of 1"),
        ({"pre_tokenizer": {"type": "FixedLength", "length": 0}}, "'FixedLength'.*non-zero"),
        (
            {"decoder": {"type": "Strip", "content": "a", "start": 10**9, "stop": 10**9}},
            "1,000,000,000 characters taken from the ends.*index out of bounds",
        ),
        ({"decoder": replace(TEN * 20, Regex="")}, "decoder makes"),
    ],
)
def test_parts_that_grow_or_fail_are_refused_in_one_line(
    part: dict[str, Any], said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(TokenizerError, match=said) as caught:
        load_vocabulary(with_part(tmp_path, **part))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_merges_over_pieces_with_a_prefix_are_tried(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = json.loads(TINY["byte_level"]().to_str())["model"]
    model["continuing_subword_prefix"] = "é" * 8
    with pytest.raises(TokenizerError, match=r"begin with 'é+'.*out of range"):
        load_vocabulary(with_part(tmp_path, model=model))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "part",
    [
        {"normalizer": replace(" <n> ", String="\n")},
        {"normalizer": sequence(replace("▁", String=" "), replace('"', String="``"))},
        {"normalizer": sequence(replace("<line>", String="\n"), replace("(c)", Regex="©|Ⓒ"))},
    ],
)
def test_replacements_that_stay_small_load(part: dict[str, Any], tmp_path: Path) -> None:
    assert load_vocabulary(with_part(tmp_path, **part)).encode("the cat")


LEAF, TO_NEXT = 1 << 8, 1 << 10
BLOCK = [0] * 255


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"type": "Precompiled", "precompiled_charsmap": "AAAA/////w=="}, "4,278,190,080 bytes"),
        ({"type": "Precompiled", "precompiled_charsmap": "?"}, "no base64"),
        ({"type": "Precompiled"}, "no base64"),
        (charsmap([], b"a\0"), "0 bytes"),
        (charsmap([0], b"a\0"), "out of its array of 1 units"),
        (charsmap([1 << 30, *BLOCK], b"a\0"), "out of its array of 256 units at unit 0"),
        # A root that says that it is a leaf is followed all the same.
        (charsmap([1 << 31 | 1 << 20, *BLOCK], b"a\0"), "out of its array of 256 units at unit 0"),
        (charsmap([LEAF | TO_NEXT, 1 << 31 | 77, *BLOCK[1:]], b"a\0"), "byte 77 of 2 bytes"),
        (charsmap([LEAF | TO_NEXT, 1 << 31 | 1, *BLOCK[1:]], b"\xc3\xa9\0"), "inside a character"),
        (charsmap([0, *BLOCK], b"\xff\0"), "not UTF-8, at byte 0"),
        (charsmap([LEAF | TO_NEXT, 1 << 31, *BLOCK[1:]], b"x" * 999), "by 999 bytes"),
    ],
)
def test_a_broken_charsmap_is_refused_before_a_library_follows_it(
    part: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", never)
    with pytest.raises(TokenizerError, match=f"charsmap .*{said}"):
        load_vocabulary(with_part(tmp_path, "unigram_no_bytes", normalizer=sequence(part)))


@pytest.mark.parametrize("rule", ["nmt_nfkc", "nfkc_cf"])
def test_the_charsmaps_of_sentencepiece_are_sound(rule: str, tmp_path: Path) -> None:
    trainer = pytest.importorskip("sentencepiece").SentencePieceTrainer
    (tmp_path / "words.txt").write_text("the cat sat on the mat\n" * 9)
    settings = {"vocab_size": 20, "hard_vocab_limit": False, "minloglevel": 2}
    trainer.train(
        input=str(tmp_path / "words.txt"),
        model_prefix=str(tmp_path / "tokenizer"),
        normalization_rule_name=rule,
        **settings,
    )
    assert load_vocabulary(tmp_path).encode("ﬁne") == load_vocabulary(tmp_path).encode("fine")


def test_parts_are_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_vocabulary(with_part(tmp_path, normalizer=replace("<nl>" * 3, String="\v")))
    monkeypatch.setattr(subprocess, "run", never)
    load_vocabulary(tmp_path)

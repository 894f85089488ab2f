"""Texts in groups: what a group is, and that each has its part of the bytes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tokensurgeon.errors import CorpusError
from tokensurgeon.text import read_grouped
from tokensurgeon.text.grouped import By, language_of_name


@pytest.mark.parametrize(
    ("name", "language"),
    [
        ("deu_Latn.devtest", "deu_Latn"),
        ("dev.zho_Hans.txt", "zho_Hans"),
        ("flores-de.txt", "de"),
        ("flores_en.jsonl.gz", "en"),
        ("ja-wagahai-neko.txt", "ja"),
        ("de.jsonl", "de"),
        ("ud-hindi-pud.txt", None),
        ("code-python-attrs.txt", None),
        ("notes.de.txt", None),
    ],
)
def test_a_language_is_read_off_a_name_only_where_it_is_a_code(
    name: str, language: str | None
) -> None:
    assert language_of_name(name) == language


def lines(path: Path, *documents: object) -> Path:
    path.write_text("\n".join(json.dumps(one) for one in documents), "utf-8")
    return path


def test_each_file_has_an_equal_part_of_the_bytes(tmp_path: Path) -> None:
    long = lines(tmp_path / "a.jsonl", *(["word " * 100] * 40))
    short = lines(tmp_path / "b.jsonl", "a short one")
    one = tmp_path / "c.txt"
    one.write_text("one document, " * 1_000)
    grouped = read_grouped([long, short, one], "file", max_bytes=6_000)
    sizes = dict.fromkeys(grouped.groups, 0)
    for document, group in zip(grouped.corpus.documents, grouped.groups, strict=True):
        sizes[group] += document.n_bytes
    assert list(sizes) == ["a.jsonl", "b.jsonl", "c.txt"]
    assert sizes["a.jsonl"] == 4 * 500  # whole documents only
    assert sizes["b.jsonl"] == 11
    assert 1_000 <= sizes["c.txt"] <= 2_000  # the start of the one document


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "text.txt").write_text("a few words")
    grouped = read_grouped([tmp_path], "file", max_bytes=None)
    assert grouped.groups == tuple(str(tmp_path / f / "text.txt") for f in ("x", "y"))


def test_an_object_names_its_language_and_the_file_where_it_does_not(tmp_path: Path) -> None:
    mixed = lines(
        tmp_path / "flores-de.jsonl",
        {"text": "one", "lang": "en"},
        {"text": "", "lang": "fr"},
        {"text": "zwei"},
        {"text": "three", "lang": "en"},
    )
    grouped = read_grouped([mixed], "language", max_bytes=None, language_field="lang")
    assert dict(zip(grouped.corpus.texts, grouped.groups, strict=True)) == {
        "one": "en", "zwei": "de", "three": "en"
    }  # fmt: skip
    assert grouped.groups == ("en", "en", "de")


@pytest.mark.parametrize(
    ("document", "by", "max_bytes", "said"),
    [
        ("plain", "language", None, "has no language: give each object the key 'language'"),
        ({"text": "a", "language": 7}, "language", None, "holds no name of a language but int"),
        ("plain", "file", 900, "1 groups have 900 bytes each"),
    ],
)
def test_what_cannot_be_grouped_is_one_line(
    tmp_path: Path, document: object, by: By, max_bytes: int | None, said: str
) -> None:
    path = lines(tmp_path / "notes.jsonl", document)
    with pytest.raises(CorpusError, match=said) as caught:
        read_grouped([path], by, max_bytes=max_bytes)
    assert "\n" not in str(caught.value)

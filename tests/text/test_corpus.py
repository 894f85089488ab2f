"""Texts are read as they are, and what cannot be read is named."""

from __future__ import annotations

import gzip
import json
import sys

import pytest

from tokensurgeon.errors import CorpusError
from tokensurgeon.text.corpus import corpus_of_texts, iter_documents, read_corpus, read_documents


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode("utf-8"))
    return path


def texts(*patterns, **options):
    return [document.text for document in read_documents(patterns, **options)]


def test_a_text_file_is_one_document_as_it_is(tmp_path):
    hard = "\ufeffa\r\n\r\nb\u2028c\x00\n\n<|endoftext|> in a line\n"
    path = write(tmp_path / "a.txt", "\ufeff" + hard)
    assert texts(path) == [hard]
    assert read_documents([path])[0].source == str(path)


def test_a_line_with_only_the_end_of_text_ends_a_document(tmp_path):
    path = write(tmp_path / "a.txt", "one\n<|endoftext|>\ntwo\r\n<|endoftext|>\r\nthree")
    assert texts(path) == ["one\n", "two\r\n", "three"]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.json", json.dumps(["one", {"text": "two\u2028"}])),
        ("a.jsonl", '"one"\n\n{"text": "two\u2028"}'),
        ("a.txt", "one<|endoftext|>\n<|endoftext|>\ntwo\u2028".replace("one<|endoftext|>", "one")),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_every_format_gives_the_same_documents(tmp_path, name, data, packed):
    raw = data.encode("utf-8")
    path = write(tmp_path / f"{name}{'.gz' * packed}", gzip.compress(raw) if packed else raw)
    assert [text.strip("\n") for text in texts(path)] == ["one", "two\u2028"]


def test_folders_and_globs_are_sorted_and_each_file_is_read_once(tmp_path):
    for name in ("b.txt", "a.md", "sub/c.py", ".hidden/d.txt", "e.bin"):
        write(tmp_path / name, name)
    assert texts(tmp_path) == ["a.md", "b.txt", "sub/c.py"]
    assert texts(tmp_path / "*.txt", tmp_path, tmp_path / "e.bin") == [
        "b.txt", "a.md", "sub/c.py", "e.bin",
    ]  # fmt: skip
    assert texts(f"{tmp_path}/**/*.py") == ["sub/c.py"]


def test_what_is_not_utf8_is_replaced_and_counted(tmp_path):
    path = write(tmp_path / "a.txt", b"a\xffb\xc3 \xef\xbf\xbd")
    corpus = read_corpus([path])
    assert corpus.texts == ("a�b� �",)
    assert corpus.n_replaced == 2
    lone = write(tmp_path / "b.json", '["\\ud800"]')
    assert read_corpus([lone]).n_replaced == 1


def test_a_budget_stops_after_the_document_that_reaches_it(tmp_path):
    path = write(tmp_path / "a.json", json.dumps(["é" * 4] * 5))
    assert len(read_documents([path], max_bytes=9)) == 2


def test_the_hash_is_of_the_documents_not_of_the_files(tmp_path):
    one = read_corpus([write(tmp_path / "a.json", '["a", "b"]')])
    two = read_corpus([write(tmp_path / "b.jsonl", '"a"\n"b"')])
    assert one.sha256 == two.sha256 == corpus_of_texts(["a", "", "b"]).sha256
    assert one.sha256 != corpus_of_texts(["ab"]).sha256
    assert (one.n_bytes, len(one.documents)) == (2, 2)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.txt", b"", "holds no text"),
        ("a.json", b"[]", "holds no text"),
        ("a.json", b"{", "is not JSON"),
        ("a.jsonl", b'"a"\n{', "line 2 is not JSON"),
        ("a.json", b"[1]", "not int"),
        ("a.json", b'[{"body": "a"}]', r"no field 'text' \(its keys: body\)"),
        ("a.txt.gz", b"no gzip", "not a whole gzip file"),
        ("a.txt", "a".encode("utf-16"), "is UTF-16"),
        ("a.parquet", b"x", "not a whole Parquet file"),
        ("a.txt.zst", b"no zstd", "not a whole zstd file"),
        ("a.txt.xz", b"x", ".xz files are not read"),
    ],
)
def test_what_cannot_be_read_is_named_in_one_line(tmp_path, name, data, message):
    path = write(tmp_path / name, data)
    with pytest.raises(CorpusError, match=message) as caught:
        read_documents([path])
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_found_is_named(tmp_path):
    with pytest.raises(CorpusError, match="there is no text file nowhere"):
        read_documents(["nowhere.txt"])
    with pytest.raises(CorpusError, match="no file matches"):
        read_documents([tmp_path / "*.txt"])
    with pytest.raises(CorpusError, match="no text files in the folder"):
        read_documents([tmp_path])
    with pytest.raises(CorpusError, match="no text was named"):
        read_documents([])
    with pytest.raises(CorpusError, match="are empty"):
        corpus_of_texts([""])


def test_another_field_can_hold_the_text(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"body": "a", "text": "b"}')
    assert texts(path, field="body") == ["a"]


def test_packed_files_are_read_and_a_cut_one_is_named(tmp_path):
    zstd = pytest.importorskip("backports.zstd")
    whole = zstd.compress(("line\n" * 50_000).encode())
    assert texts(write(tmp_path / "a.txt.zst", whole)) == ["line\n" * 50_000]
    with pytest.raises(CorpusError, match="not a whole zstd file"):
        read_documents([write(tmp_path / "b.txt.zst", whole[: len(whole) // 2])])


def test_parquet_rows_are_documents(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"body": ["a", "", "b\n"], "n": [1, 2, 3]}), path)
    assert texts(path, field="body") == ["a", "b\n"]
    with pytest.raises(CorpusError, match="no column 'text' \\(it has body, n\\)"):
        read_documents([path])


def test_a_sequence_file_gives_sequences(tmp_path):
    path = write(tmp_path / "a.fasta", ">one\nACGT\nACG\n>two\nTTT\n")
    assert texts(path) == ["ACGTACG", "TTT"]


def test_a_dataset_without_the_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(CorpusError, match=r"pip install 'tokensurgeon\[datasets\]'"):
        read_documents(["hf:some/data"])


def test_large_plain_text_is_cut_at_line_ends(tmp_path):
    path = write(tmp_path / "a.txt", "one\ntwo\nthree\n")
    parts = [document.text for document, _ in iter_documents([path], part_bytes=5)]
    assert parts == ["one\ntwo\n", "three\n"]

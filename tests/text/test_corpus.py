"""Texts are read as they are, and what cannot be read is named."""

from __future__ import annotations

import gzip
import json
import os
import random
import sys

import pytest

from tokensurgeon.errors import CorpusError
from tokensurgeon.text import formats
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
        ("a.txt", "a".encode("utf-32"), r"is UTF-32; convert it to UTF-8 \(iconv -f UTF-32"),
        ("a.txt", gzip.compress(b"a"), r"is packed by gzip; let its name end in \.gz"),
        ("a.txt", b"PK\x03\x04a.txt", "is a zip archive; unpack it"),
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


LATIN = "né à ça né à ".encode("latin-1") * 50


@pytest.mark.parametrize(
    ("name", "data", "encoding"),
    [
        ("a.txt", LATIN, "LATIN1"),
        ("a.py", b"# " + LATIN, "LATIN1"),
        ("a.jsonl", b'"' + LATIN + b'"\n"more"', "LATIN1"),
        ("a.jsonl", b'"a plain line"\n' * 50 + b'"' + LATIN + b'"\n', "LATIN1"),
        ("a.json", b'["' + LATIN + b'"]', "LATIN1"),
        ("a.json", b'["' + b"\\ud800 " * 50 + b'"]', "LATIN1"),
        ("a.txt.gz", gzip.compress(LATIN), "LATIN1"),
        ("a.txt", "наука и жизнь ".encode("cp1251") * 20, "LATIN1"),
        ("a.txt", "日本語の文章。".encode("shift_jis") * 20, "LATIN1"),
        ("a.txt", ("plain English, " * 40 + "a \x92quote\x93 in it ").encode("latin-1") * 5, None),
        ("a.txt", "without a mark".encode("utf-16-le") * 20, "UTF-16"),
        ("a.png", bytes(range(256)) * 20, "LATIN1"),
        ("a.bin", b"\x7fELF" + bytes(5000), "UTF-16"),
    ],
)
def test_what_is_no_text_is_refused_unless_asked(tmp_path, name, data, encoding):
    """A few bytes that are not UTF-8 are counted; a share of them means another encoding."""
    path = write(tmp_path / name, data)
    if encoding is None:
        assert read_corpus([path]).n_replaced == 10
        return
    with pytest.raises(CorpusError, match=rf"is no text: of [\d,]+ .* -f {encoding} -t UTF-8"):
        read_corpus([path])
    corpus = read_corpus([path], allow_invalid=True)
    assert corpus.n_replaced + "".join(corpus.texts).count("\0") > 8
    assert corpus.to_dict()["replaced_characters"] == corpus.n_replaced


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("null", "not null"),
        ("true", "not bool"),
        ("1.5", "not float"),
        ("NaN", "not float"),
        ('["a"]', "not list"),
        ('{"a": 1}', "has no field 'text'"),
        ("{}", "has no field 'text'"),
        ('{"text": 5}', "not int"),
        ('{"text": null}', "not null"),
        ('{"text": {"text": "a"}}', "not dict"),
        ('{"text": "a", "n": ' + "9" * 5000 + "}", "is not JSON .*4300 digits"),
        ('{"text": "a", "n": -' + "9" * 5000 + "}", "is not JSON .*4300 digits"),
        ("[" * 100_000, "nested too deep"),
        ('{"a":' * 100_000, "nested too deep"),
        ('{"text": "a', "is not JSON"),
        ('"a" "b"', "is not JSON"),
        ('"\\x"', "is not JSON"),
        ('"a\0"', "is not JSON"),
        ("'a'", "is not JSON"),
    ],
)
def test_a_bad_line_is_named_with_its_number(tmp_path, line, message):
    path = write(tmp_path / "a.jsonl", f'"good"\n\n{line}\n"good"\n')
    with pytest.raises(CorpusError, match=message) as caught:
        read_documents([path])
    assert f"{path}, line 3" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert ";" in str(caught.value)


def test_lines_that_are_odd_and_right_are_read(tmp_path):
    data = '\ufeff"a"\r\n{"text": "b", "text": "c", "n": Infinity}\n"\\ud800"\n   \n"\\u0000"'
    corpus = read_corpus([write(tmp_path / "a.jsonl", data)])
    assert corpus.texts == ("a", "c", "\ufffd", "\0")
    assert corpus.n_replaced == 1


@pytest.mark.parametrize("name", ["a.txt.gz", "a.jsonl.gz", "a.fasta.gz", "a.txt.zst"])
def test_with_a_budget_no_more_is_read_than_it_needs(tmp_path, name):
    """The file is cut off far behind the budget, and nobody notices."""
    line = '"some text of a line"\n' if "jsonl" in name else "ACGT ACGT\n"
    rng = random.Random(0)
    lines = line * 3 + "".join(f'"{rng.getrandbits(400):x}"\n' for _ in range(40_000))
    if name.endswith("gz"):
        data = gzip.compress(lines.encode())
    else:
        data = pytest.importorskip("backports.zstd").compress(lines.encode())
    path = write(tmp_path / name, data[: len(data) // 2])
    with pytest.raises(CorpusError, match="is not a whole"):
        read_documents([path])
    n_bytes = read_corpus([path], max_bytes=50).n_bytes
    assert 50 <= n_bytes < 400


def test_a_budget_ends_inside_a_plain_file_and_never_inside_a_character(tmp_path):
    path = write(tmp_path / "a.txt", "ü" * 3_000_000)
    corpus = read_corpus([path, write(tmp_path / "b.txt", "more")], max_bytes=1001)
    assert (set(corpus.texts[0]), len(corpus.documents)) == ({"ü"}, 1)
    assert corpus.n_replaced == 0
    assert corpus.n_bytes <= 1 << 20


def test_two_files_share_a_budget(tmp_path):
    one, two = write(tmp_path / "a.txt", "a" * 30), write(tmp_path / "b.txt", "b" * 30)
    assert len(read_documents([one, two], max_bytes=30)) == 1
    assert len(read_documents([one, two], max_bytes=31)) == 2


def test_what_unpacks_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "_UNPACKED", 1 << 20)
    member = gzip.compress(b"text\n" * 100_000)
    path = write(tmp_path / "a.txt.gz", member * 10)
    with pytest.raises(CorpusError, match="unpacks to more than 100 times its size"):
        read_documents([path])
    assert read_corpus([path], max_bytes=1000).n_bytes < 2000


def test_what_has_to_be_read_as_a_whole_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "LONGEST_LINE", 1 << 20)
    monkeypatch.setattr(formats, "MOST_JSON", 1 << 20)
    long = '"' + "a" * (1 << 20) + '"'
    with pytest.raises(CorpusError, match=r"a.jsonl, line 2 is longer than 1,048,576 bytes"):
        read_documents([write(tmp_path / "a.jsonl", f'"a"\n{long}\n')])
    with pytest.raises(CorpusError, match="more than 1,048,576 bytes of JSON"):
        read_documents([write(tmp_path / "a.json", f"[{long}]")])


def test_a_line_without_an_end_is_taken_in_parts_where_parts_are_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "_PIECE", 1000)
    monkeypatch.setattr(formats, "LONGEST_LINE", 10_000)
    text = "a word and 日本語 " * 3000
    path = write(tmp_path / "a.txt", text)
    corpus = [(d.text, n) for d, n in iter_documents([path], part_bytes=5000)]
    assert "".join(part for part, _ in corpus) == text
    assert max(len(part.encode()) for part, _ in corpus) <= 11_000
    assert sum(n for _, n in corpus) == 0
    assert texts(path) == [text]
    separated = write(tmp_path / "b.txt", f"{text}<|endoftext|>\n<|endoftext|>\n{text}")
    assert texts(separated) == [f"{text}<|endoftext|>\n", text]


def test_devices_and_pipes_are_no_texts(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    for path in ("/dev/zero", tmp_path / "pipe.txt"):
        with pytest.raises(CorpusError, match="is a device or a pipe, not a text file"):
            read_documents([path])
    with pytest.raises(CorpusError, match="no text files in the folder"):
        read_documents([tmp_path])

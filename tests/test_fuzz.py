"""Damaged files of every kind: our own one-line error, or a right answer; never a traceback."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.checkpoint.conftest import make_model, make_tokenizer
from tokensurgeon import Recipe
from tokensurgeon.checkpoint import Checkpoint
from tokensurgeon.errors import TokensurgeonError
from tokensurgeon.vocabulary import load_vocabulary

FEW, MANY = 120, 1000
MESSAGE = 600
"""Characters: an error is a line, not the file."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"), "llama", False, shard="10KB")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer"))


ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2**31, 2**63, 2**64, 1.5, float("inf"), "", "x", "../x", "/etc/passwd",
    "\0", "\ud800", [], {}, [[]], [None], {"a": {}}, "a" * 3000, [0] * 300,
)  # fmt: skip


def damaged(value: Any, rng: random.Random) -> Any:
    """Return JSON with one thing in it changed, dropped, doubled or put elsewhere."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = rng.choice(list(value))
        how = rng.random()
        rest = {k: v for k, v in value.items() if k != key}
        if how < 0.1:
            return rest
        if how < 0.2:
            return {**rest, str(rng.choice(ODD)): value[key]}
        return {**value, key: damaged(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        if rng.random() < 0.2:
            return [*value[:at], value[at], *value[at:]]
        return [*value[:at], damaged(value[at], rng), *value[at + 1 :]]
    return rng.choice(ODD)


def torn(data: bytes, rng: random.Random) -> bytes:
    """Return bytes with a few of them changed, cut off or put in."""
    made = bytearray(data)
    for _ in range(rng.randrange(1, 5)):
        at = rng.randrange(len(made) + 1)
        how = rng.random()
        if how < 0.5 and at < len(made):
            made[at] = rng.randrange(256)
        elif how < 0.7:
            del made[at : at + rng.randrange(1, 40)]
        elif how < 0.9:
            made[at:at] = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 9)))
        else:
            del made[at:]
    return bytes(made)


def header_of(path: Path) -> tuple[dict[str, Any], bytes]:
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def with_header(header: Any, body: bytes) -> bytes:
    text = json.dumps(header).encode("utf-8", errors="surrogatepass")
    return struct.pack("<Q", len(text)) + text + body


def answer(what: Callable[[], object]) -> None:
    """Run; an error must be ours, in one short line."""
    try:
        what()
    except TokensurgeonError as error:
        said = str(error)
    else:
        return
    assert "\n" not in said.strip()
    assert 0 < len(said) < MESSAGE


def sizes(few: int = FEW, many: int = MANY) -> list[Any]:
    return [few, pytest.param(many, marks=pytest.mark.sweep)]


@pytest.mark.parametrize("n", sizes())
def test_damaged_weight_files(folder: Path, n: int) -> None:
    shards = sorted(folder.glob("*.safetensors"))
    kept = {path: path.read_bytes() for path in shards}

    @settings(max_examples=n)
    @given(st.integers(0, 2**32))
    def check(seed: int) -> None:
        rng = random.Random(seed)
        path = rng.choice(shards)
        header, body = header_of(path)
        broken = with_header(damaged(header, rng), body)
        path.write_bytes(broken if rng.random() < 0.7 else torn(kept[path], rng))
        try:
            answer(lambda: Checkpoint.open(folder).input_rows())
        finally:
            path.write_bytes(kept[path])

    check()
    assert Checkpoint.open(folder).input_rows().any()


@pytest.mark.parametrize("n", sizes())
@pytest.mark.parametrize("name", ["model.safetensors.index.json", "config.json"])
def test_damaged_index_and_configuration(folder: Path, name: str, n: int) -> None:
    path = folder / name
    kept = path.read_bytes()

    @settings(max_examples=n)
    @given(st.integers(0, 2**32))
    def check(seed: int) -> None:
        rng = random.Random(seed)
        broken = json.dumps(damaged(json.loads(kept), rng)).encode()
        path.write_bytes(broken if rng.random() < 0.8 else torn(kept, rng))
        try:
            answer(lambda: Checkpoint.open(folder).output_rows())
        finally:
            path.write_bytes(kept)

    check()


@pytest.mark.parametrize("n", sizes())
def test_damaged_tokenizers(tokenizer: Path, n: int, capfd: pytest.CaptureFixture[str]) -> None:
    path = tokenizer / "tokenizer.json"
    kept = path.read_bytes()

    @settings(max_examples=n)
    @given(st.integers(0, 2**32))
    def check(seed: int) -> None:
        rng = random.Random(seed)
        broken = json.dumps(damaged(json.loads(kept), rng)).encode()
        path.write_bytes(broken if rng.random() < 0.8 else torn(kept, rng))
        try:
            answer(lambda: load_vocabulary(tokenizer).encode("the cat sat on 12 mats, é"))
        finally:
            path.write_bytes(kept)

    check()
    capfd.readouterr()


RECIPE = {
    "source": "model",
    "tokenizer": {"method": "bpe", "corpus": ["a.txt"], "size": 300},
    "init": {"input": "omp", "output": "omp", "settings": {"omp": {"k": 8}}},
    "text": {"calibration": ["a"], "evaluation": ["b"]},
    "map": {"<pad>": "</s>"},
    "heal": 1.0,
}


@pytest.mark.parametrize("n", sizes())
def test_damaged_recipes(tmp_path: Path, n: int) -> None:
    path = tmp_path / "recipe.yaml"
    kept = yaml.safe_dump(RECIPE).encode()

    @settings(max_examples=n)
    @given(st.integers(0, 2**32))
    def check(seed: int) -> None:
        rng = random.Random(seed)
        broken = json.dumps(damaged(RECIPE, rng)).encode()
        path.write_bytes(broken if rng.random() < 0.6 else torn(kept, rng))
        answer(lambda: Recipe.from_yaml(path))

    check()

"""Damaged files of every kind: our own one-line error, or a right answer; never a traceback."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.world import make_model, make_tokenizer
from tokensurgeon import Recipe
from tokensurgeon.checkpoint import Checkpoint
from tokensurgeon.errors import TokensurgeonError
from tokensurgeon.vocabulary import load_vocabulary

FEW, MANY = 120, 1000
MESSAGE = 600
"""Characters: an error is a line, not the file."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_tokenizer(tmp_path_factory.mktemp("model"))
    return make_model(folder, noise=0.2, shard="10KB")


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


def fuzz(
    n: int,
    paths: Sequence[Path],
    change: Callable[[bytes, random.Random], bytes],
    what: Callable[[], object],
) -> None:
    """Damage one of the files, in its form or in its bytes, and look; n times, and put it back."""
    kept = {path: path.read_bytes() for path in paths}

    @settings(max_examples=n)
    @given(st.integers(0, 2**32))
    def check(seed: int) -> None:
        rng = random.Random(seed)
        path = rng.choice(paths)
        how = change if rng.random() < 0.75 else torn
        path.write_bytes(how(kept[path], rng))
        try:
            answer(what)
        finally:
            path.write_bytes(kept[path])

    check()
    what()


def in_json(data: bytes, rng: random.Random) -> bytes:
    return json.dumps(damaged(json.loads(data), rng)).encode()


def in_header(data: bytes, rng: random.Random) -> bytes:
    (size,) = struct.unpack("<Q", data[:8])
    header = damaged(json.loads(data[8 : 8 + size]), rng)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + size :]


@pytest.mark.parametrize("n", sizes())
def test_damaged_weight_files(folder: Path, n: int) -> None:
    shards = sorted(folder.glob("*.safetensors"))
    fuzz(n, shards, in_header, lambda: Checkpoint.open(folder).input_rows())


@pytest.mark.parametrize("n", sizes())
@pytest.mark.parametrize("name", ["model.safetensors.index.json", "config.json"])
def test_damaged_index_and_configuration(folder: Path, name: str, n: int) -> None:
    fuzz(n, [folder / name], in_json, lambda: Checkpoint.open(folder).output_rows())


@pytest.mark.parametrize("n", sizes())
def test_damaged_tokenizers(tokenizer: Path, n: int, capfd: pytest.CaptureFixture[str]) -> None:
    text = "the cat sat on 12 mats, é"
    path = tokenizer / "tokenizer.json"
    fuzz(n, [path], in_json, lambda: load_vocabulary(tokenizer).encode(text))
    capfd.readouterr()  # what the library beneath says of a panic


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
    path.write_text(json.dumps(RECIPE))  # JSON is YAML too
    fuzz(n, [path], in_json, lambda: Recipe.from_yaml(path))
    path.write_text(yaml.safe_dump(RECIPE))
    fuzz(n // 4, [path], torn, lambda: Recipe.from_yaml(path))

"""Damaged files of every kind: our own one-line error, or a right answer; never a traceback."""

from __future__ import annotations

import base64
import gzip
import json
import random
import resource
import struct
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import processors

from tests.vocabulary.tiny_tokenizers import TINY
from tests.world import SENTENCES, make_model, make_tokenizer
from tokensurgeon import Recipe, transplant
from tokensurgeon.checkpoint import Checkpoint, verify_manifest
from tokensurgeon.errors import TokensurgeonError
from tokensurgeon.patches import export_patch
from tokensurgeon.patches.patch_file import checksum, read_patch
from tokensurgeon.recipe_yaml import read_yaml
from tokensurgeon.report.records import read_weights, unreadable
from tokensurgeon.text.corpus import read_corpus
from tokensurgeon.vocabulary import load_vocabulary

FEW, MANY = 120, 1000
MESSAGE = 600
"""Characters: an error is a line, not the file."""
MOST_SECONDS, MOST_KILOBYTES = 20, 1 << 19
"""Processor time, and growth of the process: a hundred times what any of these files needs."""
SECONDS = 70
"""Of one example: the child that tries a file has 60, and no damage may cost more."""
MEMORY = 1 << 20
"""KiB by which all examples of a test may raise the memory of this process: 1 GiB."""


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
    """Run; an error must be ours, in one short line, and take little time and memory."""
    seconds, memory = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        what()
    except TokensurgeonError as error:
        said = str(error)
    else:
        said = None
    assert time.process_time() - seconds < MOST_SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < MOST_KILOBYTES
    if said is None:
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
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    @settings(max_examples=n)
    @given(st.integers(0, 2**32))
    def check(seed: int) -> None:
        rng = random.Random(seed)
        path = rng.choice(paths)
        how = change if rng.random() < 0.75 else torn
        path.write_bytes(how(kept[path], rng))
        start = time.monotonic()
        try:
            answer(what)
        finally:
            path.write_bytes(kept[path])
        assert time.monotonic() - start < SECONDS

    check()
    what()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY


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
    beside = [tokenizer / "tokenizer_config.json", tokenizer / "special_tokens_map.json"]
    beside[1].write_text('{"pad_token": {"content": "</s>"}, "additional_special_tokens": ["a"]}')
    fuzz(n // 4, beside, in_json, lambda: load_vocabulary(tokenizer).encode(text))
    assert "panicked" not in capfd.readouterr().err  # the library beneath has nothing to say


TEXT = "the cat sat on 12 mats, é"


@pytest.mark.parametrize("n", sizes())
@pytest.mark.parametrize(
    ("name", "token"),
    [("wordpiece_lower", ""), ("byte_level", "<|im_start|>"), ("unigram_no_bytes", "<s>")],
)
def test_damaged_parts_of_tokenizers(
    tmp_path: Path, name: str, token: str, n: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """What is put around texts is an id of the vocabulary, or the file is refused."""
    tokenizer = TINY[name]()
    if token:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{token} $A",
            pair=f"{token} $A {token} $B:1",
            special_tokens=[(token, tokenizer.token_to_id(token))],
        )
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))

    def part(data: bytes, rng: random.Random) -> bytes:
        whole = json.loads(data)
        key = rng.choice(["post_processor", "post_processor", "normalizer", "decoder"])
        return json.dumps({**whole, key: damaged(whole[key], rng)}).encode()

    def use() -> None:
        vocabulary = load_vocabulary(tmp_path)
        vocabulary.encode(TEXT)
        around = vocabulary.tokenizer.encode("a", "b").ids
        assert all(i < vocabulary.n_rows for i in around)

    fuzz(n // 4, [path], part, use)
    assert "panicked" not in capfd.readouterr().err


@pytest.mark.parametrize("n", sizes())
def test_damaged_tables_of_ranks(tmp_path: Path, n: int, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tiktoken")
    tokens = [bytes([i]) for i in range(256)] + [b"th", b"the", b" t", b" the"]
    table = tmp_path / "x.tiktoken"
    table.write_text("".join(f"{base64.b64encode(t).decode()} {i}\n" for i, t in enumerate(tokens)))
    added = {str(i): {"content": f"<|{i}|>", "special": True} for i in (260, 261, 270)}
    config = tmp_path / "tokenizer_config.json"
    config.write_text(
        json.dumps({"added_tokens_decoder": added, "pattern": r"\w+|\s", "eos_token": "<|261|>"})
    )
    use = lambda: load_vocabulary(tmp_path).encode(TEXT)  # noqa: E731
    fuzz(n // 4, [table], torn, use)
    fuzz(n // 4, [config], in_json, use)
    assert "panicked" not in capfd.readouterr().err


@pytest.mark.parametrize("n", sizes())
def test_damaged_sentencepiece_models(tmp_path: Path, n: int) -> None:
    trainer = pytest.importorskip("sentencepiece").SentencePieceTrainer
    (tmp_path / "words.txt").write_text("\n".join(SENTENCES), "utf-8")
    trainer.train(
        input=str(tmp_path / "words.txt"),
        model_prefix=str(tmp_path / "tokenizer"),
        vocab_size=80,
        model_type="bpe",
        hard_vocab_limit=False,
        minloglevel=2,
    )
    model = tmp_path / "tokenizer.model"
    fuzz(n // 4, [model], torn, lambda: load_vocabulary(tmp_path).encode(TEXT))


@pytest.mark.parametrize("n", sizes())
def test_damaged_chat_templates(tmp_path: Path, n: int) -> None:
    """They are text to be copied: only bytes that are no text are refused."""
    TINY["byte_level"]().save(str(tmp_path / "tokenizer.json"))
    path = tmp_path / "chat_template.jinja"
    path.write_text("{% for m in messages %}«{{ m.role }}»{{ m.content }}{% endfor %}", "utf-8")

    def use() -> None:
        try:
            text = path.read_bytes().decode("utf-8")
        except UnicodeDecodeError:
            with pytest.raises(TokensurgeonError, match=r"chat_template\.jinja is not UTF-8"):
                load_vocabulary(tmp_path)
        else:
            assert load_vocabulary(tmp_path).chat_template == (text or None)

    fuzz(n // 4, [path], torn, use)


RECIPE = {
    "source": "model",
    "tokenizer": {"method": "bpe", "corpus": ["a.txt"], "size": 300},
    "init": {"input": "omp", "output": "omp", "settings": {"omp": {"k": 8}}},
    "text": {"calibration": ["a"], "evaluation": ["b"]},
    "map": {"<pad>": "</s>"},
    "heal": 1.0,
}


NAMES = [
    "manifest.json", "report.json", "surgery/tokens.json", "config.json", "generation_config.json",
]  # fmt: skip


@pytest.fixture(scope="module")
def patched(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("patched")
    target = make_tokenizer(root / "target", 300, texts=SENTENCES[::-1])
    init = {"input": "subword-mean", "output": "subword-mean"}
    transplant(source=folder, tokenizer=target, output=root / "out", init=init)
    return root / "out"


@pytest.mark.parametrize("n", sizes(FEW // 2))
def test_damaged_manifests_reports_and_records(patched: Path, n: int) -> None:
    """What a manifest says of files is held against them; what is written in them is no danger."""

    def look() -> None:
        try:
            verify_manifest(patched)
        finally:
            unreadable(patched)

    fuzz(n, [patched / name for name in NAMES if (patched / name).is_file()], in_json, look)
    weights = sorted((patched / "surgery").glob("*.npz"))
    fuzz(n // 4, weights, torn, lambda: [read_weights(path) for path in weights])


def in_patch(data: bytes, rng: random.Random) -> bytes:
    """Damage a patch in its facts, its arrays or its header, and make its checksum right again."""
    from safetensors.numpy import load, save

    if rng.random() < 0.2:
        return in_header(data, rng)
    (size,) = struct.unpack("<Q", data[:8])
    facts = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["patch"])
    arrays = {name: array.copy() for name, array in load(data).items()}
    if rng.random() < 0.4:
        facts = damaged(facts, rng)
    else:
        name = rng.choice(sorted(arrays))
        flat = arrays[name].reshape(-1)
        how = rng.random()
        if how < 0.6 and len(flat):
            raw = flat.view(np.uint8)
            raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        elif how < 0.8:
            arrays[name] = flat[: rng.randrange(len(flat) + 1)].copy()
        else:
            del arrays[name]
    if isinstance(facts, dict) and isinstance(facts.get("sha256"), str):
        facts = {**facts, "sha256": ""}
        facts["sha256"] = checksum(facts, arrays)
    return save(arrays, {"patch": json.dumps(facts)})


@pytest.mark.parametrize("n", sizes(FEW // 2))
def test_damaged_patches(folder: Path, patched: Path, tmp_path: Path, n: int) -> None:
    """A patch that is read gives rows of a source, whatever was done to it."""
    path = export_patch(patched, tmp_path / "a.safetensors").path
    rows = Checkpoint.open(folder).input_rows()

    def look() -> None:
        patch = read_patch(path)
        if patch.facts.source_rows == len(rows):
            for side in patch.sides:
                assert (
                    side.rows(rows, "float32").shape == rows[:1].repeat(len(side.copied), 0).shape
                )

    fuzz(n, [path], in_patch, look)


LINES = ('"text"', '{"text": "a", "n": [1, {"a": null}]}', '{"text": "\\ud83d\\ude00"}')


def in_line(data: bytes, rng: random.Random) -> bytes:
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    lines[at] = json.dumps(damaged(json.loads(lines[at]), rng)).encode()
    return b"\n".join(lines)


@pytest.mark.parametrize("n", sizes())
def test_damaged_lines_of_json(tmp_path: Path, n: int) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(LINES))
    fuzz(n, [path], in_line, lambda: read_corpus([path], max_bytes=10**6))


@pytest.mark.parametrize("n", sizes(FEW // 2))
def test_damaged_packed_texts(tmp_path: Path, n: int) -> None:
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress("plain text, é\n".encode() * 200))
    fuzz(n, [path], torn, lambda: read_corpus([path], max_bytes=10**6))


@settings(max_examples=200)
@given(st.binary(max_size=400))
def test_any_bytes_are_a_text_or_refused(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in ("a.txt", "a.jsonl", "a.json", "a.fa"):
            path = Path(folder) / name
            path.write_bytes(data)
            answer(partial(read_corpus, [path]))


YAML = st.text(st.sampled_from("ab:-? &*[]{},'\"\n #|>!%@0<"), max_size=120)


@settings(max_examples=200)
@given(YAML, YAML)
def test_any_text_is_a_recipe_or_refused(first: str, second: str) -> None:
    answer(lambda: read_yaml(f"{first}\nsource: &a [{second}]\n{second}", "recipe"))


@pytest.mark.parametrize("n", sizes())
def test_damaged_recipes(tmp_path: Path, n: int) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(RECIPE))  # JSON is YAML too
    fuzz(n, [path], in_json, lambda: Recipe.from_yaml(path))
    path.write_text(yaml.safe_dump(RECIPE))
    fuzz(n // 4, [path], torn, lambda: Recipe.from_yaml(path))

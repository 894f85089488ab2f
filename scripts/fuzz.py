#!/usr/bin/env python3
"""Fuzz the readers of other people's files, led by coverage. Needs the package atheris.

    python scripts/fuzz.py READER [--seconds 600] [--folder DIR]

READER is header, index, tokenizer, ranks, pieces, template, recipe, patch, manifest, state or
lines.

Each input must give a right answer or one of our errors, in one short line. The first that does not
ends the run, with a traceback and the input in a file of the folder. Inputs begin with valid files,
and every second one is damaged in its form, as the tests do it; recipes are tried as JSON too.
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import shutil
import struct
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import atheris
import numpy as np
import yaml

with atheris.instrument_imports(include=["tokensurgeon"], enable_loader_override=False):
    import tokensurgeon.checkpoint.chat_template as templates
    import tokensurgeon.checkpoint.files as files
    import tokensurgeon.checkpoint.manifest as manifests
    import tokensurgeon.patches.patch_file as patches
    import tokensurgeon.recipe as recipes
    import tokensurgeon.studies.comparison_state as states
    import tokensurgeon.vocabulary.load as vocabularies
    import tokensurgeon.vocabulary.reading as reading
    from tokensurgeon.checkpoint.tensor_file import read_tensor_file
    from tokensurgeon.errors import TokensurgeonError
    from tokensurgeon.text.corpus import read_corpus

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from tests.test_fuzz import in_header, in_json  # noqa: E402 - needs the path

LONGEST = 600
"""Characters of an error: it is a line, not the file."""
MOST_ROWS = 1 << 20
"""Numbers of a source that a patch is tried on; what it says of a larger one is only read."""


def header(folder: Path) -> tuple[Path, Callable[[], object], list[bytes]]:
    """Weight files; only the header counts."""
    path = folder / "model.safetensors"
    told = {"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}
    more = {**told, "b": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]}}
    seeds = []
    for each in (told, {"__metadata__": {"format": "pt"}, **more}):
        text = json.dumps(each).encode()
        size = 24 if each is told else 32
        seeds.append(struct.pack("<Q", len(text)) + text + bytes(size))
    return path, lambda: read_tensor_file(path), seeds


def index(folder: Path) -> tuple[Path, Callable[[], object], list[bytes]]:
    """The index of two shards."""
    _, _, seeds = header(folder)
    (folder / "model-1.safetensors").write_bytes(seeds[0])
    (folder / "model-2.safetensors").write_bytes(seeds[0].replace(b'"a"', b'"c"'))
    where = {"a": "model-1.safetensors", "c": "model-2.safetensors"}
    good = json.dumps({"metadata": {"total_size": 48}, "weight_map": where}).encode()
    path = folder / files.INDEX
    return path, lambda: files.open_tensors(folder), [good]


def tokenizer(folder: Path) -> tuple[Path, Callable[[], object], list[bytes]]:
    """A tokenizer.json; small ones, or most of the time goes into tables."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    path = folder / "tokenizer.json"
    bpe = Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.add_special_tokens(["<s>"])
    unigram = Tokenizer(models.Unigram([("<unk>", 0.0), ("▁a", -1.0), ("b", -2.0)], 0, False))
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    word = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "##b": 2}, unk_token="[UNK]"))
    made = [each.to_str().encode() for each in (bpe, unigram, word)]

    def read() -> object:
        vocabulary = vocabularies.load_vocabulary(folder)
        return vocabulary.encode("ab a b"), vocabulary.fingerprint

    return path, read, made


def recipe(folder: Path) -> tuple[Path, Callable[[], object], list[bytes]]:
    """Recipes, beside those that ship."""
    path = folder / "recipe.yaml"
    seeds = [each.read_bytes() for each in sorted((ROOT / "recipes").glob("*.yaml"))]
    seeds += [json.dumps(yaml.safe_load(each)).encode() for each in seeds]  # JSON is YAML too
    return path, lambda: recipes.Recipe.from_yaml(path), seeds


def patch(folder: Path) -> tuple[Path, Callable[[], object], list[bytes]]:
    """Patch files without a checksum, which would refuse nearly all of them at once."""
    from safetensors.numpy import save

    path = folder / "a.safetensors"
    arrays = {
        "input.copied": np.array([0, -1, -1]),
        "input.weights.data": np.array([1, 0.5, 0.5], np.float32),
        "input.weights.indices": np.array([0, 0, 1], np.int32),
        "input.weights.indptr": np.array([0, 1, 3, 3]),
        "input.remainder_ids": np.array([2]),
        "input.remainder": np.ones((1, 2), np.float32),
    }
    files = {
        "tokenizer.json": "{}",
        "new_token_ids.json": '{"new_token_ids": [1]}',
        "surgery/tokens.json": '{"input": {"copied": [0, -1, -1]}}',
    }
    for name, text in files.items():
        arrays[f"file:{name}"] = np.frombuffer(text.encode(), np.uint8)
    facts = {
        "format": "tokensurgeon patch 1", "source_vocabulary": "a", "source_rows": 2, "width": 2,
        "source_tied": True, "tied": True, "id_map": {"0": 0}, "chat_template": "source",
        "recipe": "source: a",
    }  # fmt: skip

    def read() -> object:
        read = patches.read_patch(path)
        if read.facts.source_rows * read.facts.width > MOST_ROWS:
            return None
        rows = np.ones((read.facts.source_rows, read.facts.width), np.float32)
        return [side.rows(rows, "float32") for side in read.sides]

    return path, read, [save(arrays, {"patch": json.dumps(facts)})]


def ranks(folder: Path) -> tuple[Path, Callable[[], object], list[bytes]]:
    """A table of tiktoken."""
    path = folder / "a.tiktoken"
    tokens = [bytes([i]) for i in range(256)] + [b"ab", b"abc"]
    table = b"".join(base64.b64encode(t) + b" %d\n" % i for i, t in enumerate(tokens))
    return path, lambda: vocabularies.load_vocabulary(path).encode("abc"), [table]


def pieces(folder: Path) -> tuple[Path, Callable[[], object], list[bytes]]:
    """A model of SentencePiece."""
    from sentencepiece import sentencepiece_model_pb2

    path = folder / "a.model"
    messages: Any = sentencepiece_model_pb2
    model = messages.ModelProto()
    for text, kind in (("<unk>", 2), ("<s>", 3), ("</s>", 3), ("▁a", 1), ("b", 1), ("<0x41>", 6)):
        model.pieces.add(piece=text, score=-1.0, type=kind)
    model.trainer_spec.model_type = 1
    model.normalizer_spec.name = "identity"
    data = model.SerializeToString()
    return path, lambda: vocabularies.load_vocabulary(path).encode("ab"), [data]


def template(folder: Path) -> tuple[Path, Callable[[], object], list[bytes]]:
    """Chat templates, which are read and parsed, never rendered here."""
    path = folder / "chat_template.jinja"
    text = b"{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"

    def read() -> object:
        text = reading.read_template(folder) or ""
        return templates.literals(text), templates.syntax_problem(text)

    return (
        path,
        read,
        [text, b"{{ bos_token }}{% if a %}<s>{% else %}{% raw %}<x>{% endraw %}{% endif %}"],
    )


def manifest(folder: Path) -> tuple[Path, Callable[[], object], list[bytes]]:
    """The manifest of a checkpoint."""
    path = folder / manifests.NAME
    files = {"a.json": {"sha256": "0" * 64, "bytes": 2}}
    (folder / "a.json").write_text("{}")
    told = {
        "schema_version": manifests.SCHEMA,
        "source": "a",
        "seed": 0,
        "recipe": "",
        "files": files,
    }
    return path, lambda: manifests.verify_manifest(folder), [json.dumps(told).encode()]


def state(folder: Path) -> tuple[Path, Callable[[], object], list[bytes]]:
    """What a comparison keeps of a method."""
    path = folder / "source.json"
    result = {"bits_per_byte": 1.0, "losses": [1.0, 2.0]}
    kept = {"schema": states.SCHEMA, "sha256": states._result_hash(result), "result": result}
    return path, lambda: states.read_kept(path), [json.dumps(kept).encode()]


def lines(folder: Path) -> tuple[Path, Callable[[], object], list[bytes]]:
    """Lines of JSON."""
    path = folder / "a.jsonl"
    return path, lambda: read_corpus([path]), [b'"a"\n{"text": "b", "n": [1]}', b'"\\ud83d\\ude00"']


READERS = {
    reader.__name__: reader
    for reader in (header, index, tokenizer, ranks, pieces, template, recipe, patch, manifest,
                   state, lines)
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reader", choices=READERS)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--folder", type=Path, help="for what is found; a temporary one if none")
    asked = parser.parse_args()
    kept = asked.folder or Path(tempfile.mkdtemp())
    corpus = kept / f"corpus-{asked.reader}"
    corpus.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    path, read, seeds = READERS[asked.reader](work)
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(seed)

    def one(data: bytes) -> None:
        path.write_bytes(data)
        try:
            read()
        except TokensurgeonError as error:
            said = str(error)
            assert 0 < len(said) < LONGEST, said[:200]
            assert "\n" not in said.strip(), said[:200]

    change = in_header if asked.reader in ("header", "patch") else in_json

    def mutate(data: bytes, longest: int, seed: int) -> bytes:
        """Damage the form of every second input, the bytes of the others."""
        if seed % 2:
            try:
                return change(data, random.Random(seed))[:longest]
            except (ValueError, struct.error, RecursionError):
                pass
        return bytes(atheris.Mutate(data, longest))

    options = [
        f"-max_total_time={asked.seconds}", "-max_len=8192", f"-artifact_prefix={kept}/",
        "-rss_limit_mb=8192", "-timeout=60", "-print_final_stats=1", "-verbosity=0",
    ]  # fmt: skip
    try:
        atheris.Setup([sys.argv[0], *options, str(corpus)], one, custom_mutator=mutate)
        atheris.Fuzz()
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()

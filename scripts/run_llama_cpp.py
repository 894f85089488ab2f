#!/usr/bin/env python3
"""Run a draft model in llama.cpp: is it taken, what is accepted, and is the perplexity ours.

    python scripts/run_llama_cpp.py BIG DRAFT TEXT --folder WORK [--prompts 20] [--drafted 4]

The source package of llama-cpp-python carries llama.cpp and its converter. It is downloaded into
WORK, and its programs are built there, which takes a quarter of an hour on two cores; what is there
already is kept. Both checkpoints are converted to float32, so that figures can be compared with
those of transformers, which continues the same prompts beside. The packages cmake and ninja must be
installed.
"""

from __future__ import annotations

import argparse
import importlib
import math
import re
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from run_draft import generate, load, prompts_of

from tokensurgeon.models import load_model
from tokensurgeon.text.corpus import read_corpus

PACKAGE = "llama-cpp-python==0.3.36"
PROGRAMS = ("llama-speculative-simple", "llama-perplexity")
CONTEXT = 512
"""Tokens of a chunk whose second half is scored, as llama-perplexity has it."""


@dataclass(frozen=True)
class Drafted:
    """What llama.cpp drafted on some prompts.

    Attributes
    ----------
    drafted, accepted : int
        Tokens.
    outputs : list of str
        The new text of each prompt.
    """

    drafted: int
    accepted: int
    outputs: list[str]


def run(command: Sequence[str | Path]) -> str:
    """Run a command and return what it wrote; where it fails, its last words are the error."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{Path(command[0]).name} failed: {(done.stderr or done.stdout)[-600:]}")
    return str(done.stdout + done.stderr)


def built(folder: Path) -> tuple[Path, Path]:
    """Return llama.cpp's source and the folder of its programs, built if they are not there."""
    folder.mkdir(parents=True, exist_ok=True)
    sources = list(folder.glob("llama_cpp_python-*/vendor/llama.cpp"))
    if not sources:
        run([sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:",
             "--dest", folder, PACKAGE])  # fmt: skip
        (archive,) = folder.glob("llama_cpp_python-*.tar.gz")
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")
        sources = list(folder.glob("llama_cpp_python-*/vendor/llama.cpp"))
    programs = folder / "build" / "bin"
    if not all((programs / name).exists() for name in PROGRAMS):
        print("building llama.cpp", file=sys.stderr)
        run(["cmake", "-S", sources[0], "-B", folder / "build", "-G", "Ninja",
             "-DCMAKE_BUILD_TYPE=Release", "-DBUILD_SHARED_LIBS=OFF", "-DLLAMA_CURL=OFF",
             "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_SERVER=OFF"])  # fmt: skip
        run(["cmake", "--build", folder / "build", "--target", *PROGRAMS])
    return sources[0], programs


def converted(source: Path, model: Path, file: Path) -> Path:
    """Return a checkpoint in llama.cpp's format, converted by its own converter."""
    if not file.exists():
        converter = source / "convert_hf_to_gguf.py"
        run([sys.executable, converter, model, "--outtype", "f32", "--outfile", file])
    return file


def with_vocabulary_of(source: Path, big: Path, small: Path, file: Path) -> Path:
    """Return a copy of a draft's file that has the big model's vocabulary as it was converted.

    The converter chooses the kind of a vocabulary by the architecture: one tokenizer.json becomes
    byte-level BPE in a Gemma and SentencePiece in a Llama, and llama.cpp refuses the draft.
    """
    if file.exists():
        return file
    sys.path.insert(0, str(source / "gguf-py"))
    gguf = importlib.import_module("gguf")
    reader, theirs = gguf.GGUFReader(small), gguf.GGUFReader(big)
    kind = reader.get_field(gguf.Keys.General.ARCHITECTURE).contents()
    writer = gguf.GGUFWriter(file, kind)
    fields = [field for field in reader.fields.values() if not _of_vocabulary(field.name)]
    fields += [field for field in theirs.fields.values() if _of_vocabulary(field.name)]
    for field in fields:
        if field.name != gguf.Keys.General.ARCHITECTURE and not field.name.startswith("GGUF."):
            array = field.types[0] == gguf.GGUFValueType.ARRAY
            within = field.types[-1] if array else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=within)
    for tensor in reader.tensors:
        data = tensor.data
        writer.add_tensor_info(tensor.name, data.shape, data.dtype, data.nbytes, tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in reader.tensors:
        writer.write_tensor_data(tensor.data)
    writer.close()
    return file


def _of_vocabulary(name: str) -> bool:
    return name.startswith("tokenizer.")


def draft(
    programs: Path, big: Path, small: Path, prompts: Sequence[str], new_tokens: int, drafted: int
) -> Drafted:
    """Continue prompts greedily; a draft that llama.cpp does not take ends the script."""
    total, accepted, outputs = 0, 0, []
    for prompt in prompts:
        said = run([programs / PROGRAMS[0], "-m", big, "-md", small, "-p", prompt, "--no-escape",
                    "-n", str(new_tokens), "--temp", "0", "-c", "1024", "--spec-type",
                    "draft-simple", "--spec-draft-n-max", str(drafted)])  # fmt: skip
        total += int(figure(said, r"n_drafted = (\d+)"))
        accepted += int(figure(said, r"n_accept  = (\d+)"))
        outputs.append(said.partition(prompt)[2].partition("\n\nencoded")[0])
    return Drafted(total, accepted, outputs)


def figure(said: str, pattern: str) -> float:
    """Return a number that a program wrote."""
    found = re.search(pattern, said)
    if found is None:
        sys.exit(f"llama.cpp says nothing like {pattern!r}: {said[-600:]}")
    return float(found[1])


def perplexity(programs: Path, model: Path, text: Path, chunks: int) -> float:
    """Return llama.cpp's perplexity of a text."""
    said = run([programs / PROGRAMS[1], "-m", model, "-f", text, "-c", str(CONTEXT), "-b",
                str(CONTEXT), "--chunks", str(chunks)])  # fmt: skip
    return figure(said, r"Final estimate: PPL = ([0-9.]+)")


def own_perplexity(folder: Path, tokenizer: Any, text: str, chunks: int) -> float:
    """Return the same by our own reading: second halves of chunks that begin with BOS."""
    ids = tokenizer(text)["input_ids"]
    first = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    starts = range(0, min(chunks, len(ids) // CONTEXT) * CONTEXT, CONTEXT)
    losses = load_model(folder).nll(
        [[*first, *ids[start + len(first) : start + CONTEXT]] for start in starts]
    )
    second = [loss[CONTEXT // 2 :] for loss in losses]
    return math.exp(sum(map(sum, second)) / sum(map(len, second)))


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("big", type=Path)
    parser.add_argument("draft", type=Path)
    parser.add_argument("text", type=Path, nargs="+")
    parser.add_argument("--folder", type=Path, required=True, help="for what is built")
    parser.add_argument("--prompts", type=int, default=20)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--drafted", type=int, default=4)
    parser.add_argument("--chunks", type=int, default=8, help="for the perplexity; 0 leaves it out")
    asked = parser.parse_args()
    source, programs = built(asked.folder)
    names = [model.resolve().name for model in (asked.big, asked.draft)]
    big_file, small_file = (
        converted(source, model, asked.folder / f"{name}.gguf")
        for model, name in zip((asked.big, asked.draft), names, strict=True)
    )
    same = asked.folder / f"{names[1]}-same.gguf"
    small_file = with_vocabulary_of(source, big_file, small_file, same)
    big, tokenizer = load(asked.big)
    prompts = prompts_of(asked.text, tokenizer, asked.prompts)
    texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in prompts]
    seen = draft(programs, big_file, small_file, texts, asked.new_tokens, asked.drafted)
    ours = generate(
        big, prompts, draft=load(asked.draft)[0], new_tokens=asked.new_tokens, drafted=asked.drafted
    )
    own = [tokenizer.decode(ids, skip_special_tokens=True) for ids in ours.outputs]
    alike = sum(
        theirs.strip().startswith(text.strip()[:40])
        for text, theirs in zip(own, seen.outputs, strict=True)
    )
    print(f"llama.cpp takes the draft; {len(prompts)} prompts, {asked.drafted} drafted at once")
    print(f"accepted of the drafted: llama.cpp {seen.accepted / max(1, seen.drafted):.1%}, "
          f"transformers {ours.accepted / asked.drafted:.1%}")  # fmt: skip
    print(f"the same first 40 characters: {alike} of {len(prompts)} prompts")
    if asked.chunks:
        text = "\n\n".join(read_corpus(asked.text).texts)
        (asked.folder / "text.txt").write_text(text, "utf-8")
        for folder, file in ((asked.big, big_file), (asked.draft, small_file)):
            theirs = perplexity(programs, file, asked.folder / "text.txt", asked.chunks)
            mine = own_perplexity(folder, tokenizer, text, asked.chunks)
            print(f"perplexity of {folder.name}: llama.cpp {theirs:.4f}, ours {mine:.4f}")


if __name__ == "__main__":
    main()

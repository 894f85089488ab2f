"""Hash what ten surgeries write: moving code about must not change a byte.

    python scripts/same_bytes.py hashes.json                   write the hashes
    python scripts/same_bytes.py hashes.json --against old.json  and compare with earlier ones

Run it with the code before a change and with the code after it, on one machine. Every surgery is
bounded by its text and its number of steps, never by the clock: budgets are so long that no stage
ever looks at them in earnest. Reports, cards and manifests hold times and versions and are left
out; weights, tokenizers, configurations and the records of rows are hashed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import tokensurgeon
from tokensurgeon import transplant

DATA = Path(tokensurgeon.__file__).parent / "data"
UNTIMED = {"report.json", "README.md", "manifest.json", "training.json"}
"""Files that hold times or versions."""
ENDLESS = 1e9
"""Minutes: the text and its passes end a training, not the clock."""
CALIBRATION_BYTES, EVALUATION_BYTES = 24_000, 8_000
"""Of the shipped texts: enough for each stage to be tried, in seconds."""


def some_text(path: Path, name: str, n_bytes: int) -> Path:
    """Write the first documents of a shipped text."""
    lines, size = [], 0
    for line in (DATA / "text" / name).read_text("utf-8").splitlines():
        lines.append(line)
        size += len(line.encode())
        if size > n_bytes:
            break
    path.write_text("\n".join(lines), "utf-8")
    return path


def copy_tokenizer(folder: Path) -> None:
    """Give a model the tokenizer of the shipped source."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((DATA / "source" / name).read_bytes())


def tied_source(folder: Path) -> Path:
    """Return the shipped source with its input matrix on both sides."""
    from transformers import AutoConfig, AutoModelForCausalLM

    given = AutoModelForCausalLM.from_pretrained(DATA / "source")
    config = AutoConfig.from_pretrained(DATA / "source")
    config.tie_word_embeddings = True
    model = AutoModelForCausalLM.from_config(config, dtype=given.dtype)
    weights = {k: v for k, v in given.state_dict().items() if k != "lm_head.weight"}
    model.load_state_dict(weights, strict=False)
    model.tie_weights()
    model.save_pretrained(folder)
    copy_tokenizer(folder)
    return folder


def encoder_pair(folder: Path) -> tuple[Path, Path]:
    """Return a random BERT and a tokenizer with an encoder's roles."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

    lines = (DATA / "text" / "calibration.jsonl").read_text("utf-8").splitlines()
    roles = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "mask": "<mask>"}
    folders = []
    for name, size in (("bert", 600), ("bert-target", 700)):
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=list(roles.values()),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        tokenizer.train_from_iterator(lines[: size // 30], trainer)
        names = {f"{role}_token": token for role, token in roles.items()}
        fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)
        fast.save_pretrained(folder / name)
        folders.append(folder / name)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=600,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        pad_token_id=1,
    )
    BertForMaskedLM(config).save_pretrained(folders[0])
    return folders[0], folders[1]


def run(*arguments: str) -> None:
    """Run the command line in this process."""
    from tokensurgeon.cli.main import main

    main(list(arguments), standalone_mode=False)


def train_network(source: Path, text: Path, path: Path) -> None:
    """Train a hypernetwork for a fixed number of steps, wherever the function lives."""
    from tokensurgeon.recipe import Recipe

    try:
        from tokensurgeon.studies.hypernet import train_hypernet
    except ImportError:  # before 0.2
        from importlib import import_module

        train_hypernet = import_module("tokensurgeon.surgery.hypernet").train_hypernet
    fields = {"source": str(source), "tokenizer": str(source)}
    recipe = Recipe.parse({**fields, "text": {"calibration": [str(text)]}})
    train_hypernet(recipe, path, size=32, steps=(30, 10))


def surgeries(root: Path) -> dict[str, Callable[[], Path]]:
    """Return the ten surgeries by name; each writes a folder and returns it."""
    source, donor = DATA / "source", DATA / "donor"
    calibration = some_text(root / "calibration.jsonl", "calibration.jsonl", CALIBRATION_BYTES)
    evaluation = some_text(root / "evaluation.jsonl", "evaluation.jsonl", EVALUATION_BYTES)
    tied = tied_source(root / "tied")
    encoder, encoder_target = encoder_pair(root)
    text = {"calibration": [str(calibration)]}

    def write(name: str, **fields: Any) -> Path:
        output = root / "out" / name
        transplant(output=str(output), budget=ENDLESS, **fields)
        return output

    def hypernetwork() -> Path:
        train_network(source, calibration, root / "network.safetensors")
        settings = {"hypernetwork": {"network": str(root / "network.safetensors")}}
        init = {"input": "hypernetwork", "output": "hypernetwork", "settings": settings}
        return write("hypernetwork", source=source, tokenizer=donor, init=init)

    def patch() -> Path:
        omp = {"input": "omp", "output": "omp"}
        patched = write("exported", source=source, donor=donor, init=omp)
        run("patch", "export", str(patched), "-o", str(root / "patch.safetensors"))
        run("patch", "apply", str(root / "patch.safetensors"), str(source), "-o", str(root / "p"))
        return root / "p"

    return {
        "plain": lambda: write(
            "plain",
            source=source,
            tokenizer=donor,
            init={"input": "hidden-residual", "output": "subword-shrunk"},
            pad_to_multiple_of=64,
        ),
        "donor, every anchor method": lambda: write(
            "donor",
            source=source,
            donor=donor,
            init={"input": "clp", "output": "tokenadapt"},
            text={**text, "evaluation": [str(evaluation)]},
            baselines=("wechsel", "focus", "anchors", "tokenadapt-local", "tokenadapt-global"),
        ),
        "auto, calibrated": lambda: write("auto", source=source, donor=donor, text=text),
        "tied": lambda: write("tied", source=tied, tokenizer=donor, text=text),
        "untied, healed": lambda: write(
            "untied",
            source=tied,
            tokenizer=donor,
            untie=True,
            init={"input": "subword-last", "output": "subword-mean"},
            calibrate=("match", "prior", "readout", "fold", "unigram", "refit"),
            heal=ENDLESS,
            text=text,
        ),
        "draft": lambda: write("draft", source=source, for_draft=donor, text=text),
        "encoder": lambda: write("encoder", source=encoder, tokenizer=encoder_target),
        "hypernetwork": hypernetwork,
        "patch": patch,
        "trained target": lambda: write(
            "trained",
            source=source,
            tokenizer={"method": "superbpe", "corpus": [str(calibration)], "size": 1_500},
            init={"input": "ridge-composer", "output": "ridge-composer"},
        ),
    }


def hashes(folder: Path) -> dict[str, str]:
    """Return the sha256 of every file that holds neither times nor versions."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in UNTIMED
    }


def main() -> int:
    """Write the hashes; say what differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--only", action="append", help="names of surgeries")
    arguments = parser.parse_args()
    found: dict[str, dict[str, str]] = {}
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    with tempfile.TemporaryDirectory() as scratch:
        for name, write in surgeries(Path(scratch)).items():
            if arguments.only and name not in arguments.only:
                continue
            found[name] = hashes(write())
            arguments.file.write_text(json.dumps(found, indent=1), "utf-8")
            print(f"{name}: {len(found[name])} files", file=sys.stderr, flush=True)
    arguments.file.write_text(json.dumps(found, indent=1), "utf-8")
    if arguments.against is None:
        return 0
    before = json.loads(arguments.against.read_text("utf-8"))
    differs = [
        f"{name}: {file}"
        for name, files in found.items()
        for file in sorted({*files, *before.get(name, {})})
        if files.get(file) != before.get(name, {}).get(file)
    ]
    for line in differs:
        print(f"differs: {line}")
    same = sum(len(files) for files in found.values()) - len(differs)
    print(f"{same} files of {len(found)} surgeries are the same, {len(differs)} differ")
    return 1 if differs else 0


if __name__ == "__main__":
    sys.exit(main())

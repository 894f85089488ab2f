"""Files that stand beside the weights of a source: carried over, changed by rule, or left behind.

Licences, preprocessors and the modules of sentence-transformers stay true of the patched model;
the ids in them are remapped with those of the configuration. Weights, configuration, tokenizer and
model card are written anew. Everything else is named: copies of the model in other formats have
the old vocabulary, and code is never carried over.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from tokensurgeon.checkpoint.files import (
    INDEX,
    LICENCES,
    MODULES,
    check_inside,
    read_json,
    read_modules,
)
from tokensurgeon.checkpoint.id_keys import Json, levels
from tokensurgeon.checkpoint.plan import PatchPlan
from tokensurgeon.checkpoint.tensor_file import read_tensor_file
from tokensurgeon.errors import UnsupportedCheckpointError

_CARRIED = ("*preprocessor_config.json", "processor_config.json", "normalizer.json",
            MODULES, "config_sentence_transformers.json", "sentence_*_config.json")  # fmt: skip
"""Files that stay true of the patched model; `normalizer.json` is of Whisper's transcripts."""
_REPLACED = ("config.json", "generation_config.json", INDEX, "tokenizer*.json", "chat_template.*",
             "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt",
             "merges.txt", "*.model", "*.spm", "*.tiktoken", "tekken.json", "sentencepiece*",
             "seen.txt", "manifest.json", "report.json", "report.html", "new_token_ids.json",
             "surgery", "continue")  # fmt: skip
"""Files that are written anew: the configuration, the tokenizer, the records of a surgery, and
what hands it over to trainers."""
_OTHER_FORMATS = ("*.gguf", "*.onnx", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack",
                  "*.ot", "*.tflite", "*.safetensors", "onnx", "openvino", "original",
                  "coreml")  # fmt: skip
"""Copies of the model that other programs load."""
_TEMPLATES = "additional_chat_templates"
_OWN_VOCABULARY = ("WordEmbeddings", "WordWeights", "BoW", "StaticEmbedding",
                   "SparseStaticEmbedding", "CLIPModel", "Router", "Asym")  # fmt: skip
"""Modules of sentence-transformers that have tokens or models of their own."""
_OF_VOCABULARY_SIZE = ("SpladePooling",)
"""Modules whose vectors have one number for every token."""
_MOST_FILES = 1000
"""Files counted of a folder that is left behind; a training run may have left millions."""


@dataclass
class Companions:
    """What becomes of the files beside the weights.

    Attributes
    ----------
    copied : dict of Path
        By name in the patched folder, the file of the source (or target) that is copied.
    remapped : dict of dict
        By name, JSON files whose ids are remapped; each is among `copied` too.
    warnings : list of str
        What was left behind.
    """

    copied: dict[str, Path] = field(default_factory=dict)
    remapped: dict[str, Json] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def carry(self, folder: Path, name: str) -> None:
        """Carry a file over; of one with a JSON object, the ids are remapped."""
        self.copied[name] = check_inside(folder, name)
        if name.endswith(".json") and name != MODULES:
            self.remapped[name] = read_json(folder, name)


def companions(plan: PatchPlan, ours: Collection[str] = ("README.md",)) -> Companions:
    """Say what becomes of the files beside the weights of a plan's source.

    Parameters
    ----------
    plan : PatchPlan
    ours : collection of str
        Further files that will be written, and so replace the source's.

    Raises
    ------
    UnsafeCheckpointError
        Where a name or link leaves the folder, or a file is not what its name says.
    UnsupportedCheckpointError
        Where a module of sentence-transformers cannot be carried over.
    """
    source, result = plan.checkpoint.path, Companions()
    modules = _modules(plan, result)
    left: dict[str, None] = {}
    for path in sorted(source.iterdir()):
        name = path.name
        if name.startswith(".") or name in ours or name in plan.checkpoint.tensors.files:
            continue
        if path.is_dir() and any(module.split("/")[0] == name for module in modules):
            continue
        if path.is_dir() and name == _TEMPLATES:
            left |= {} if plan.chat_template == "source" else {f"{name}/": None}
        elif path.is_file() and (_matches(name, _CARRIED) or _matches(name.upper(), LICENCES)):
            result.carry(source, name)
        elif not _matches(name, _REPLACED):
            left[f"{name}/ ({_count(path)})" if path.is_dir() else name] = None
    for name, kind in modules.items():
        left |= dict.fromkeys(_carry_module(plan, result, name, kind))
    _carry_templates(plan, result)
    _warn_of_tokens(plan, result)
    if left:
        stale = any(_matches(name.split("/")[0], _OTHER_FORMATS) for name in left)
        advice = "copy by hand what still holds"
        if stale:
            advice = (
                "copies of the model in other formats have the old vocabulary: export them anew"
            )
        result.warnings.append(f"left behind in the source's folder: {', '.join(left)}; {advice}")
    return result


def _matches(name: str, patterns: Collection[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _count(folder: Path) -> str:
    """Say how many files a folder has, without following its links."""
    if folder.is_symlink():
        return "a link"
    n = 0
    for _, _, files in os.walk(folder):
        n += len(files)
        if n > _MOST_FILES:
            return f"more than {_MOST_FILES:,} files"
    return "1 file" if n == 1 else f"{n} files"


def _modules(plan: PatchPlan, result: Companions) -> dict[str, str]:
    """Return the class of each module of sentence-transformers by its folder.

    Raises
    ------
    UnsupportedCheckpointError
        Where the model is not the first module, or another has a vocabulary of its own.
    """
    source = plan.checkpoint.path
    modules = read_modules(source)
    if modules and modules[0][0]:
        raise UnsupportedCheckpointError(
            f"{source} keeps its transformer in {modules[0][0]}/, as {MODULES} says, and has "
            f"another beside it: give {source / modules[0][0]}"
        )
    code: dict[str, None] = {}
    for path, name in modules:
        kind = name.rsplit(".", 1)[-1]
        if kind in _OWN_VOCABULARY:
            raise UnsupportedCheckpointError(
                f"the module {path or '.'} of {source} is a {kind}, which has a vocabulary or "
                f"models of its own; give the transformer alone, without {MODULES}"
            )
        if not name.startswith("sentence_transformers."):
            code[name] = None
    if code:
        result.warnings.append(
            f"{MODULES} names code of its own ({', '.join(code)}), which is not carried over: "
            "copy it into the patched folder if you trust it"
        )
    return {path: name.rsplit(".", 1)[-1] for path, name in modules if path}


def _carry_module(plan: PatchPlan, result: Companions, name: str, kind: str) -> Iterator[str]:
    """Carry a module's folder over; yield what is left behind of it.

    Raises
    ------
    UnsupportedCheckpointError
        Where its weights are pickle, or have a row for every token.
    """
    source, n_rows = plan.checkpoint.path, plan.checkpoint.layout.n_rows
    files = sorted(
        p.relative_to(source).as_posix() for p in (source / name).rglob("*") if p.is_file()
    )
    safe = [file for file in files if file.endswith(".safetensors")]
    for file in files:
        if file.endswith((".bin", ".pt", ".pth")) and not safe:
            raise UnsupportedCheckpointError(
                f"the module {name} has its weights as pickle only ({file}), which can run code; "
                "load the folder with sentence-transformers where you trust it, and save it again"
            )
        if not file.endswith((".json", ".txt", ".safetensors")):
            yield file
            continue
        result.carry(source, file)
        if file in safe:
            tensors = read_tensor_file(result.copied[file]).tensors
            for tensor, info in tensors.items():
                if n_rows in info.shape and n_rows != plan.checkpoint.layout.width:
                    raise UnsupportedCheckpointError(
                        f"{tensor} of {file} has the shape {list(info.shape)}, with the "
                        f"vocabulary's {n_rows} rows, and is not understood; give the "
                        f"transformer alone, without {MODULES}"
                    )
        if kind in _OF_VOCABULARY_SIZE and file in result.remapped:
            for key in ("word_embedding_dimension", "embedding_dimension"):
                if result.remapped[file].get(key) == n_rows:
                    result.remapped[file][key] = plan.n_new


def _carry_templates(plan: PatchPlan, result: Companions) -> None:
    """Carry further named chat templates over, of whichever side the template is taken."""
    folders = {"source": plan.checkpoint.path}
    if plan.target.folder is not None:
        target = Path(plan.target.folder)
        folders["target"] = target.parent if target.is_file() else target
    folder = folders.get(plan.chat_template or "")
    if folder is not None and (folder / _TEMPLATES).is_dir():
        for path in sorted((folder / _TEMPLATES).glob("*.jinja")):
            name = f"{_TEMPLATES}/{path.name}"
            result.copied[name] = check_inside(folder, name)


def _warn_of_tokens(plan: PatchPlan, result: Companions) -> None:
    """Warn of tokens that a file carried over names by their spelling and the target lacks."""
    for file, data in result.remapped.items():
        lost = {
            f"{where}{key} {token!r}"
            for where, level in levels(data, None)
            for key, token in level.items()
            if key.endswith("_token")
            and isinstance(token, str)
            and plan.target.id_of(token) is None
        }
        if lost:
            result.warnings.append(
                f"{file} names tokens that the target tokenizer lacks: {', '.join(sorted(lost))}; "
                "give a target that has them, or correct the file"
            )

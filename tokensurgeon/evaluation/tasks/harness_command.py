"""The command with which lm-evaluation-harness measures a checkpoint, exactly as it can be typed.

Nothing here needs the harness. What it is asked for follows our own measure: every text is read
after the start-of-text token, once. The harness puts one before a whole text of its own accord
(`loglikelihood_rolling`), so there the tokenizer must add none, or that token would be scored too;
before a context the tokenizer has to add it.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokensurgeon.models.device_map import AUTO_DEVICE_MAP
from tokensurgeon.vocabulary import Vocabulary
from tokensurgeon.vocabulary.hub import split_revision

STANDARD_TASKS = ("lambada_openai", "hellaswag", "arc_easy", "arithmetic_2da")
"""What reports propose: the last word of a text, two choices among endings and answers, and sums,
which suffer first where digits are cut otherwise. The harness fetches their data."""

_PLAIN = re.compile(r"[\w./@+:-]*/[\w./@+:-]*", re.ASCII)
"""Values that ``key=value`` carries unchanged: with a slash no number, and nothing that splits."""


@dataclass(frozen=True)
class HarnessSettings:
    """What a run of the harness is asked for besides the model.

    Attributes
    ----------
    folder : Path or None
        Of task files; the harness' option include_path.
    limit : int or None
        Items of each task at most.
    num_fewshot : int or None
        Examples before each item; as the task says if None.
    batch_size : int
    device : str or None
        A torch device, or ``"auto"`` for all of them; the harness' own choice if None.
    dtype : str
    trust_remote_code : bool
    """

    folder: Path | None = None
    limit: int | None = None
    num_fewshot: int | None = None
    batch_size: int = 1
    device: str | None = None
    dtype: str = "float32"
    trust_remote_code: bool = False


def model_args(
    checkpoint: str | Path, vocabulary: Vocabulary, settings: HarnessSettings, *, rolling: bool
) -> dict[str, Any]:
    """Return what the harness is to load, so that it measures the model that we measure.

    Parameters
    ----------
    checkpoint : str or Path
        A folder, or a model id with or without its revision; a Path is a folder, there or not yet.
    vocabulary : Vocabulary
        Its own.
    settings : HarnessSettings
    rolling : bool
        Whether whole texts are scored, rather than what follows a context.
    """
    folder = Path(checkpoint).expanduser()
    is_folder = isinstance(checkpoint, Path) or folder.is_dir() or str(checkpoint).count("/") != 1
    if is_folder:
        args: dict[str, Any] = {
            "pretrained": str(folder) if folder.is_absolute() else f"./{folder}"
        }
    else:
        model, revision = split_revision(str(checkpoint))
        args = {"pretrained": model} | ({"revision": revision} if revision else {})
    args["dtype"] = settings.dtype
    args["add_bos_token"] = not rolling and vocabulary.bos_id is not None
    if rolling and vocabulary.start_id is not None:
        args["prefix_token_id"] = vocabulary.start_id
    if settings.device == AUTO_DEVICE_MAP:
        args["parallelize"] = True
    if settings.trust_remote_code:
        args["trust_remote_code"] = True
    return args


def command_line(args: Mapping[str, Any], tasks: Sequence[str], settings: HarnessSettings) -> str:
    """Return the command, quoted for a shell.

    Parameters
    ----------
    args : mapping
        As `model_args` gives them.
    tasks : sequence of str
        Their names.
    settings : HarnessSettings
    """
    options = {
        "model": "hf",
        "model_args": _written(args),
        "tasks": ",".join(tasks),
        "include_path": settings.folder,
        "num_fewshot": settings.num_fewshot,
        "limit": settings.limit,
        "batch_size": settings.batch_size,
        "device": None if settings.device == AUTO_DEVICE_MAP else settings.device,
    }
    words = ["lm_eval"]
    for name, value in options.items():
        words += [] if value is None else [f"--{name}", str(value)]
    return shlex.join(words)


def report_commands(
    source: tuple[str, Vocabulary], patched: tuple[Path, Vocabulary], *, trust_remote_code: bool
) -> dict[str, str]:
    """Return the commands for a source and what was made of it, on `STANDARD_TASKS`."""
    settings = HarnessSettings(trust_remote_code=trust_remote_code)
    args = {
        "source": model_args(*source, settings=settings, rolling=False),
        "patched": model_args(*patched, settings=settings, rolling=False),
    }
    return {name: command_line(own, STANDARD_TASKS, settings) for name, own in args.items()}


def _written(args: Mapping[str, Any]) -> str:
    """Return arguments as ``key=value,…``, or as JSON where a path would be read otherwise."""
    if _PLAIN.fullmatch(str(args["pretrained"])):
        return ",".join(f"{key}={value}" for key, value in args.items())
    return json.dumps(dict(args), ensure_ascii=False)

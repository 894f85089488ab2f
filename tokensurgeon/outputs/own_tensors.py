"""Read a safetensors file of ours: its tensors, and the facts in its metadata."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_own_tensors(
    path: Path, form: str, framework: str
) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Return the facts and the tensors of a file; None where it is not of the form.

    Parameters
    ----------
    path : Path
    form : str
        What its metadata has under ``format``; the facts are the JSON under ``facts``.
    framework : str
        ``numpy``, or ``pt`` for torch.

    Raises
    ------
    Exception
        Of kinds that safetensors chooses, or as the JSON is read, if the file is damaged.
    """
    from safetensors import safe_open

    with safe_open(path, framework=framework) as file:
        metadata = file.metadata() or {}
        if metadata.get("format") != form:
            return None
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return json.loads(metadata["facts"]), tensors

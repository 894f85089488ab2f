"""Fill in the templates beside this module, and write a file whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any


def fill(template: str, cell: Callable[[Any], Any] | None = None, **values: Any) -> str:
    """Return a template filled in, every value escaped for HTML.

    With `cell`, each value goes through it instead: for Markdown, where HTML needs no escape.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        undefined=StrictUndefined,
        autoescape=cell is None,
        finalize=cell,
        keep_trailing_newline=cell is not None,
    )
    text = resources.files("tokensurgeon.report").joinpath(template).read_text("utf-8")
    return environment.from_string(text).render(**values)


def write_whole(path: str | Path, data: bytes) -> None:
    """Write a file, which is there with all of its content or not at all."""
    path = Path(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        part.chmod(0o666 & ~mask)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise

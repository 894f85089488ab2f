"""Fill in the templates beside this module."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
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

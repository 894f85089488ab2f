"""Fill in the templates beside this module, and those of other rooms."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from typing import Any


def fill(
    template: str,
    cell: Callable[[Any], Any] | None = None,
    package: str = "tokensurgeon.report",
    **values: Any,
) -> str:
    """Return a template of a package filled in, every value escaped for HTML.

    With `cell`, each value goes through it instead: for Markdown, where HTML needs no escape.
    """
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        loader=FunctionLoader(_read),
        undefined=StrictUndefined,
        autoescape=cell is None,
        finalize=cell,
        keep_trailing_newline=cell is not None,
    )
    return environment.from_string(_read(template, package)).render(**values)


def _read(template: str, package: str = "tokensurgeon.report") -> str:
    """Return the text of a template; what others include is beside this module."""
    return resources.files(package).joinpath(template).read_text("utf-8")

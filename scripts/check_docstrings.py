"""Check the sections of the package's docstrings with numpydoc; print what is wrong, one line each.

A section is one that numpydoc knows, and stands where numpydoc wants it. Where parameters are
listed, they are those of the signature, all of them, in its order. What is listed as an attribute
is one. Whether a docstring needs sections at all is its writer's choice.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpydoc.docscrape import NumpyDocString
from numpydoc.validate import validate

ROOT = Path(__file__).parent.parent
CHECKS = {
    "GL06": "a section that numpydoc does not know",
    "GL07": "sections out of order",
    "PR01": "a parameter that is not listed",
    "PR02": "a listed parameter that does not exist",
    "PR03": "parameters out of order",
    "PR05": "a type that ends with a full stop",
    "PR06": "a type by another name than Python's",
    "PR10": "no space before the colon",
    "RT02": "a return value with words where its type stands",
}
SECTION = re.compile(r"^\s*-{3,}$", re.MULTILINE)


def modules() -> Iterator[str]:
    """Yield the name of every module of the package; importing ``__main__`` would run it."""
    for path in sorted((ROOT / "tokensurgeon").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[-1] != "__main__":
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def documented(module: Any) -> Iterator[tuple[str, Any]]:
    """Yield the name and value of what a module defines whose docstring has sections."""

    def is_own(value: object) -> bool:
        own = getattr(value, "__module__", None) == module.__name__
        return own and (inspect.isclass(value) or inspect.isfunction(value))

    for name, value in [item for item in vars(module).items() if is_own(item[1])]:
        objects = [(name, value)]
        if inspect.isclass(value):
            objects += [(f"{name}.{k}", getattr(value, k)) for k in vars(value)]
        for path, one in objects:
            is_code = path == name or inspect.isroutine(one) or isinstance(one, property)
            if is_code and SECTION.search(one.__doc__ or ""):
                yield f"{module.__name__}.{path}", one


def attributes(owner: type) -> set[str]:
    """Return the names of a class's fields, of its properties, and of what its methods assign."""
    names = set(dir(owner))
    for base in owner.__mro__:
        names |= set(inspect.get_annotations(base))
        if base.__module__.startswith("tokensurgeon."):
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
            names |= {
                node.attr
                for node in ast.walk(tree)
                if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
            }
    return names


def complaints(name: str, value: Any) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of what is wrong with one docstring."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpydoc warns of what it also returns
        result = validate(name)
        sections = NumpyDocString(inspect.getdoc(value) or "")
    line = int(result["file_line"] or 0)  # of a descriptor nothing says where it stands
    for code, message in result["errors"]:
        if code in CHECKS and (code != "PR01" or sections["Parameters"]):
            yield line, f"{code} {message}"
    if inspect.isclass(value):
        names = {name.strip() for one in sections["Attributes"] for name in one.name.split(",")}
        unknown = sorted(names - attributes(value))
        if unknown:
            yield line, f"no such attribute: {', '.join(unknown)}"


def main() -> int:
    """Print every complaint and return 1 if there is one."""
    failed = 0
    for module in map(importlib.import_module, modules()):
        path = Path(module.__file__ or "").relative_to(ROOT)
        for name, value in documented(module):
            for line, message in complaints(name, value):
                print(f"{path}:{line}: {name.removeprefix(module.__name__ + '.')}: {message}")
                failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())

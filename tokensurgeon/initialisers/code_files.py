"""Which files decide what a class does: its own, and what that imports, directly or not."""

from __future__ import annotations

import ast
import functools
import importlib.util
import inspect
import sys
from pathlib import Path


def code_files(cls: type) -> list[Path]:
    """Return the file of a class, and every file of its package and of tokensurgeon behind it.

    Imports are followed wherever they stand, also inside a function. What is reached in another
    way, such as a method that is built by its name, is not found.

    Raises
    ------
    OSError, TypeError
        If the class is defined in no file.
    """
    home = cls.__module__
    folders = {
        top: Path(file).parent
        for top in ("tokensurgeon", home.partition(".")[0])
        if (file := getattr(sys.modules.get(top), "__file__", None))
    }
    files = {home: Path(inspect.getfile(cls))}
    waiting = [home]
    while waiting:
        name = waiting.pop()
        for imported in _imports(name, files[name], files[name].stat().st_mtime_ns):
            top, *parts = imported.split(".")
            if imported not in files and top in folders:
                path = folders[top].joinpath(*parts)
                for candidate in (path.with_suffix(".py"), path / "__init__.py"):
                    if candidate.is_file():
                        files[imported] = candidate
                        waiting.append(imported)
    return sorted(set(files.values()))


@functools.cache
def _imports(name: str, file: Path, changed: int) -> tuple[str, ...]:
    """Return what a module imports: modules, and names of which some may be modules."""
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    found: dict[str, None] = {}
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= dict.fromkeys(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            found |= dict.fromkeys([base, *(f"{base}.{alias.name}" for alias in node.names)])
    return tuple(found)

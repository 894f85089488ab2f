"""YAML as recipes use it: plain values, each key once, bounded in size, depth and aliases.

PyYAML keeps the last of two equal keys, follows aliases without bound, and reads whole files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tokensurgeon.errors import RecipeError

MOST_BYTES = 1 << 17
"""Of a recipe: those that ship have 2 kB, and PyYAML reads some 100 kB a second."""
MOST_VALUES = 10_000
"""Of a recipe, what aliases stand for included: those that ship have 60."""
DEEPEST = 20
"""Levels of mappings and lists: a recipe has five. Python gives up at a thousand."""
LONGEST_NUMBER = 40
"""Characters: a double has 17 digits. Python refuses 4,300, and takes long to read 100,000."""


def read_bounded(path: Path) -> bytes:
    """Return the bytes of a recipe's file; no more than `MOST_BYTES` are read.

    Raises
    ------
    RecipeError
        If it is no plain file, cannot be read, or is larger.
    """
    try:
        if not path.is_file():
            reason = "no such file"
            if path.exists():
                reason = "it is a folder" if path.is_dir() else "it is a device or a pipe"
            raise RecipeError(f"cannot read the recipe {path}: {reason}; give a YAML file")
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
        reason = getattr(error, "strerror", None) or str(error)
        raise RecipeError(f"cannot read the recipe {path}: {reason}; give a YAML file") from error
    if len(data) > MOST_BYTES:
        raise RecipeError(
            f"{path} has more than {MOST_BYTES:,} bytes, which no recipe needs; give a YAML file"
        )
    return data


def read_yaml(data: bytes | str, where: str) -> Any:
    """Return what YAML says; `where` names it in messages.

    Raises
    ------
    RecipeError
        Naming the line: of what is no YAML, of a key that repeats another of its mapping, or of
        what goes too deep, stands inside itself, or is too much with its aliases followed.
    """
    try:
        text = data if isinstance(data, str) else data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise RecipeError(
            f"{where}, line {line} is not YAML: a byte there is not UTF-8; save it as UTF-8"
        ) from error
    try:
        loader = _Loader(text)
        return loader.get_single_data()
    except _Refused as error:
        raise RecipeError(f"{where}, line {_line(error)}: {error.problem}") from error
    except yaml.MarkedYAMLError as error:
        raise RecipeError(
            f"{where}, line {_line(error)} is not YAML ({error.problem}); mend that line"
        ) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise RecipeError(
            f"{where}, line {line} is not YAML ({error.reason}); mend that line"
        ) from error


def _line(error: yaml.MarkedYAMLError) -> int:
    mark = error.problem_mark or error.context_mark
    return 1 if mark is None else mark.line + 1


class _Refused(yaml.constructor.ConstructorError):
    """What is YAML, and in no recipe; `place` is the node or event that begins there."""

    def __init__(self, problem: str, place: Any) -> None:
        super().__init__(None, None, problem, place.start_mark)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, with the bounds of this module."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._open = 0
        self._extents: dict[int, tuple[int, int]] = {}
        """Values and levels of each node that is whole, its aliases followed, by its identity."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node, and hold it against the bounds."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        self._open += 1
        if self._open > DEEPEST:
            raise _Refused(f"this is more than {DEEPEST} levels deep; no recipe is", event)
        node = super().compose_node(parent, index)
        self._open -= 1
        if isinstance(event, yaml.AliasEvent):
            if id(node) not in self._extents:
                raise _Refused(f"*{event.anchor} stands inside itself; write out what it is", event)
            return node
        parts = node.value if isinstance(node, yaml.SequenceNode) else []
        if isinstance(node, yaml.MappingNode):
            _refuse_repeats(node)
            parts = [part for pair in node.value for part in pair]
        extents = [self._extents[id(part)] for part in parts]
        n_values = 1 + sum(n for n, _ in extents)
        depth = 1 + max((levels for _, levels in extents), default=0)
        if n_values > MOST_VALUES or depth > DEEPEST:
            raise _Refused(
                f"with its aliases followed this is more than {MOST_VALUES:,} values or {DEEPEST} "
                "levels; write out what is meant",
                node,
            )
        self._extents[id(node)] = (n_values, depth)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Construct a value; of one that cannot be say where it stands."""
        if isinstance(node, yaml.ScalarNode):
            is_number = node.tag.endswith((":int", ":float"))
            if is_number and len(node.value) > LONGEST_NUMBER:
                raise _Refused(f"a number of {len(node.value):,} characters; write a shorter", node)
            if any("\ud800" <= character <= "\udfff" for character in node.value):
                raise _Refused(f"{node.value[:40]!r} holds half a character; mend it", node)
        try:
            return super().construct_object(node, deep)
        except (ValueError, OverflowError) as error:
            raise _Refused(
                f"{str(node.value)[:40]!r} is no value: {error}; mend it", node
            ) from error


def _refuse_repeats(node: yaml.MappingNode) -> None:
    lines: dict[tuple[str, str], int] = {}
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            name = (key.tag, key.value)
            if name in lines:
                raise _Refused(
                    f"the key '{key.value[:80]}' is in line {lines[name]} already; leave one", key
                )
            lines[name] = key.start_mark.line + 1

"""Write the reference pages that follow from code. ``--check`` only says whether they are right.

    python scripts/reference_pages.py [--check]

docs/reference/recipe.md comes from the fields of `Recipe`, python.md from the docstrings of public
names, initialisers.md and stages.md from what is registered. The command line has a script of its
own, `help_pages.py`.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

FOLDER = Path(__file__).parent.parent / "docs" / "reference"
NOTE = "Written by `scripts/reference_pages.py`; CI checks that it is up to date.\n"

IN_FULL = (
    "tokensurgeon.alignment:Alignment",
    "tokensurgeon.evaluation:Evaluation",
    "tokensurgeon.initialisers:DonorRows",
    "tokensurgeon.initialisers:Initialiser",
    "tokensurgeon.initialisers:States",
    "tokensurgeon.inspection:inspect_tokenizer",
    "tokensurgeon.patches:apply_patch",
    "tokensurgeon.patches:export_patch",
    "tokensurgeon.surgery:SurgeryResult",
    "tokensurgeon.trainers:extend_vocabulary",
    "tokensurgeon.trainers:prune_vocabulary",
    "tokensurgeon.trainers:Shape",
    "tokensurgeon.vocabulary:Vocabulary",
)
"""Names beside those of `tokensurgeon` itself that users call or receive: shown whole."""

SECTION = re.compile(r"^(\w[\w ]*)\n-{3,}\n", re.M)
"""The heading of a section of a numpydoc docstring."""
LISTS = ("Attributes", "Parameters", "Raises", "Returns", "Yields")


# -- docstrings ---------------------------------------------------------------------------------


def summary(thing: object) -> str:
    """Return the first paragraph of a docstring as one line."""
    return prose((inspect.getdoc(thing) or "").split("\n\n")[0])


def prose(text: str) -> str:
    """Return text as one Markdown line."""
    return " ".join(re.sub(r"``(.+?)``", r"`\1`", text).split())


def rendered(thing: object) -> Iterator[str]:
    """Yield a numpydoc docstring as lines of Markdown."""
    head, *rest = SECTION.split(inspect.getdoc(thing) or "")
    yield from paragraphs(head)
    for title, body in zip(rest[::2], rest[1::2], strict=True):
        yield from (f"**{title}**", "")
        if title in LISTS:
            yield from entries(body)
        elif title == "Examples":
            yield from ("```python", body.strip(), "```", "")
        else:
            yield from paragraphs(body)


def paragraphs(text: str) -> Iterator[str]:
    """Yield the paragraphs of a text; one that is indented or ends in ``::`` is kept as it is."""
    for part in re.split(r"\n{2,}", text.strip("\n")):
        lines = part.splitlines()
        if lines and lines[0].startswith((" ", "- ", "* ")):
            yield from ("```text", inspect.cleandoc("\n" + part), "```", "")
        elif part.strip() not in ("", "::"):
            yield from (prose(part), "")


def entries(text: str) -> Iterator[str]:
    """Yield the entries of a section, such as the parameters, as a list."""
    for part in re.split(r"\n(?=\S)", text.strip()):
        first, *rest = part.splitlines()
        if first.endswith("."):
            yield f"- {prose(part)}"
            continue
        name, _, kind = (piece.strip() for piece in first.partition(" : "))
        label = f"- `{name}`" + (f" ({prose(kind)})" if kind else "")
        said = prose(" ".join(rest))
        yield f"{label}: {said}" if said else label
    yield ""


def signature(name: str, thing: Callable[..., Any]) -> str:
    """Return a call as it is written, with defaults and without annotations."""
    words, star = [], False
    for parameter in inspect.signature(thing).parameters.values():
        if parameter.name == "self":
            continue
        label = parameter.name
        if parameter.kind is parameter.VAR_POSITIONAL:
            label, star = f"*{label}", True
        elif parameter.kind is parameter.VAR_KEYWORD:
            label = f"**{label}"
        elif parameter.kind is parameter.KEYWORD_ONLY and not star:
            words.append("*")
            star = True
        if parameter.default is not parameter.empty:
            label += f"={default(parameter.default)}"
        words.append(label)
    return f"{name}({', '.join(words)})"


def default(value: object) -> str:
    """Return a default value as it is written; what has no short spelling is three dots."""
    plain = (str, int, float, bool, tuple, list, dict, type(None))
    return repr(value) if isinstance(value, plain) else "…"


# -- recipe.md ----------------------------------------------------------------------------------


def kind_of(annotation: Any) -> str:
    """Return the type of a key in words."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(kind_of(each) for each in inner if each is not type(None))
    if origin is tuple:
        return "list"
    if origin is dict:
        return "mapping"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "mapping, see below"
    names = {str: "text", int: "integer", float: "number", bool: "yes or no"}
    return names.get(annotation, str(annotation))


def bounds(metadata: list[Any]) -> str:
    """Return the limits of a number."""
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    found = [
        f"{sign} {getattr(each, key):,}"
        for each in metadata
        for key, sign in signs.items()
        if hasattr(each, key)
    ]
    return f" ({', '.join(found)})" if found else ""


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield a table of a model's keys, then those of the models inside."""
    inside = []
    yield from ("| key | value | default | what it says |", "|---|---|---|---|")
    for name, field in model.model_fields.items():
        if field.is_required():
            preset = "needed"
        elif isinstance(field.default, BaseModel) or field.default_factory is not None:
            preset = ""
        else:
            preset = f"`{yaml_of(field.default)}`"
        about = prose(field.description or "").replace("|", "\\|")
        about = re.sub(r"\bNone\b", "`null`", about)
        kind = kind_of(field.annotation) + bounds(field.metadata)
        yield f"| `{prefix}{name}` | {kind} | {preset} | {about} |"
        for part in (field.annotation, *get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                inside.append((name, part))
    yield ""
    for name, part in inside:
        yield from (f"## `{prefix}{name}`", "", *rendered(part), *keys(part, f"{prefix}{name}."))


def yaml_of(value: object) -> str:
    """Return a default as YAML writes it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"[{', '.join(map(str, value))}]" if isinstance(value, tuple) else str(value)


def recipe_page() -> Iterator[str]:
    """Yield the page of recipe keys."""
    from tokensurgeon.recipe import Recipe

    yield from (
        "# Recipe keys",
        "",
        NOTE,
        "A recipe is a YAML file for `transplant`, `compare` and `trained-limit`, given with",
        "`--recipe FILE`; options on the command line override its keys. Relative paths count from",
        "the file's folder. The same keys are keyword arguments of `tokensurgeon.transplant` and",
        "`tokensurgeon.Recipe`. [Examples](../../recipes)",
        "",
        "What a file reads may lie anywhere; what it writes may not climb out of its folder by",
        "`..`. `force` and `trust_remote_code` need the option on the command line too. Each key",
        "may stand once, and aliases may not multiply without end.",
        "",
        *keys(Recipe),
    )


# -- python.md ----------------------------------------------------------------------------------


def entry(name: str, thing: Any) -> Iterator[str]:
    """Yield one public name with its docstring, and the methods of a class."""
    if isinstance(thing, type):
        yield from (f"### `{name}`", "", *rendered(thing))
        if issubclass(thing, BaseModel):
            yield from ("[Its fields](recipe.md)", "")
        for inner, member in vars(thing).items():
            function = getattr(member, "__func__", member)
            is_field = inner in getattr(thing, "__dataclass_fields__", ())
            if inner.startswith("_") or is_field or not inspect.isfunction(function):
                continue
            call = signature(f"{name}.{inner}", getattr(thing, inner))
            yield from (f"#### `{call}`", "", *rendered(function))
    elif callable(thing):
        yield from (f"### `{signature(name, thing)}`", "", *rendered(thing))


def python_page() -> Iterator[str]:
    """Yield the page of public names."""
    import tokensurgeon

    yield from ("# Python", "", NOTE)
    yield from ("## `tokensurgeon`", "", *rendered(tokensurgeon))
    for name in tokensurgeon.__all__:
        if not name.startswith("_"):
            yield from entry(name, getattr(tokensurgeon, name))
    yield from ("## Beside them", "")
    for path in IN_FULL:
        module, _, name = path.partition(":")
        yield from entry(f"{module}.{name}", getattr(importlib.import_module(module), name))
    yield from (
        "## All public names, by package",
        "",
        "`help(NAME)` shows the whole docstring.",
        "",
    )
    for info in pkgutil.iter_modules(tokensurgeon.__path__):
        room = importlib.import_module(f"tokensurgeon.{info.name}")
        names = sorted(getattr(room, "__all__", ()))
        if not names:
            continue
        yield from (f"### `tokensurgeon.{info.name}`", "", summary(room), "")
        yield from ("| name | what it is |", "|---|---|")
        for name in names:
            thing = getattr(room, name)
            about = summary(thing) if callable(thing) or inspect.ismodule(thing) else "a constant"
            yield f"| `{name}` | {about.replace('|', chr(92) + '|')} |"
        yield ""
    from tokensurgeon import errors

    yield from ("### `tokensurgeon.errors`", "", "```text")
    yield inspect.cleandoc((errors.__doc__ or "").split("::")[1].split("\n\nA message")[0])
    yield from ("```", "")


# -- initialisers.md, stages.md -----------------------------------------------------------------


def initialisers_page() -> Iterator[str]:
    """Yield every method with its settings."""
    from tokensurgeon import initialisers

    yield from ("# Methods and their settings", "", NOTE)
    yield from (
        "What `tokensurgeon initialisers show NAME` says. Settings are given with",
        "`--set METHOD.KEY=VALUE`, or under `init.settings` in a recipe. For an overview see",
        "[methods](../concepts/initialisers.md).",
        "",
    )
    for name in initialisers.names():
        cls: Any = initialisers.get(name)
        yield from (f"## `{name}`", "", *rendered(cls))
        fields = dataclasses.fields(cls)
        if fields:
            yield from ("| setting | type | default |", "|---|---|---|")
            for field in fields:
                missing = field.default is dataclasses.MISSING
                preset = "needed" if missing else f"`{default(field.default)}`"
                kind = str(field.type).replace("|", "\\|")
                yield f"| `{name}.{field.name}` | `{kind}` | {preset} |"
            yield ""


def stages_page() -> Iterator[str]:
    """Yield what every stage of calibration declares."""
    from tokensurgeon.calibration import STAGES
    from tokensurgeon.calibration.stages.draft import Draft
    from tokensurgeon.calibration.stages.train import Heal

    flags = {
        "changes_shared": "changes rows of shared tokens",
        "one_side": "moves one side",
        "after_training": "comes after healing",
        "adapts_to_text": "adapts to the text",
    }
    yield from ("# Stages of calibration", "", NOTE)
    yield from (
        "In the order in which they are tried. [How they work](../concepts/calibration.md)",
        "",
        "| stage | " + " | ".join(flags.values()) + " |",
        "|---" * (1 + len(flags)) + "|",
    )
    stages: dict[str, Any] = {name: make() for name, make in STAGES.items()}
    stages |= {stage.name: stage for stage in (Heal, Draft)}
    for name, stage in stages.items():
        yield (
            f"| `{name}` | " + " | ".join("yes" if getattr(stage, f) else "" for f in flags) + " |"
        )
    yield from (
        "",
        "- A stage that changes rows of shared tokens must not lose on text of another domain.",
        "- One that moves one side moves both of a tied checkpoint, tried there by name only.",
        "- One that comes after healing is tried once healing is done, where there is any.",
        "- One that adapts to the text would help the source on its own text too.",
        "  `compare --adapted` says how much of a gain that is.",
        "- `heal` runs with `--heal`, before the stages that come after it. `draft` runs last,",
        "  with `--for-draft`.",
        "",
    )
    for name, stage in stages.items():
        kind = stage if isinstance(stage, type) else type(stage)
        yield from (f"## `{name}`", "", *rendered(kind))


PAGES: dict[str, Callable[[], Iterator[str]]] = {
    "recipe.md": recipe_page,
    "python.md": python_page,
    "initialisers.md": initialisers_page,
    "stages.md": stages_page,
}


def main(arguments: list[str]) -> None:
    """Write or check every page."""
    if arguments not in ([], ["--check"]):
        sys.exit("usage: reference_pages.py [--check]")
    for name, lines in PAGES.items():
        file = FOLDER / name
        text = "\n".join(lines()).rstrip() + "\n"
        if not arguments:
            file.write_text(text, "utf-8")
        elif not file.exists() or file.read_text("utf-8") != text:
            sys.exit(f"{name} is out of date: run python scripts/reference_pages.py")


if __name__ == "__main__":
    main(sys.argv[1:])

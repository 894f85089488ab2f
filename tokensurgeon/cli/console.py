"""What commands share: options, the two consoles, and progress on stderr.

Results go to stdout; progress and logs to stderr, where they are silent unless it is a terminal.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tokensurgeon.progress import Progress

if TYPE_CHECKING:
    from rich.console import Console

F = TypeVar("F", bound=Callable[..., Any])

json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON to stdout.")
device_option = click.option(
    "--device",
    metavar="NAME",
    default="cpu",
    show_default=True,
    help="A torch device, such as cuda:0; auto divides a model between all devices, memory and "
    "disk (needs accelerate).",
)
dtype_option = click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    default="float32",
    show_default=True,
    help="Of forward passes; rows are computed in float32.",
)
seed_option = click.option(
    "--seed",
    type=click.IntRange(min=0),
    metavar="N",
    default=0,
    show_default=True,
    help="Of whatever is random.",
)
field_option = click.option(
    "--field",
    metavar="KEY",
    default="text",
    show_default=True,
    help="The key that holds the text in JSON objects.",
)
force_option = click.option("--force", is_flag=True, help="Replace an output that exists.")
plugin_option = click.option(
    "--plugin",
    "plugins",
    multiple=True,
    metavar="FILE",
    help="A Python file that registers initialisers; may be repeated.",
)
seen_option = click.option(
    "--allow-seen-text",
    is_flag=True,
    help="Measure on text that a vocabulary was trained on.",
)
mismatch_option = click.option(
    "--allow-autotokenizer-mismatch",
    is_flag=True,
    help="Accept that AutoTokenizer loads the new tokenizer with other ids.",
)
trust_option = click.option(
    "--trust-remote-code",
    is_flag=True,
    help="Run the model code that comes with a checkpoint.",
)


def options(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Put several options on a command, in the order they are given."""

    def put(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return put


def check_writable(file: str | None, force: bool) -> None:
    """Refuse a file that cannot be written, before anything is measured; None is no file."""
    if file is None:
        return
    path = Path(file)
    if not path.parent.is_dir():
        raise click.UsageError(f"no folder {path.parent}: make it first")
    if path.is_dir():
        raise click.UsageError(f"{file} is a folder: name a file in it")
    if path.exists() and not force:
        raise click.UsageError(f"{file} exists already: choose another or add --force")


def stdout() -> Console:
    """Return a console for results; 120 columns where stdout is no terminal."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=120)
    return console


def write_json(value: Any) -> None:
    """Write a value to stdout as JSON; NaN and infinities become null."""
    from tokensurgeon.report.surgery_report import finite

    click.echo(json.dumps(finite(value), ensure_ascii=False, indent=2, allow_nan=False))


@contextmanager
def progress() -> Iterator[Progress]:
    """Give a callable that shows `done` of `total` on stderr, where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    context = click.get_current_context(silent=True)
    quiet = bool(context and isinstance(context.obj, dict) and context.obj.get("quiet"))
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda done, total, what: None
        return
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
    tasks: dict[str, TaskID] = {}

    def show(done: int, total: int, what: str) -> None:
        if what not in tasks:
            for task in tasks.values():
                bar.update(task, visible=False)
            tasks[what] = bar.add_task(what, total=total or None)
        bar.update(tasks[what], completed=done, total=total or None, visible=True)

    with bar:
        yield show

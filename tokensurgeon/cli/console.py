"""What commands share: options, the two consoles, and progress on stderr.

Results go to stdout; progress and logs to stderr. Progress is a bar where that is a terminal, and a
line for each step that lasts where it is none.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from tokensurgeon.outputs import check_file
from tokensurgeon.outputs.paths import begins_with
from tokensurgeon.progress import Progress, StepLines, TrackedProgress, no_progress

if TYPE_CHECKING:
    from rich.console import Console

F = TypeVar("F", bound=Callable[..., Any])


SILENT_SECONDS = 10.0
"""Where stderr is no terminal, work of which nothing was said for so long says what it does."""


def option(
    usage: str,
    text: str,
    name: str | None = None,
    parse: Callable[[Any], Any] | None = None,
    **attributes: Any,
) -> Callable[[F], F]:
    """Return an option as a decorator; a default is shown in the help.

    `usage` is its flags and, where it takes a value, the placeholder of that; without one, and
    without a `type`, it is a flag. `parse` turns the value into what the command is called with;
    fractions are finite: a bound that is NaN would bound nothing.
    """
    words = usage.split()
    flags = [word for word in words if word.startswith("-")]
    if len(flags) < len(words):
        attributes["metavar"] = " ".join(words[len(flags) :])
    elif "type" not in attributes:
        attributes["is_flag"] = True
    is_fraction = isinstance(attributes.get("type"), click.FloatRange | click.types.FloatParamType)
    if parse is None and (is_fraction or attributes.get("type") is float):
        parse = all_finite if attributes.get("multiple") else finite
    if parse is not None:
        attributes["callback"] = lambda context, parameter, value: parse(value)
    attributes.setdefault("show_default", "default" in attributes)
    names = flags if name is None else [*flags, name]
    return click.option(*names, help=text, **attributes)


def finite(value: float | None) -> float | None:
    """Refuse NaN and infinity, which no range excludes."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is no number to count with; give a finite one")
    return value


def all_finite(values: tuple[float, ...]) -> tuple[float, ...]:
    """Refuse them where one is NaN or infinite."""
    for value in values:
        finite(value)
    return values


AT_LEAST_1 = click.IntRange(min=1)
COUNT = click.IntRange(min=0)
MINUTES = click.FloatRange(min=0, min_open=True)
"""What the numbers of options may be."""


def of_no_use(needed: str, *parameters: str) -> None:
    """Refuse options of the running command that do nothing without another one.

    Parameters
    ----------
    needed : str
        What is missing, such as ``--across``.
    *parameters : str
        Names of the parameters.

    Raises
    ------
    click.UsageError
        If one of them was given.
    """
    context = click.get_current_context()
    for parameter in context.command.params:
        given = context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
        if given and parameter.name in parameters:
            raise click.UsageError(f"{parameter.opts[-1]} does nothing without {needed}: give both")


def names(given: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names that commas part in any of the values of an option."""
    return tuple(name.strip() for value in given for name in value.split(",") if name.strip())


json_option = option("--json", "Write JSON to stdout.", "as_json")
device_option = option(
    "--device NAME",
    "A torch device, such as cuda:0; auto divides a model between all devices, memory and "
    "disk (needs accelerate).",
    default="cpu",
)
dtype_option = option(
    "--dtype",
    "Of forward passes; rows are computed in float32.",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    default="float32",
)
seed_option = option("--seed N", "Of whatever is random.", type=COUNT, default=0)
field_option = option("--field KEY", "The key that holds the text in JSON objects.", default="text")
by_option = option(
    "--by file|language",
    "Say the figures of each file or language too; each has an equal part of the bytes. The "
    "language is what --language-field holds, else a code in the file's name (deu_Latn, de).",
    type=click.Choice(["file", "language"]),
)
language_field_option = option(
    "--language-field KEY",
    "The key that holds the language of a text in JSON objects.",
    default="language",
)
force_option = option("--force", "Replace an output of ours that exists, and nothing else.")
script_option = option(
    "--keep-script NAMES",
    "Keep every token of these Unicode scripts, such as Latin,Cyrillic; digits, punctuation and "
    "signs are of every script.",
    "scripts",
    multiple=True,
    parse=names,
)
plugin_option = option(
    "--plugin FILE",
    "A Python file that registers initialisers; may be repeated.",
    "plugins",
    multiple=True,
)
seen_option = option("--allow-seen-text", "Measure on text that a vocabulary was trained on.")
invalid_option = option(
    "--allow-invalid-text", "Take text of which more than 1 % is not UTF-8, as U+FFFD."
)
mismatch_option = option(
    "--allow-autotokenizer-mismatch",
    "Accept that AutoTokenizer loads the new tokenizer with other ids.",
)
track_option = option(
    "--track WHERE",
    "Follow trainings while they run: tensorboard:DIR or trackio:PROJECT (needs that package).",
)
trust_option = option("--trust-remote-code", "Run the model code that comes with a checkpoint.")


BEGINNINGS = (b"<!doctype html", b"\x89PNG", b"<?xml", b"method,")
"""How pages, pictures and tables of ours begin."""


def check_writable(file: str | None, force: bool) -> Path | None:
    """Refuse a file that cannot be written, before anything is measured; None is no file.

    With `force` a page, a picture or a table may be replaced, and no other file.
    """
    if file is None:
        return None
    what, is_ours = "a page, a picture or a table", begins_with(*BEGINNINGS)
    return check_file(file, force=force, what=what, is_ours=is_ours)


def stdout() -> Console:
    """Return a console for results; 120 columns where stdout is no terminal."""
    from rich.console import Console

    class Stdout(Console):
        def on_broken_pipe(self) -> None:
            """Leave it to the group, which ends every command alike."""
            raise

    console = Stdout(highlight=False)
    return console if console.is_terminal else Stdout(highlight=False, width=120)


def write_json(value: Any) -> None:
    """Write a value to stdout as JSON; NaN and infinities become null.

    Characters that stdout's encoding lacks are escaped: nothing is lost.
    """
    from tokensurgeon.report.json_values import finite as without_nan

    value = without_nan(value)
    text = json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2, allow_nan=False)
    click.echo(text)


def write_result(as_json: bool, data: Any, show: Callable[..., None], *shown: Any) -> None:
    """Write `data` to stdout as JSON, or call `show` with a console and `shown`, else the data."""
    if as_json:
        write_json(data)
    else:
        show(stdout(), *(shown or (data,)))


def say_beside(line: str | None) -> None:
    """Write a line about the result to stderr, unless --quiet; nothing for None."""
    if line is not None and not is_quiet():
        click.echo(line, err=True)


def is_quiet() -> bool:
    """Return whether the running command was asked to say nothing but results and errors."""
    context = click.get_current_context(silent=True)
    return bool(context and isinstance(context.obj, dict) and context.obj.get("quiet"))


@contextmanager
def tracked_progress(
    where: str | None, apart: Iterable[str | Path | None], *, dry_run: bool = False
) -> Iterator[Progress]:
    """Give a `progress` that follows trainings too; on stderr, say in the end what came of that.

    `apart` are folders in which a tracker's own must not lie. In a dry run nothing is followed, and
    the same is refused.
    """
    if where is not None and dry_run:
        from tokensurgeon.handover.trackers import TrackedRun

        TrackedRun(where, [one for one in apart if one is not None])
    if where is None or dry_run:
        with progress() as show:
            yield show
        return
    from tokensurgeon.handover.trackers import tracked

    with tracked(where, [one for one in apart if one is not None]) as run, progress() as show:
        yield TrackedProgress(show, run)
    steps = ", ".join(f"{name} {step:,} steps" for name, step in run.steps.items())
    click.echo(f"tracked {where}: {steps or 'nothing was trained'}", err=True)
    if run.failure is not None:
        click.echo(f"warning: {run.failure}", err=True)


@contextmanager
def progress() -> Iterator[Progress]:
    """Give a callable that shows `done` of `total` on stderr: a bar, or `StepLines` of a log."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if is_quiet():
        yield no_progress
        return
    if not console.is_terminal:
        yield StepLines(lambda line: click.echo(line, err=True), SILENT_SECONDS)
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

"""The click group: which commands there are, and the one place where errors become exit codes.

A command's module is imported when the command is named. The help page of the group needs none of
them, and so imports neither torch nor transformers.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import click

from tokensurgeon.cli import process
from tokensurgeon.errors import TokensurgeonError
from tokensurgeon.version import __version__

COMMANDS = {
    "demo": "The whole of it on the model that ships with the package, offline.",
    "transplant": "Move a model to another tokenizer.",
    "extend": "Give a model new tokens of a domain.",
    "trim": "Cut a model's vocabulary down, and prove that nothing else changed.",
    "compare": "Several methods on one pair of model and tokenizer, in one table.",
    "hypernet": "Train a network that makes rows for any tokenizer of a source.",
    "trained-limit": "What trained vocabulary rows can reach on a pair, the body frozen.",
    "align": "What two tokenizers share, and what is missing.",
    "train": "Train a new vocabulary.",
    "count": "Count the segments of a corpus, for one or many trainings.",
    "counts": "Tables of counted segments: add up, take over.",
    "inspect": "What a tokenizer does to text, and how it came about.",
    "evaluate": "Bits per byte of checkpoints on a text.",
    "runtime": "Vocabularies that move while a model runs: hypertokens, merging, bytes.",
    "probe": "Short fixed tests that tell where a surgery hurts.",
    "patch": "A surgery as a small file, applied to fine-tunes of the same source.",
    "hand-over": "Files that train a patched checkpoint on, for trainers.",
    "verify": "Check a finished checkpoint again.",
    "push": "A finished checkpoint, to the Hugging Face hub.",
    "explain": "Where a row of a transplanted checkpoint came from.",
    "initialisers": "The methods that make new rows: list, show, check.",
}
"""Every command by name, in the order of the help page; its module is `tokensurgeon.cli.NAME`."""

SHARED = ("evaluate", "transplant")
"""Commands that several processes of a launcher divide between them."""
LAST_SECOND = 253_402_300_800
"""Since 1970, at the end of the year 9999: no calendar of Python goes on."""
OLDER_NAMES = {"floor": "trained-limit"}
"""Names that commands had, and still go by."""


class Group(click.Group):
    """A group that imports a command when it is named, and ends every error in one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module."""
        name = OLDER_NAMES.get(cmd_name, cmd_name)
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"tokensurgeon.cli.{name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or name the nearest one."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(COMMANDS)}"
            ctx.fail(f"no command '{args[0]}'; {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run, and leave with the exit code that DESIGN's table of codes gives."""
        if not standalone_mode:
            try:
                return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
            except _Carried as error:
                raise error.cause from None
        with process.ended_in_order(), process.lenient_streams():
            try:
                _refuse_empty(sys.argv[1:] if args is None else args)
                _check_environment()
                code = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
                if sys.stdout is not None:
                    sys.stdout.flush()
            except (SystemExit, GeneratorExit):
                raise
            except BaseException as error:  # noqa: BLE001 - a panic in tokenizers is no Exception
                _end(error.cause if isinstance(error, _Carried) else error)
        sys.exit(code if isinstance(code, int) else 0)

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Parse as click does, but for interruptions and broken streams."""
        with _past_click():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run as click does, but for interruptions and broken streams."""
        with _past_click():
            return super().invoke(ctx)


class _Carried(Exception):
    """Takes an error past click, which would end it in its own way."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(cause)
        self.cause = cause


@contextlib.contextmanager
def _past_click() -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, EOFError, OSError) as error:
        raise _Carried(error) from error


def _end(cause: BaseException) -> NoReturn:
    """Turn an error into one line and an exit code."""
    try:
        raise cause
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "tokensurgeon"
        _leave(f"{error.format_message().rstrip('.')} (see '{where} --help')", 2)
    except click.ClickException as error:
        _leave(error.format_message(), error.exit_code)
    except (click.Abort, KeyboardInterrupt) as error:
        _leave(*process.said_of(error))
    except TokensurgeonError as error:
        _leave(str(error), error.exit_code)
    except MemoryError:
        _leave("out of memory: take a smaller --dtype or a machine with more", 1)
    except OSError as error:
        _end_if_stdout_failed(error)
        _trace()
        name = f": {error.filename}" if error.filename else ""
        _leave(f"{error.strerror or error}{name}", 1)
    except BaseException as error:  # noqa: BLE001 - a panic in tokenizers is no Exception
        _trace()
        hint = "run 'tokensurgeon -v …' for the traceback"
        _leave(f"unexpected {type(error).__name__}: {error}; {hint}", 1)


def _end_if_stdout_failed(error: OSError) -> None:
    """Leave if stdout takes no more: quietly where its reader went away."""
    failure = process.stdout_failure()
    if isinstance(failure or error, BrokenPipeError):
        sys.exit(process.BROKEN_PIPE)
    if failure is not None:
        _leave(
            f"stdout takes no more: {failure.strerror}; send it elsewhere: what was written to "
            "files stands",
            1,
        )


def _check_environment() -> None:
    """Refuse a variable on which numpy would fail when it is loaded, in words of its own."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if epoch is not None and not (epoch.strip().isdecimal() and int(epoch) < LAST_SECOND):
        raise click.UsageError(
            f"SOURCE_DATE_EPOCH is {epoch!r}, not seconds since 1970; correct it or unset it"
        )


def _share_work(ctx: click.Context) -> None:
    """Of several processes of a launcher let one speak; refuse what they would all do whole."""
    if os.environ.get("WORLD_SIZE", "1") == "1" or ctx.invoked_subcommand is None:
        return
    if ctx.invoked_subcommand not in SHARED:
        raise click.UsageError(
            f"{os.environ['WORLD_SIZE']} processes would each do all of {ctx.invoked_subcommand}: "
            f"start it without a launcher; what can be divided is {', '.join(SHARED)}"
        )
    if os.environ.get("RANK") != "0":
        ctx.obj["quiet"] = True
        process.silence(sys.stdout)


def _refuse_empty(args: Sequence[str]) -> None:
    """Refuse an empty argument: as a path it would be the current folder."""
    for number, word in enumerate(args, start=1):
        option, equals, value = word.partition("=")
        if not word or (word.startswith("--") and equals and not value):
            which = f"the value of {option}" if word else f"argument {number}"
            raise click.UsageError(
                f"{which} is empty; check the variables of the shell, or leave it out"
            )


def _trace() -> None:
    if logging.getLogger("tokensurgeon").isEnabledFor(logging.INFO):
        traceback.print_exc()


def _leave(message: str, code: int) -> NoReturn:
    """Write one line to stderr and leave."""
    try:
        click.echo(f"tokensurgeon: error: {' '.join(message.split())}", err=True)
    except OSError:  # nobody reads it: the exit code must do
        process.silence(sys.stderr)
    sys.exit(code)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tokensurgeon")
@click.option("-v", "--verbose", count=True, help="Say more; twice for everything.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but results and errors.")
@click.pass_context
def main(ctx: click.Context, verbose: int, quiet: bool) -> None:
    """Give a trained language model another tokenizer, and measure what that cost."""
    ctx.obj = {"quiet": quiet}
    _share_work(ctx)
    level = logging.ERROR if quiet else logging.WARNING
    if verbose:
        level = logging.INFO if verbose == 1 else logging.DEBUG
    logger = logging.getLogger("tokensurgeon")
    logger.setLevel(level)
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("tokensurgeon: %(message)s"))
        logger.addHandler(handler)
        logger.propagate = False
    if not verbose:  # keep the libraries beneath from writing to the terminal
        warnings.simplefilter("ignore")
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("TQDM_DISABLE", "1")
    if not verbose or not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

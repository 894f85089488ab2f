"""Write docs/reference/cli.md: every command's help. ``--check`` only says whether it is right."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from tokensurgeon.cli.main import main

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "cli.md"
WIDTH = 90


def sections(command: click.Command, name: str, parent: click.Context | None) -> Iterator[str]:
    """Yield one Markdown section for a command and each of its subcommands."""
    context = click.Context(
        command,
        info_name=name,
        parent=parent,
        terminal_width=WIDTH,
        max_content_width=WIDTH,
        **command.context_settings,
    )
    yield f"## `{context.command_path}`\n\n```text\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            if found is not None:
                yield from sections(found, child, context)


def page() -> str:
    """Return the whole page."""
    head = (
        "# Command line\n\n"
        "Written by `scripts/help_pages.py`; CI checks that it is up to date.\n\n"
        "Results go to stdout, progress and messages to stderr. Exit codes: 0 done; 1 it failed; "
        "2 usage or recipe; 3 a bound such as `--max-rise` was exceeded; 129, 130 and 143 ended by "
        "SIGHUP, SIGINT or SIGTERM; 141 the reader of stdout went away.\n"
    )
    return "\n".join([head, *sections(main, "tokensurgeon", None)])


if __name__ == "__main__":
    text = page()
    if sys.argv[1:] == ["--check"]:
        if not PAGE.exists() or PAGE.read_text("utf-8") != text:
            sys.exit(f"{PAGE.name} is out of date: run python scripts/help_pages.py")
    elif sys.argv[1:]:
        sys.exit("usage: help_pages.py [--check]")
    else:
        PAGE.write_text(text, "utf-8")

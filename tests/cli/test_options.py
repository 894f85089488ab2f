"""Options and commands that the package names exist, and older names still work or are refused."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import tokensurgeon
from tokensurgeon.cli.main import OLDER_NAMES, main

PACKAGE = Path(tokensurgeon.__file__).parent
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
THEIRS = {("surgery_page.py", "--outfile")}
"""Options of other programs, in lines that a page tells to run: of llama.cpp's converter."""


def commands(command: click.Command, name: str = "tokensurgeon") -> Iterator[click.Command]:
    yield command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=name)
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            assert found is not None
            yield from commands(found, child)


def options() -> set[str]:
    flags = {f for c in commands(main) for p in c.params for f in (*p.opts, *p.secondary_opts)}
    return {*flags, "--help"}


def strings(path: Path) -> Iterator[tuple[int, str]]:
    """Yield every string of a module, docstrings and the constant parts of f-strings among them."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def test_every_option_that_is_named_exists() -> None:
    known = options()
    wrong = [
        f"{path.name}:{line}: {option}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for line, text in strings(path)
        for option in OPTION.findall(text)
        if option not in known and (path.name, option) not in THEIRS
    ]
    assert wrong == []


def test_every_template_names_options_and_commands_that_exist() -> None:
    ours, scripts = options(), PACKAGE / "handover" / "templates"
    # What is handed over to trainers has options of its own.
    theirs = set(OPTION.findall((scripts / "common.py.txt").read_text("utf-8")))
    for path in PACKAGE.rglob("*.jinja"):
        known = theirs if path.parent == scripts else ours
        text = path.read_text("utf-8")
        for command in re.findall(r"`tokensurgeon ([a-z-]+)", text):
            assert main.get_command(click.Context(main), command) is not None, command
        if path.suffixes[0] == ".md":  # in HTML, `--name` is a property of a style sheet
            assert set(OPTION.findall(text)) <= known


@pytest.mark.parametrize(("old", "new"), OLDER_NAMES.items())
def test_an_older_name_of_a_command_works_and_is_told_in_the_help(old: str, new: str) -> None:
    context = click.Context(main)
    assert main.get_command(context, old) is main.get_command(context, new)
    result = CliRunner().invoke(main, [old, "--help"])
    assert result.exit_code == 0
    assert f"'{old}'" in result.stdout
    assert old not in main.list_commands(context)


def test_the_text_of_a_network_has_a_name_of_its_own() -> None:
    result = CliRunner().invoke(main, ["hypernet", "train", "model", "--text", "a", "-o", "net"])
    assert result.exit_code == 2
    assert "--train-text" in result.stderr
    assert result.stderr.count("\n") == 1
    shown = CliRunner().invoke(main, ["hypernet", "train", "--help"]).stdout
    assert "--train-text FILE" in shown
    assert " --text" not in shown


def test_the_help_names_every_calibration_stage_in_its_order() -> None:
    from tokensurgeon.calibration import STAGES

    shown = CliRunner().invoke(main, ["transplant", "--help"], terminal_width=400).stdout
    assert f": {', '.join(STAGES)}." in shown

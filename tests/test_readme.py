"""The README's examples are what the package does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from tokensurgeon.cli.main import COMMANDS, main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_method_of_your_own_passes_the_public_check(tmp_path: Path) -> None:
    """In a process of its own, since it registers a method."""
    (block,) = (block for block in blocks("python") if "@initialiser(" in block)
    file = tmp_path / "last_piece.py"
    file.write_text(f"from __future__ import annotations\n{block}", "utf-8")
    command = [sys.executable, "-m", "tokensurgeon", "initialisers", "check", str(file)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_every_command_that_is_named_is_there() -> None:
    text = "\n".join([*blocks("sh"), *blocks("console")])
    named = set(re.findall(r"\btokensurgeon ([a-z]+)\b", text.replace("# tokensurgeon", "")))
    assert named
    assert named <= set(COMMANDS)


def test_every_option_that_is_named_is_there() -> None:
    known: set[str] = {"--help"}

    def gather(command: click.Command) -> None:
        for parameter in command.params:
            known.update(parameter.opts)
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                found = command.get_command(context, name)
                assert found is not None
                gather(found)

    gather(main)
    spoken = re.sub(r"scripts/\S+ --\w+|pip install.*", "", README)
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", spoken)) <= known


def test_every_link_leads_somewhere() -> None:
    for page in [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_method_in_the_table_is_registered() -> None:
    from tokensurgeon.initialisers import names

    table = README.split("## Methods")[1].split("Without being told")[0]
    first = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    named = re.findall(r"`([a-z-]+)`", " ".join(first))
    full = {f"subword{name}" if name.startswith("-") else name for name in named}
    assert full == set(names())


@pytest.mark.parametrize("name", ["cli", "methods"])
def test_measured_figures_have_their_place(name: str) -> None:
    assert (
        README.count(f"<!-- figures:{name} -->") == README.count(f"<!-- /figures:{name} -->") == 1
    )

"""The command `initialisers`: list, show and check."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from tokensurgeon.cli.initialisers import command
from tokensurgeon.errors import InitialiserError
from tokensurgeon.initialisers import names, registry

PLUGIN = '''
from dataclasses import dataclass

from tokensurgeon.initialisers import InitContext, NewRows, SideRows, initialiser
import numpy as np


@initialiser("command-plugin")
@dataclass(frozen=True)
class Ones:
    """Rows of ones."""

    height: float = {height}

    def __call__(self, context: InitContext) -> NewRows:
        rows = np.full((context.n_missing, context.width), self.height, np.float32)
        return NewRows(input=SideRows(dense=rows))
'''


@pytest.fixture(autouse=True)
def _registry_restored() -> Iterator[None]:
    yield
    for name in [name for name in registry._CLASSES if not registry.is_builtin(name)]:
        del registry._CLASSES[name]


def run(*args: str) -> str:
    result = CliRunner().invoke(command, list(args), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_list_has_every_name_in_both_forms():
    text = run("list")
    assert all(name in text for name in names())
    entries = json.loads(run("list", "--json"))
    assert [entry["name"] for entry in entries] == names()
    assert all(entry["summary"] for entry in entries)


@pytest.mark.parametrize("name", names())
def test_each_initialiser_can_be_shown(name: str):
    text = run("show", name)
    entry = json.loads(run("show", name, "--json"))
    for setting in entry["settings"]:
        assert f"--set {name}.{setting['name']}=" in text


def test_a_plugin_is_listed_shown_and_checked(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN.format(height=1.0), encoding="utf-8")
    assert run("check", str(path)) == "command-plugin: keeps the contract\n"
    assert "command-plugin (plug-in)" in run("list", "--plugin", str(path))
    assert "height" in run("show", "command-plugin", "--plugin", str(path))
    assert json.loads(run("check", str(path), "--json"))["kept"] == ["command-plugin"]


def test_a_broken_plugin_is_told_its_law(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text(PLUGIN.format(height='float("nan")'), encoding="utf-8")
    with pytest.raises(InitialiserError, match="not finite"):
        run("check", str(path))

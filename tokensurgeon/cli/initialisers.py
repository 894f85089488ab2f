"""`tokensurgeon initialisers`: list the methods, show one's settings, check a plug-in file."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import click

from tokensurgeon.cli.console import json_option, plugin_option, stdout, write_json


@click.group(name="initialisers")
def command() -> None:
    """Show the methods that make new rows, and check your own."""


@command.command(name="list")
@plugin_option
@json_option
def list_command(plugins: tuple[str, ...], as_json: bool) -> None:
    """List every initialiser with its first line."""
    from rich.table import Column, Table

    from tokensurgeon.initialisers.registry import get, is_builtin, load_plugin, names

    for path in plugins:
        load_plugin(path)
    entries = [
        {
            "name": name,
            "summary": _summary(get(name)),
            "origin": "built-in" if is_builtin(name) else get(name).__module__,
        }
        for name in names()
    ]
    if as_json:
        write_json(entries)
        return
    table = Table(Column("name", no_wrap=True), "what it does", box=None, pad_edge=False)
    for entry in entries:
        note = "" if entry["origin"] == "built-in" else " (plug-in)"
        table.add_row(entry["name"] + note, entry["summary"])
    stdout().print(table)


@command.command()
@click.argument("name")
@plugin_option
@json_option
def show(name: str, plugins: tuple[str, ...], as_json: bool) -> None:
    """Show what NAME does and its settings."""
    from tokensurgeon.initialisers.registry import get, load_plugin

    for path in plugins:
        load_plugin(path)
    cls = get(name)
    settings = []
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        settings.append({"name": field.name, "type": str(field.type)})
        if field.default is not dataclasses.MISSING:
            settings[-1]["default"] = field.default
    text = inspect.cleandoc(cls.__doc__ or "")
    if as_json:
        write_json({"name": name, "description": text, "settings": settings})
        return
    click.echo(f"{name}\n\n{text}")
    if settings:
        click.echo("\nSet with")
        for setting in settings:
            default = "required" if "default" not in setting else f"default {setting['default']}"
            click.echo(f"  --set {name}.{setting['name']}=…  {setting['type']}, {default}")


@command.command()
@click.argument("file", type=click.Path())
@json_option
def check(file: str, as_json: bool) -> None:
    """Load the Python FILE and check each initialiser that it registers."""
    from tokensurgeon.initialisers.check import check_initialiser
    from tokensurgeon.initialisers.registry import get, load_plugin

    registered = load_plugin(file)
    for name in registered:
        check_initialiser(get(name))
    if as_json:
        write_json({"file": file, "kept": registered})
        return
    for name in registered:
        click.echo(f"{name}: keeps the contract")


def _summary(cls: type[Any]) -> str:
    """Return the first paragraph of a docstring as one line."""
    return " ".join(inspect.cleandoc(cls.__doc__ or "").split("\n\n")[0].split())

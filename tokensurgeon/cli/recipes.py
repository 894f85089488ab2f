"""From options to a `Recipe`: flags override the keys of a recipe file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click
import yaml

from tokensurgeon.recipe import Recipe

ANY = "init"
"""In ``--set init.k=32``: the setting goes to whichever chosen method has it."""


def build_recipe(file: str | None, options: dict[str, Any]) -> Recipe:
    """Return the recipe of a file with options laid over it.

    Parameters
    ----------
    file : str or None
        A YAML recipe; its paths count from its folder.
    options : dict
        By key of the recipe, dotted for nested ones (``init.input``). None, False and empty
        values mean "not given". ``init.settings`` is merged, every other key replaced.
    """
    data: dict[str, Any] = {}
    if file is not None:
        data = Recipe.from_yaml(file).model_dump(mode="json")
    for dotted, value in options.items():
        if value is None or value is False or (isinstance(value, tuple | dict) and not value):
            continue
        *outer, key = dotted.split(".")
        place = data
        for name in outer:
            place = place.setdefault(name, {})
        if dotted == "init.settings":
            for method, settings in value.items():
                place.setdefault(key, {}).setdefault(method, {}).update(settings)
        else:
            place[key] = value
    if "source" not in data:
        raise click.UsageError("no SOURCE: give a checkpoint folder, or --recipe FILE")
    return Recipe.parse(data, where="options" if file is None else f"{file} with options")


def parse_settings(pairs: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Turn ``omp.k=32`` into ``{"omp": {"k": 32}}``; values are read as YAML."""
    settings: dict[str, dict[str, Any]] = {}
    for pair in pairs:
        left, equals, value = pair.partition("=")
        method, dot, key = left.rpartition(".")
        if not (equals and dot and method and key and value):
            raise click.BadParameter(
                f"'{pair}' is not METHOD.KEY=VALUE, such as omp.k=32 or init.k=32",
                param_hint="--set",
            )
        try:
            parsed = yaml.safe_load(value)
        except yaml.YAMLError:
            parsed = value
        settings.setdefault("*" if method == ANY else method, {})[key] = parsed
    return settings


def parse_stages(stages: str | None) -> list[str] | None:
    """Turn ``prior,readout`` into a list, ``none`` into an empty one; None means "not given"."""
    if stages is None:
        return None
    names = [name.strip() for name in stages.split(",") if name.strip()]
    if not names:
        raise click.BadParameter("names no stage; say none to calibrate nothing")
    return [] if names == ["none"] else names


def parse_map(pairs: Iterable[str]) -> dict[str, str]:
    """Turn ``<|im_start|>=<s>`` into ``{"<|im_start|>": "<s>"}``, parted at the first ``=``."""
    mapping: dict[str, str] = {}
    for pair in pairs:
        target, equals, source = pair.partition("=")
        if not (target and equals and source):
            raise click.BadParameter(f"'{pair}' is not TARGET=SOURCE", param_hint="--map")
        if mapping.get(target, source) != source:
            raise click.BadParameter(f"'{target}' is mapped twice", param_hint="--map")
        mapping[target] = source
    return mapping

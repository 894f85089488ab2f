"""Options and recipes: what is given wins, what is not given changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest

from tokensurgeon.cli.recipes import build_recipe, parse_map, parse_settings
from tokensurgeon.errors import RecipeError
from tokensurgeon.recipe import Recipe

FULL = {
    "source": "model",
    "tokenizer": "target",
    "init": {"input": "omp", "settings": {"omp": {"k": 8, "ridge": 0.1}}},
    "text": {"evaluation": ["a.txt"]},
    "untie": True,
    "seed": 5,
    "map": {"<a>": "<b>"},
}


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "recipe.yaml"
    path.write_text(Recipe.parse(FULL).to_yaml(), "utf-8")
    return str(path)


@pytest.mark.parametrize("nothing", [None, (), {}, False])
def test_what_is_not_given_changes_nothing(file: str, nothing: Any) -> None:
    keys = ["donor", "init.input", "text.evaluation", "untie", "map", "seed", "init.settings"]
    assert build_recipe(file, dict.fromkeys(keys, nothing)) == Recipe.from_yaml(file)


def test_what_is_given_wins(file: str) -> None:
    recipe = build_recipe(
        file, {"source": "other", "init.input": "mean", "text.evaluation": ("b.txt",), "seed": 0}
    )
    assert recipe.source == "other"
    assert recipe.init.input == "mean"
    assert recipe.text.evaluation == ("b.txt",)
    assert recipe.seed == 0
    assert recipe.untie


def test_settings_are_merged_key_by_key(file: str) -> None:
    recipe = build_recipe(file, {"init.settings": {"omp": {"k": 32}, "*": {"seed": 1}}})
    assert recipe.init.settings == {"omp": {"k": 32, "ridge": 0.1}, "*": {"seed": 1}}


def test_options_alone_make_a_recipe() -> None:
    recipe = build_recipe(None, {"source": "a", "donor": "b", "init.output": "omp"})
    assert recipe == Recipe(source="a", donor="b", init={"output": "omp"})


def test_no_source_is_a_usage_error() -> None:
    with pytest.raises(click.UsageError, match="no SOURCE"):
        build_recipe(None, {"donor": "b"})


def test_no_target_is_said() -> None:
    with pytest.raises(RecipeError, match="no target: give 'tokenizer'"):
        build_recipe(None, {"source": "a"})


@pytest.mark.parametrize(
    ("pairs", "settings"),
    [
        (["omp.k=32"], {"omp": {"k": 32}}),
        (["init.k=32"], {"*": {"k": 32}}),
        (["omp.k=32", "omp.centre=true"], {"omp": {"k": 32, "centre": True}}),
        (["omp.k=1", "omp.k=2"], {"omp": {"k": 2}}),
        (["a.b.c=0.5"], {"a.b": {"c": 0.5}}),
        (["a.b=x=y"], {"a": {"b": "x=y"}}),
        (["a.b=[1, 2]"], {"a": {"b": [1, 2]}}),
        (["a.b='5'"], {"a": {"b": "5"}}),
        (["a.b=[1"], {"a": {"b": "[1"}}),
        ([], {}),
    ],
)
def test_settings_are_read_as_yaml(pairs: list[str], settings: dict[str, Any]) -> None:
    assert parse_settings(pairs) == settings


@pytest.mark.parametrize("pair", ["k=32", "omp.k", "omp.=3", ".k=3", "omp.k=", "", "="])
def test_a_setting_without_a_method_is_refused(pair: str) -> None:
    with pytest.raises(click.BadParameter, match=r"is not METHOD\.KEY=VALUE"):
        parse_settings([pair])


def test_a_map_is_parted_at_the_first_equals_sign() -> None:
    assert parse_map(["<|im_start|>=<s>", "a=b=c"]) == {"<|im_start|>": "<s>", "a": "b=c"}


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["a"], "not TARGET=SOURCE"),
        (["=b"], "not TARGET=SOURCE"),
        (["a="], "not TARGET=SOURCE"),
        (["a=b", "a=c"], "mapped twice"),
    ],
)
def test_a_map_without_two_sides_is_refused(pairs: list[str], message: str) -> None:
    with pytest.raises(click.BadParameter, match=message):
        parse_map(pairs)

"""Options and recipes: what is given wins, what is not given changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from tokensurgeon.cli.main import main
from tokensurgeon.cli.recipe_options import (
    OPTIONS,
    build_recipe,
    parse_map,
    parse_settings,
    takes_recipe,
)
from tokensurgeon.errors import RecipeError
from tokensurgeon.recipe import InitSpec, Recipe

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


def test_what_is_not_given_changes_nothing(file: str) -> None:
    keys = ["donor", "init.input", "text.evaluation", "untie", "map", "seed", "init.settings"]
    assert build_recipe(file, dict.fromkeys(keys)) == Recipe.from_yaml(file)


def test_an_empty_tuple_means_none(file: str) -> None:
    recipe = build_recipe(file, {"text.evaluation": (), "calibrate": ()})
    assert recipe.text.evaluation == ()
    assert recipe.calibrate == ()


ALL = tuple(OPTIONS)


def asked(*arguments: str) -> Recipe:
    """Return the recipe that a command with every shared option is called with."""
    recipes: list[Recipe] = []

    @click.command()
    @takes_recipe(*ALL)
    def command(recipe: Recipe) -> None:
        recipes.append(recipe)

    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return recipes[0]


def test_a_command_that_is_told_nothing_runs_the_recipe_of_the_file(file: str) -> None:
    assert asked("--recipe", file) == Recipe.from_yaml(file)


@pytest.mark.parametrize(
    ("arguments", "fields"),
    [
        (["--calibrate", "none"], {"calibrate": ()}),
        (["--calibrate", "prior, fold"], {"calibrate": ("prior", "fold")}),
        (["--seed", "0", "--budget", "0"], {"seed": 0, "budget": 0.0}),
        (["--map", "==</s>", "--map", "a=b"], {"map": {"=": "</s>", "a": "b"}}),
        (["--init", "mean"], {"init": {"input": "mean", "output": "mean"}}),
        (["--init", "mean", "--init-output", "omp"], {"init": {"input": "mean", "output": "omp"}}),
        (["--baseline", "zero", "--trim-rows"], {"baselines": ("zero",), "trim_rows": True}),
    ],
)
def test_what_a_command_is_told_wins(
    tmp_path: Path, arguments: list[str], fields: dict[str, Any]
) -> None:
    path = tmp_path / "recipe.yaml"
    plain = Recipe(source="a", tokenizer="b", calibrate=("refit",), budget=3, seed=7)
    path.write_text(plain.to_yaml(), "utf-8")
    assert asked("--recipe", str(path), *arguments) == Recipe.parse(
        {**plain.model_dump(), **fields}
    )


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


@pytest.mark.parametrize("key", ["force", "trust_remote_code"])
def test_what_a_file_may_not_ask_for_alone_the_command_asks_for_too(
    tmp_path: Path, key: str
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(Recipe.parse({**FULL, key: True}).to_yaml(), "utf-8")
    with pytest.raises(RecipeError, match="which a file alone may not"):
        build_recipe(str(path), {"source": None, "seed": 3})
    assert getattr(asked("--recipe", str(path), f"--{key.replace('_', '-')}"), key)


def test_an_output_that_climbs_is_refused_unless_another_is_given(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(Recipe.parse({**FULL, "output": "../x"}).to_yaml(), "utf-8")
    with pytest.raises(RecipeError, match="leaves the recipe's folder"):
        build_recipe(str(path), {})
    assert asked("--recipe", str(path), "-o", "there").output == "there"


def test_options_alone_make_a_recipe() -> None:
    recipe = build_recipe(None, {"source": "a", "donor": "b", "init.output": "omp"})
    assert recipe == Recipe(source="a", donor="b", init=InitSpec(output="omp"))


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


@pytest.mark.parametrize(
    ("pair", "target", "source"),
    [
        ("<|im_start|>=<s>", "<|im_start|>", "<s>"),
        ("a=b=c", "a", "b=c"),
        ("==</s>", "=", "</s>"),
        ("===</s>", "==", "</s>"),
        ("a==", "a", "="),
        ("a===", "a", "=="),
        ("===", "=", "="),
        ("=a=b", "=a", "b"),
    ],
)
def test_the_two_tokens_of_a_map_may_hold_or_be_an_equals_sign(
    pair: str, target: str, source: str
) -> None:
    assert parse_map([pair]) == {target: source}


def test_every_command_reads_a_map_in_the_same_way(
    tmp_path: Path, tiny_source: Path, tiny_donor: Path
) -> None:
    """An unknown source token is named as it was read."""
    pair = ["--map", "===no such"]
    text = tmp_path / "text.txt"
    text.write_text("a")
    texts = ["--text", str(text), "--calibration-text", str(text)]
    commands = [
        ["align", str(tiny_source), str(tiny_donor)],
        ["transplant", str(tiny_source), "--tokenizer", str(tiny_donor), "--dry-run"],
        ["compare", str(tiny_source), "--tokenizer", str(tiny_donor), *texts],
        ["trained-limit", str(tiny_source), "--tokenizer", str(tiny_donor), *texts],
    ]
    for command in commands:
        result = CliRunner().invoke(main, [*command, *pair])
        assert result.exit_code == 2, result.output
        assert "no token 'no such'" in result.stderr, command


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["a"], "not TARGET=SOURCE"),
        (["=b"], "not TARGET=SOURCE"),
        (["a="], "not TARGET=SOURCE"),
        (["=="], "not TARGET=SOURCE"),
        (["="], "not TARGET=SOURCE"),
        (["a=b", "a=c"], "mapped twice"),
    ],
)
def test_a_map_without_two_sides_is_refused(pairs: list[str], message: str) -> None:
    with pytest.raises(click.BadParameter, match=message):
        parse_map(pairs)

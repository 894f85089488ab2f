"""Recipes: what is written is what is read, and every mistake is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from tokensurgeon.errors import RecipeError
from tokensurgeon.recipe import InitSpec, Recipe, TextSpec, TrainSpec

ROOT = Path(__file__).parent.parent
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1)
SETTINGS = st.dictionaries(
    NAMES, st.integers() | st.booleans() | st.text(max_size=8) | st.floats(0, 1), max_size=3
)
RECIPES = st.builds(
    Recipe,
    source=NAMES,
    tokenizer=NAMES
    | st.builds(
        TrainSpec,
        method=st.sampled_from(["bpe", "unigram"]),
        corpus=st.tuples(NAMES),
        size=st.integers(258, 10**6),
    ),
    donor=st.none() | NAMES,
    output=st.none() | NAMES,
    init=st.builds(InitSpec, settings=st.dictionaries(NAMES, SETTINGS, max_size=2)),
    text=st.builds(TextSpec, evaluation=st.lists(NAMES, max_size=2).map(tuple)),
    map=st.dictionaries(NAMES, NAMES, max_size=2),
    untie=st.booleans(),
    seed=st.integers(0, 2**32),
)


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, "utf-8")
    return path


@given(RECIPES)
def test_yaml_reads_back_to_an_equal_recipe(recipe: Recipe) -> None:
    import yaml

    assert Recipe.parse(yaml.safe_load(recipe.to_yaml())) == recipe


def test_relative_paths_count_from_the_folder_of_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "a.txt").write_text("a")
    path = write(
        tmp_path,
        "source: model\ntokenizer: ./new\noutput: out\ntext: {evaluation: ['*.txt', b.txt]}\n",
    )
    recipe = Recipe.from_yaml(path)
    assert recipe.source == str(tmp_path / "model")
    assert recipe.tokenizer == str(tmp_path / "new")
    assert recipe.output == str(tmp_path / "out")
    assert recipe.text.evaluation[0] == str(tmp_path / "*.txt")


NO_FILES = {
    "device", "dtype", "method", "pretokenizer", "digits", "encoder", "no_cross", "baselines",
    "calibrate", "input", "map", "settings",
}  # fmt: skip
"""Keys of text that name no file; `input` and `output` of `init` name methods."""


def test_every_key_that_names_files_counts_from_the_folder(tmp_path: Path) -> None:
    """A key that is added and forgotten here or in `resolved` fails."""

    def dotted(part: BaseModel) -> dict[str, Any]:
        """Return a value that names a file for each key that takes text."""
        given: dict[str, Any] = {}
        for key, field in type(part).model_fields.items():
            if key in NO_FILES or isinstance(part, InitSpec):
                continue
            if "tuple[str" in str(field.annotation):
                given[key] = (f"./{key}",)
            elif "str" in str(field.annotation):
                given[key] = f"./{key}"
        return given

    training = TrainSpec(method="bpe", size=300, corpus=("c",))
    trained = training.model_copy(update={**dotted(training), "mixture": ("en=2:./mixture",)})
    text = TextSpec(**dotted(TextSpec()))
    plain = Recipe(source="a", tokenizer="b")
    recipe = plain.model_copy(update={**dotted(plain), "tokenizer": trained, "text": text})
    found = recipe.resolved(tmp_path)
    assert isinstance(found.tokenizer, TrainSpec)
    assert found.tokenizer.mixture == (f"en=2:{tmp_path / 'mixture'}",)
    for part in (found, found.text, found.tokenizer.model_copy(update={"mixture": ()})):
        for key in dotted(part):
            value = getattr(part, key)
            for name in value if isinstance(value, tuple) else (value,):
                if isinstance(name, str):
                    assert name == str(tmp_path / key), key


def test_methods_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "omp").touch()
    text = "source: m\ntokenizer: t\ninit: {input: omp, output: omp}\nbaselines: [omp]\n"
    recipe = Recipe.from_yaml(write(tmp_path, text))
    assert (recipe.init.input, recipe.init.output, recipe.baselines) == ("omp", "omp", ("omp",))


def test_every_key_says_what_it_is() -> None:
    for part in (Recipe, InitSpec, TextSpec, TrainSpec):
        for key, field in part.model_fields.items():
            assert (field.description or "").endswith("."), f"{part.__name__}.{key}"


def test_a_model_id_stays_a_model_id(tmp_path: Path) -> None:
    path = write(tmp_path, "source: somebody/model\ntokenizer: somebody/tokenizer\n")
    recipe = Recipe.from_yaml(path)
    assert (recipe.source, recipe.tokenizer) == ("somebody/model", "somebody/tokenizer")


def test_a_training_corpus_and_its_save_folder_count_from_the_recipe(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "source: m\ntokenizer: {method: bpe, size: 300, corpus: [./c.txt], save: kept}\n",
    )
    spec = Recipe.from_yaml(path).tokenizer
    assert isinstance(spec, TrainSpec)
    assert spec.corpus == (str(tmp_path / "c.txt"),)
    assert spec.save == str(tmp_path / "kept")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("source: a\ntokeniser: b\n", "unknown key 'tokeniser'; did you mean 'tokenizer'?"),
        ("source: a\ntokenizer: b\ninit: {inputs: omp}\n", "'init.inputs'; did you mean 'input'?"),
        ("source: a\ntokenizer: b\nzebra: 1\n", "unknown key 'zebra'; known: source"),
        ("source: a\ntokenizer: b\nuntie: perhaps\n", "'untie': "),
        ("source: a\ntokenizer: b\nseed: -1\n", "'seed': "),
        ("source: a\n", "no target: give 'tokenizer', or a 'donor'"),
        ("tokenizer: a\n", "'source': Field required"),
        (
            "source: a\ntokenizer: {method: bpe, corpus: [], size: 300}\n",
            "'tokenizer': give 'corpus' or 'mixture'",
        ),
        (
            "source: a\ntokenizer: {method: bpe, corpus: [c], sizes: 300}\n",
            "unknown key 'tokenizer.sizes'; did you mean 'size'?",
        ),
        ("source: a\ntokenizer: 5\n", "'tokenizer': Input should be a valid string"),
        ("- a\n- b\n", "holds no mapping"),
        ("", "holds no mapping"),
        ("source: [a\n", "line 2 is not YAML"),
        ("source: !!python/object/apply:os.system ['true']\n", "is not YAML"),
    ],
)
def test_a_mistake_is_named_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(RecipeError) as caught:
        Recipe.from_yaml(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"\xff\xfe\x00source")
    with pytest.raises(RecipeError, match="is not YAML"):
        Recipe.from_yaml(path)


def test_a_recipe_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"cannot read the recipe .*none\.yaml"):
        Recipe.from_yaml(tmp_path / "none.yaml")


def test_a_recipe_cannot_be_changed_after_it_was_read() -> None:
    recipe = Recipe(source="a", tokenizer="b")
    with pytest.raises(Exception, match="frozen"):
        recipe.seed = 3


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_recipe_that_ships_is_read(path: Path) -> None:
    recipe = Recipe.from_yaml(path)
    assert recipe.output is not None
    assert recipe.text.evaluation
    assert not set(recipe.text.evaluation) & set(recipe.text.calibration)


def test_the_shipped_recipes_are_there() -> None:
    assert len(list((ROOT / "recipes").glob("*.yaml"))) >= 3


def test_a_recipe_in_python_takes_paths() -> None:
    training = {"method": "bpe", "size": 300, "corpus": [Path("c.txt")]}
    recipe = Recipe.model_validate({"source": Path("a"), "tokenizer": training})
    assert recipe.source == "a"
    assert isinstance(recipe.tokenizer, TrainSpec)
    assert recipe.tokenizer.corpus == ("c.txt",)

"""Recipes: what is written is what is read, and every mistake is named."""

from __future__ import annotations

import os
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
    "calibrate", "input", "map", "settings", "scripts",
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
        ("source: a\ntokenizer: b\nheal: .inf\n", "'heal': "),
        ("source: a\ntokenizer: b\nbudget: .nan\n", "'budget': "),
        ("source: a\ntokenizer: b\npad_to_multiple_of: 100000\n", "'pad_to_multiple_of': "),
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


BASE = "source: a\ntokenizer: b\n"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (BASE + "seed: 1\nseed: 2\n", 4, "the key 'seed' is in line 3 already"),
        (BASE + "text:\n  other: [a]\n  other: [b]\n", 5, "'other' is in line 4 already"),
        (BASE + "init: {input: omp, input: mean}\n", 3, "'input' is in line 3 already"),
        ("&a source: x\n*a : y\n", 1, "the key 'source' is in line 1 already"),
        ("source: &s [*s]\n", 1, "*s stands inside itself"),
        ("source: &s {a: [b, *s]}\n", 1, "*s stands inside itself"),
        (BASE + "map: &m\n  <<: *m\n", 4, "*m stands inside itself"),
        (
            "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
            + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)),
            4,
            "with its aliases followed",
        ),
        (
            "a0: &a0 {x: y}\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 40)),
            20,
            "with its aliases followed",
        ),
        ("source: " + "[" * 1000, 1, "more than 20 levels deep"),
        ("".join(" " * i + "a:\n" for i in range(300)), 20, "more than 20 levels deep"),
        ("? " * 1000, 1, "more than 20 levels deep"),
        (BASE + "seed: " + "9" * 5000, 3, "a number of 5,000 characters"),
        (BASE + "seed: 0x" + "f" * 5000, 3, "a number of 5,002 characters"),
        (BASE + "seed: 1" + ":59" * 2000, 3, "a number of 6,001 characters"),
        (BASE + "heal: 2001-99-99\n", 3, "month must be in 1..12"),
        (BASE + "seed: \x00", 3, "is not YAML"),
        (BASE + 'donor: "\\ud800"\n', 3, "half a character"),
        (BASE + "donor: *nowhere\n", 3, "undefined alias"),
        (BASE + "---\nsource: c\n", 3, "another document"),
        (BASE + "? [a]\n: b\n", 3, "unhashable key"),
    ],
)
def test_what_is_yaml_and_no_recipe_is_refused_with_its_line(
    tmp_path: Path, text: str, line: int, message: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(RecipeError) as caught:
        Recipe.from_yaml(path)
    assert f"{path}, line {line}" in str(caught.value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_aliases_and_merges_within_the_bound_are_read(tmp_path: Path) -> None:
    text = (
        BASE + "text: {other: &t [a.txt], calibration: *t}\n"
        "init:\n  settings:\n    omp: &k {k: 8}\n    knn:\n      <<: *k\n      temperature: 1\n"
    )
    recipe = Recipe.from_yaml(write(tmp_path, text))
    assert recipe.text.other == recipe.text.calibration == ("a.txt",)
    assert recipe.init.settings["knn"] == {"k": 8, "temperature": 1}


@pytest.mark.parametrize("key", ["force", "trust_remote_code"])
def test_a_file_alone_neither_replaces_nor_runs_anything(tmp_path: Path, key: str) -> None:
    path = write(tmp_path, BASE + f"{key}: true\n")
    with pytest.raises(RecipeError, match=f"sets '{key}'.* add --{key.replace('_', '-')}"):
        Recipe.from_yaml(path)
    assert getattr(Recipe.from_yaml(path, given=[key]), key)
    assert not getattr(Recipe.from_yaml(write(tmp_path, BASE + f"{key}: false\n")), key)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (BASE + "output: ../x\n", "output"),
        (BASE + "output: a/../../x\n", "output"),
        (BASE + "export_map: ../x.jsonl\n", "export_map"),
        (
            "source: a\ntokenizer: {method: bpe, size: 300, corpus: [c], save: b/../../x}\n",
            "tokenizer.save",
        ),
    ],
)
def test_nothing_is_written_out_of_the_folder_of_a_recipe_by_climbing(
    tmp_path: Path, text: str, key: str
) -> None:
    with pytest.raises(RecipeError, match=f"'{key}' is .* leaves the recipe's folder"):
        Recipe.from_yaml(write(tmp_path, text))


def test_what_is_read_may_lie_anywhere_and_an_output_that_is_overridden_is_not_looked_at(
    tmp_path: Path,
) -> None:
    text = f"source: ../model\ntokenizer: b\noutput: {tmp_path}/a/../b\n"
    recipe = Recipe.from_yaml(write(tmp_path, text))
    assert recipe.source == f"{tmp_path}/../model"
    assert recipe.output == f"{tmp_path}/a/../b"
    path = write(tmp_path, BASE + "output: ../x\n")
    assert Recipe.from_yaml(path, given=["output"]).source == "a"


def test_a_device_a_pipe_a_folder_and_a_huge_file_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "huge.yaml").write_text(BASE + "# " + "x" * (1 << 18))
    for name, message in {
        "/dev/zero": "it is a device or a pipe",
        "pipe.yaml": "it is a device or a pipe",
        "": "it is a folder",
        "huge.yaml": "more than 131,072 bytes",
    }.items():
        with pytest.raises(RecipeError, match=message):
            Recipe.from_yaml(tmp_path / name)


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
    spec = recipe.tokenizer
    if not (isinstance(spec, TrainSpec) and spec.method == "prune"):  # it makes no row
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

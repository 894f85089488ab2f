"""Comparisons: how methods are written, what is kept between runs, what is random."""

from __future__ import annotations

import csv
import gc
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tokensurgeon import Recipe, compare
from tokensurgeon.errors import SettingError, UnknownNameError, UsageError
from tokensurgeon.evaluation import Entry, evaluate
from tokensurgeon.studies.compare import Comparison
from tokensurgeon.studies.compared_methods import Method, parse_methods
from tokensurgeon.studies.gap_closed import KnownLimit
from tokensurgeon.surgery.measure import patched_model
from tokensurgeon.surgery.prepare import prepare
from tokensurgeon.surgery.rows import PatchedRows, patch_rows

Checkpoints = Callable[..., Path]
LINES = [f"{i}. A row is read from table {i * 7}, and kept as it was." for i in range(60)]


@pytest.fixture
def recipe(checkpoints: Checkpoints, world: Path) -> Recipe:
    text = {"evaluation": [str(world / "evaluation.jsonl")]}
    asked = {"source": str(checkpoints()), "tokenizer": str(world / "target"), "text": text}
    return Recipe.parse(asked)


class Watch:
    """A progress that remembers whose scoring it was told of, and may stop the run."""

    def __init__(self, stop_at: str | None = None) -> None:
        self.scored: list[str] = []
        self.stop_at = stop_at

    def __call__(self, done: int, total: int, what: str) -> None:
        name = what.removeprefix("scoring ")
        if name == self.stop_at:
            raise KeyboardInterrupt
        if name != what and name not in self.scored:
            self.scored.append(name)


def row(table: Comparison, method: str) -> dict[str, Any]:
    return next(one for one in table.rows if one["method"] == method)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("omp", "omp"),
        ("omp/omp", "omp"),
        (" subword-last / omp ", "subword-last/omp"),
        ("omp + calibration", "omp+calibration"),
        ("a/b+heal=5+calibration", "a/b+calibration+heal=5"),
        ("a+heal=0.5", "a+heal=0.5"),
    ],
)
def test_a_method_is_written_in_one_way(text: str, label: str) -> None:
    method = Method.parse(text)
    assert method.label == label
    assert Method.parse(label) == method


@pytest.mark.parametrize(
    "text",
    ["", "/", "a/", "/b", "a/b/c", "a+", "a+fold", "a+heal", "a+heal=", "a+heal=-1", "a+heal=inf",
     "a+calibration+calibration", "a+heal=1+heal=2", "+calibration"],
)  # fmt: skip
def test_what_is_no_method_is_refused(text: str) -> None:
    with pytest.raises(SettingError, match=r"names no method|ends in|minutes") as caught:
        Method.parse(text)
    assert "\n" not in str(caught.value)


def test_a_method_written_twice_in_two_ways_is_refused() -> None:
    with pytest.raises(SettingError, match="'a' is named twice"):
        parse_methods(["a", "b", "a/a"])


def test_a_table_is_what_evaluating_the_models_together_says(recipe: Recipe) -> None:
    table = compare(recipe, ["subword-mean", "mean", "subword-last/subword-first"])
    session = prepare(recipe)
    alignment = session.alignment
    entries = [Entry("source", session.model, alignment.source)]
    for name in ("subword-mean", "mean", "subword-last/subword-first"):
        one, _, two = name.partition("/")
        rows = patch_rows(session, (one, two or one), recipe.init)
        model = patched_model(session, rows)
        entries.append(Entry(name, model, alignment.target, alignment=alignment))
    texts = [
        json.loads(line)["text"]
        for line in Path(recipe.text.evaluation[0]).read_text("utf-8").splitlines()
    ]
    together = evaluate(entries, texts)
    assert table.evaluation.to_dict()["text"]["sha256"] == together.sha256
    for entry in together.entries:
        assert table.evaluation[entry.name] == entry


def test_one_methods_rows_are_in_memory_at_a_time(recipe: Recipe) -> None:
    most = []

    def count(done: int, total: int, what: str) -> None:
        if what.startswith("scoring"):
            gc.collect()
            most.append(sum(type(one) is PatchedRows for one in gc.get_objects()))

    gc.collect()
    before = sum(type(one) is PatchedRows for one in gc.get_objects())
    compare(recipe, ["mean", "subword-mean", "subword-last"], progress=count)
    assert max(most) - before == 1


def test_a_stopped_comparison_goes_on_where_it_was(recipe: Recipe, tmp_path: Path) -> None:
    methods, state = ["mean", "subword-mean", "subword-last"], tmp_path / "state"
    stopped = Watch(stop_at="subword-last")
    with pytest.raises(KeyboardInterrupt):
        compare(recipe, methods, state=state, progress=stopped)
    assert stopped.scored == ["source", "mean", "subword-mean"]
    second = Watch()
    table = compare(recipe, methods, state=state, progress=second)
    assert second.scored == ["source", "subword-last"]
    third = Watch()
    again = compare(recipe, methods, state=state, progress=third)
    assert third.scored == []
    assert again.to_dict() == table.to_dict()
    fresh = compare(recipe, methods).to_dict()
    for one, two in zip(fresh["rows"], again.to_dict()["rows"], strict=True):
        assert {**one, "seconds": None} == {**two, "seconds": None}
    assert fresh["evaluation"] == again.to_dict()["evaluation"]
    assert len(list(state.iterdir())) == 1 + len(methods)


def test_what_decides_a_figure_decides_what_is_kept(
    recipe: Recipe, tmp_path: Path, checkpoints: Checkpoints, world: Path
) -> None:
    state = tmp_path / "state"

    def scored(
        changed: Recipe, methods: tuple[str, ...] = ("random",), seeds: int = 1
    ) -> list[str]:
        watch = Watch()
        compare(changed, methods, state=state, seeds=seeds, progress=watch)
        return watch.scored

    assert scored(recipe) == ["source", "random"]
    assert scored(recipe) == []
    scale = {"random": {"scale": 0.5}}
    for changed in (
        recipe.model_copy(update={"seed": 1}),
        recipe.model_copy(update={"pad_to_multiple_of": 64}),
        recipe.model_copy(update={"source": str(checkpoints(seed=3))}),
        recipe.model_copy(update={"tokenizer": str(world / "source")}),
        recipe.model_copy(update={"init": recipe.init.model_copy(update={"settings": scale})}),
    ):
        assert "random" in scored(changed)
        assert scored(changed) == []
    other = recipe.model_copy(
        update={"init": recipe.init.model_copy(update={"settings": {"omp": {"k": 3}}})}
    )
    assert scored(other) == []
    assert scored(recipe, seeds=2) == ["source", "random"]
    assert scored(recipe, seeds=2) == []
    assert scored(recipe) == []


def test_more_seeds_go_on_from_those_that_are_done(recipe: Recipe, tmp_path: Path) -> None:
    methods, n_scored = ["random", "mean"], 0

    def count(done: int, total: int, what: str) -> None:
        nonlocal n_scored
        n_scored += what == "scoring random" and done == total

    compare(recipe, methods, state=tmp_path, seeds=2, progress=count)
    assert n_scored == 2
    table = compare(recipe, methods, state=tmp_path, seeds=3, progress=count)
    assert n_scored == 3
    fresh = compare(recipe, methods, seeds=3)
    for name in methods:
        assert row(table, name)["seed_range"] == row(fresh, name)["seed_range"]


def test_what_was_fitted_by_other_code_is_measured_again(
    fitted: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods = ["subword-mean", "subword-mean+calibration"]
    compare(fitted, methods, state=tmp_path / "state")
    monkeypatch.setattr("tokensurgeon.studies.comparison_state.fitting_hash", lambda: "other")
    watch = Watch()
    compare(fitted, methods, state=tmp_path / "state", progress=watch)
    assert watch.scored == ["source", "subword-mean+calibration"]


def test_a_damaged_or_foreign_file_is_measured_again(recipe: Recipe, tmp_path: Path) -> None:
    first = compare(recipe, ["mean"], state=tmp_path)
    kept = {path: path.read_text("utf-8") for path in tmp_path.iterdir()}
    for damage in (
        lambda text: text[:-60],
        lambda text: re.sub(r'("bits_per_byte": \d\.\d)\d', r"\g<1>0", text),
        lambda text: "[" * 100_000,
        lambda text: json.dumps({**json.loads(text), "result": {"row": {"gap": "x"}}}),
    ):
        for path, text in kept.items():
            path.write_text(damage(text), "utf-8")
            assert path.read_text("utf-8") != text
        watch = Watch()
        again = compare(recipe, ["mean"], state=tmp_path, progress=watch)
        assert watch.scored == ["source", "mean"]
        assert row(again, "mean")["bits_per_byte"] == row(first, "mean")["bits_per_byte"]
    with pytest.raises(UsageError, match="name another folder"):
        compare(recipe, ["mean"], state=next(iter(tmp_path.iterdir())))


def test_only_what_is_random_has_a_range(recipe: Recipe) -> None:
    table = compare(recipe, ["random", "subword-mean", "subword-last/random"], seeds=3)
    assert row(table, "subword-mean")["seed_range"] is None
    for name in ("random", "subword-last/random"):
        low, high = row(table, name)["seed_range"]
        assert low <= row(table, name)["bits_per_byte"] <= high
        assert low < high
    alone = [
        row(compare(recipe.model_copy(update={"seed": seed}), ["random"]), "random")
        for seed in range(3)
    ]
    values = [one["bits_per_byte"] for one in alone]
    assert row(table, "random")["seed_range"] == [min(values), max(values)]


def test_the_share_of_the_gap_that_is_closed(recipe: Recipe, tmp_path: Path) -> None:
    plain = compare(recipe, ["mean", "subword-mean"])
    source, start = row(plain, "source"), row(plain, "subword-mean")["bits_per_byte"]
    at_mean = row(plain, "mean")["bits_per_byte"]
    limit = start - 0.1
    told = compare(recipe, ["mean", "subword-mean"], trained_limit=KnownLimit(limit))
    assert row(told, "subword-mean")["closed"] == 0
    assert row(told, "mean")["closed"] == pytest.approx((start - at_mean) / 0.1)
    assert row(told, "source")["closed"] is None
    file = tmp_path / "limit.json"
    bits = source["bits_per_byte"]
    file.write_text(json.dumps({"source": bits, "limit": limit, "start": start + 0.1, "x": 1}))
    told = compare(recipe, ["subword-mean"], trained_limit=KnownLimit.parse(str(file)))
    assert row(told, "subword-mean")["closed"] == pytest.approx(0.5)
    with pytest.raises(UsageError, match="on the same text"):
        compare(recipe, ["mean"], trained_limit=KnownLimit(limit, source=bits + 0.01))
    with pytest.raises(UsageError, match="no gap to recover"):
        compare(recipe, ["mean"], trained_limit=KnownLimit(limit, start=limit))


@pytest.mark.parametrize("text", ["nan", "-1", "nowhere.json", "{}", ""])
def test_what_is_no_trained_limit_is_refused(text: str, tmp_path: Path) -> None:
    if text == "{}":
        (tmp_path / "empty.json").write_text(text)
        text = str(tmp_path / "empty.json")
    with pytest.raises(SettingError, match="is no trained limit"):
        KnownLimit.parse(text)


def test_an_unknown_method_is_refused_before_anything_is_measured(recipe: Recipe) -> None:
    watch = Watch()
    with pytest.raises(UnknownNameError, match="subword-mean"):
        compare(recipe, ["mean", "subword-maen"], progress=watch)
    assert watch.scored == []


@pytest.fixture
def fitted(recipe: Recipe, tmp_path: Path) -> Recipe:
    text, other = tmp_path / "calibration.jsonl", tmp_path / "other.txt"
    text.write_text("\n".join(map(json.dumps, LINES)))
    other.write_text("Der Hund schläft, und der Fuchs sieht ihm dabei zu. " * 4)
    texts = {"calibration": (str(text),), "other": (str(other),)}
    return recipe.model_copy(update={"text": recipe.text.model_copy(update=texts)})


def test_healing_goes_on_from_the_calibrated_rows(fitted: Recipe, tmp_path: Path) -> None:
    names = ["subword-mean+calibration", "subword-mean+calibration+heal=0.1"]
    fits: list[str] = []

    def watch(done: int, total: int, what: str) -> None:
        if what == "calibrating: prior":
            fits.append(what)

    table = compare(fitted, names, state=tmp_path / "state", progress=watch)
    assert len(fits) == 1
    calibrated, healed = (table.stages[name] for name in names)
    assert [record["stage"] for record in healed[-2:]] == ["heal", "refit"]
    assert healed[:-2] == calibrated[:-1]
    assert calibrated[-1]["stage"] == "refit"
    assert row(table, names[1])["forward_tokens"] > row(table, names[0])["forward_tokens"]
    alone = compare(fitted, names[1:])
    bits = [row(each, names[1])["bits_per_byte"] for each in (table, alone)]
    assert bits[0] == pytest.approx(bits[1], abs=1e-6)
    assert len(fits) == 1
    again = compare(fitted, names, state=tmp_path / "state", progress=watch)
    assert len(fits) == 1
    assert again.to_dict() == table.to_dict()


def test_fitted_and_trained_rows_say_what_they_took(fitted: Recipe, tmp_path: Path) -> None:
    methods = ["subword-mean", "subword-mean+calibration", "subword-mean+heal=0.1"]
    table = compare(fitted, methods, state=tmp_path / "state")
    plain, calibrated, healed = (row(table, name) for name in methods)
    assert [one["error"] for one in (plain, calibrated, healed)] == [None] * 3
    assert plain["text_bytes"] == plain["gradient_steps"] == plain["forward_tokens"] == 0
    assert calibrated["text_bytes"] == healed["text_bytes"] == len("".join(LINES))
    assert calibrated["forward_tokens"] > 0
    assert calibrated["gradient_steps"] == 0 < healed["gradient_steps"]
    assert calibrated["gap_adapted"] is None
    adapted = compare(fitted, methods, state=tmp_path / "state", adapted=True)
    assert row(adapted, methods[0])["gap_adapted"] is None
    kept = {
        data["decided_by"].get("method", "source"): data["result"]["entry"]["bits_per_byte"]
        for path in (tmp_path / "state").iterdir()
        if path.name.startswith("source") and (data := json.loads(path.read_text("utf-8")))
    }
    for name in methods[1:]:
        one = row(adapted, name)
        base = one["bits_per_byte"] - one["gap_adapted"]
        assert any(base == pytest.approx(bits) for bits in kept.values())
    assert any(name.startswith("source+") for name in kept)
    again = Watch()
    compare(fitted, methods, state=tmp_path / "state", progress=again)
    assert again.scored == []
    compare(
        fitted.model_copy(update={"calibrate": ()}),
        methods,
        state=tmp_path / "state",
        progress=again,
    )
    assert "subword-mean" not in again.scored
    assert again.scored == ["source", *methods[1:]]


def test_the_default_of_the_pair_can_be_named(recipe: Recipe) -> None:
    table = compare(recipe, ["default", "hidden-residual/subword-mean", "default/mean"])
    assert {one["method"] for one in table.rows} == {
        "source", "hidden-residual/subword-mean", "hidden-residual/mean",
    }  # fmt: skip
    assert table.facts["default"] == "hidden-residual/subword-mean"


def test_csv_has_a_column_per_number(recipe: Recipe) -> None:
    table = compare(recipe, ["random", "mean"], seeds=2)
    lines = {one["method"]: one for one in csv.DictReader(io.StringIO(table.to_csv()))}
    assert float(lines["random"]["seed_low"]) == row(table, "random")["seed_range"][0]
    assert float(lines["mean"]["interval_high"]) == row(table, "mean")["interval"][1]
    assert lines["mean"]["seed_low"] == lines["source"]["interval_low"] == ""

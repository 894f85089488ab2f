"""Composers that learn from the source's own tokens: planted rules are found again."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from tokensurgeon.errors import InitialiserError, SettingError
from tokensurgeon.initialisers import build
from tokensurgeon.initialisers.check import ExampleStates, example_context
from tokensurgeon.initialisers.numerics.composer import Features, whiten
from tokensurgeon.initialisers.respelling import forbidden_self
from tokensurgeon.spaces.work import Work


def spell(context, cuts: int = 3, seed: int = 0):
    return forbidden_self(
        context.source,
        np.flatnonzero(context.anchors),
        context.n_source,
        cuts=cuts,
        parts=[len(p) for p in context.pieces],
        generator=np.random.default_rng(seed),
    )


def test_a_token_is_spelled_exactly_and_never_with_itself():
    context = example_context()
    owners, spellings = spell(context)
    table = context.source.token_bytes
    assert len(owners) == len(spellings) > 0
    for owner, pieces in zip(owners.tolist(), spellings, strict=True):
        assert b"".join(table[p] for p in pieces) == table[owner]
        assert owner not in pieces
        assert len(pieces) > 1
    assert set(owners) == {i for i in np.flatnonzero(context.anchors) if len(table[i] or b"") > 1}


def test_without_cuts_there_is_one_spelling_per_token():
    owners, spellings = spell(example_context(), cuts=0)
    assert len(set(owners.tolist())) == len(owners)
    many, _ = spell(example_context(), cuts=5)
    assert len(many) > len(owners)
    assert len(set(zip(owners, spellings, strict=True))) == len(owners)


def test_spellings_are_a_matter_of_the_seed():
    context = example_context()
    assert spell(context, seed=1)[1] == spell(context, seed=1)[1]
    assert spell(context, seed=1)[1] != spell(context, seed=2)[1]


def test_ids_without_a_row_are_not_used():
    context = example_context()
    n_rows = 100
    ids = np.flatnonzero(context.anchors[:n_rows])
    _, spellings = forbidden_self(
        context.source, ids, n_rows, cuts=3, parts=[2], generator=np.random.default_rng(0)
    )
    assert all(piece < n_rows for pieces in spellings for piece in pieces)


def planted(context, share: float):
    """Return a context whose tokens of several bytes follow from pieces by a linear rule.

    The rule reads first, mean and last piece; it is laid down in order of length, each token by
    the spelling that the composer sees without random cuts.
    """
    rng = np.random.default_rng(3)
    rows = context.output_rows.copy()
    width = rows.shape[1]
    rules = [rng.standard_normal((width, width)) * share / np.sqrt(width) for _ in range(2)]
    owners, spellings = spell(context, cuts=0)
    table = context.source.token_bytes
    for i in sorted(range(len(owners)), key=lambda i: len(table[owners[i]])):
        pieces = list(spellings[i])
        made = rows[pieces].mean(axis=0) + rows[pieces[0]] @ rules[0] + rows[pieces[-1]] @ rules[1]
        rows[owners[i]] = made

    def rule(pieces):
        pieces = list(pieces)
        made = rows[pieces].mean(axis=0) + rows[pieces[0]] @ rules[0] + rows[pieces[-1]] @ rules[1]
        return made

    return dataclasses.replace(context, output_rows=rows), rule


def test_a_planted_composition_is_recovered():
    """With many tokens that follow a rule, missing tokens follow it."""
    from tokensurgeon.alignment import align
    from tokensurgeon.initialisers.check import _byte_level
    from tokensurgeon.vocabulary import Kind, vocabulary_from_tokenizer

    rng = np.random.default_rng(0)
    letters = "abcdefghijkl"
    words = ["".join(rng.choice(list(letters), 2)) for _ in range(400)]
    words = list(dict.fromkeys(words))
    source = vocabulary_from_tokenizer(_byte_level(words[:100]))
    target = vocabulary_from_tokenizer(_byte_level([*words[:100], *words[100:]]))
    alignment = align(source, target)
    pieces = tuple(source.pieces_of(target.token_bytes[i]) for i in alignment.missing)
    rows = rng.standard_normal((source.n_rows, 6)).astype(np.float32)
    base = example_context(extras="bare")
    context = dataclasses.replace(
        base,
        alignment=alignment,
        missing=alignment.missing,
        pieces=pieces,
        input_rows=rng.standard_normal(rows.shape).astype(np.float32),
        output_rows=rows,
        anchors=np.asarray(source.kinds == Kind.ORDINARY),
    )
    context, rule = planted(context, share=0.5)
    mean = build("subword-mean", {})(context).output.values(context.output_rows)
    new = build("ridge-composer", {"cuts": 0, "alpha": 1.0})(context)
    made = new.output.values(context.output_rows)
    wanted = np.stack([rule(p) for p in pieces])
    limit = np.quantile(np.linalg.norm(context.output_rows[context.anchors], axis=1), 0.99)
    inside = np.linalg.norm(wanted, axis=1) < limit
    error = np.linalg.norm((made - wanted)[inside]) / np.linalg.norm((mean - wanted)[inside])
    assert error < 0.05


@pytest.mark.parametrize("tied", [False, True])
def test_alpha_zero_is_the_mean_of_the_pieces(tied: bool):
    context = example_context(tied=tied)
    made = build("ridge-composer", {"alpha": 0.0})(context)
    mean = build("subword-mean", {})(context)
    for side, other, rows in (
        (made.input, mean.input, context.input_rows),
        (made.output, mean.output, context.output_rows),
    ):
        assert side.values(rows) == pytest.approx(other.values(rows), abs=1e-5)
    assert (made.input is made.output) == tied


def test_composed_rows_are_not_longer_than_trained_ones():
    context = example_context()
    long = dataclasses.replace(context, output_rows=context.output_rows.copy())
    long.output_rows[:100] *= 30
    for alpha in (0.5, 1.0):
        made = build("ridge-composer", {"alpha": alpha})(long).output.values(long.output_rows)
        limit = np.quantile(np.linalg.norm(long.output_rows[long.anchors], axis=1), 0.99)
        assert np.linalg.norm(made, axis=1).max() <= limit * 1.0001


def test_features_see_the_ends_the_mean_and_the_count():
    context = example_context()
    whitened = whiten(context.output_rows, context.anchors, Work())(context.output_rows)
    trained = whitened[context.anchors].astype(np.float64)
    assert np.cov(trained.T, bias=True) == pytest.approx(np.eye(trained.shape[1]), abs=1e-3)
    found = Features(whitened, [(5, 6, 7), (8, 9)])(np.array([0]))
    width = whitened.shape[1]
    assert found[0, :width] == pytest.approx(whitened[5], abs=1e-6)
    assert found[0, width : 2 * width] == pytest.approx(whitened[5:8].mean(axis=0), abs=1e-5)
    assert found[0, 2 * width : 3 * width] == pytest.approx(whitened[7], abs=1e-6)
    assert found[0, 3 * width :].tolist() == [0, 1, 0, 0, 0]


def test_a_small_budget_leaves_the_strongest_directions():
    context = example_context()
    rows = context.output_rows * np.linspace(1, 3, context.width, dtype=np.float32)
    few = whiten(rows, context.anchors, Work(memory_budget=32 * (3 * 5) ** 2))(rows)
    every = whiten(rows, context.anchors, Work())(rows)
    assert few.shape[1] == 5
    assert few == pytest.approx(every[:, -5:], abs=1e-4)
    small = dataclasses.replace(context, memory_budget=32 * 15**2)
    made = build("ridge-composer", {})(small)
    assert np.isfinite(made.output.values(small.output_rows)).all()


def test_a_source_of_single_bytes_teaches_nothing():
    context = example_context()
    short = np.array([len(b or b"") == 1 for b in context.source.token_bytes])
    anchors = context.anchors.copy()
    anchors[: len(short)] &= short
    with pytest.raises(InitialiserError, match="can spell 0 of"):
        build("ridge-composer", {})(dataclasses.replace(context, anchors=anchors))


class Planted(ExampleStates):
    """States that are a linear image of the mean of the pieces' rows, whatever the layer."""

    n_layers = 5

    def __init__(self, rows, turn) -> None:
        super().__init__(rows)
        self._turn = turn
        self.width = turn.shape[1]
        self.asked: list[int] = []
        self.places: list[int] = []

    def __call__(self, ids, layer, position_ids=None):
        self.asked.append(layer)
        if position_ids is not None:
            self.places += [each[-1] for each in position_ids]
        inner = [list(each)[-(len(each) - 1) :] for each in ids]
        made = [self._embeddings[each].mean(axis=0) @ self._turn for each in inner]
        return np.array(made, np.float32)


@pytest.fixture
def linear():
    """A surgery whose states tell the mean of the pieces' input rows, in another width."""
    context = example_context()
    rng = np.random.default_rng(0)
    turn = rng.standard_normal((context.width, context.width + 4)).astype(np.float32)
    second = rng.standard_normal((context.width, context.width)).astype(np.float32)
    return dataclasses.replace(
        context,
        output_rows=context.input_rows @ second + np.float32(1),
        states=Planted(context.input_rows, turn),
    )


def test_a_linear_map_from_states_to_rows_is_found_for_both_sides(linear):
    made = build("hidden-state", {})(linear)
    for side, rows in ((made.input, linear.input_rows), (made.output, linear.output_rows)):
        wanted = np.stack([rows[list(p)].mean(axis=0) for p in linear.pieces])
        assert side.values(rows) == pytest.approx(wanted, abs=0.05 * float(np.abs(wanted).max()))


def test_alpha_draws_towards_the_mean_row(linear):
    nothing = build("hidden-state", {"alpha": 0.0})(linear).input.values(linear.input_rows)
    mean = linear.input_rows[linear.anchors].mean(axis=0)
    assert nothing == pytest.approx(np.broadcast_to(mean, nothing.shape), abs=1e-5)


def test_trained_tokens_stand_where_words_end(linear):
    build("hidden-state", {})(linear)
    ends = {len(linear.prefix) - 1 + len(p) for p in linear.pieces}
    assert set(linear.states.places) <= ends
    assert len(linear.states.places) == linear.anchors.sum()


def test_the_layer_is_two_fifths_of_the_depth_and_said(linear):
    method: Any = build("hidden-state", {})
    assert method.resolved(linear).layer == 2
    method(linear)
    assert set(linear.states.asked) == {2}
    with pytest.raises(SettingError, match=r"hidden-state\.layer is 6; this model has 5 blocks"):
        build("hidden-state", {"layer": 6})(linear)


def test_hidden_state_without_a_model_names_a_way_out():
    with pytest.raises(InitialiserError, match="Use 'subword-mean'"):
        build("hidden-state", {})(example_context(extras="donor"))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("ridge-composer", {"cuts": -1}),
        ("ridge-composer", {"alpha": 1.5}),
        ("hidden-state", {"layer": 0}),
        ("hidden-state", {"alpha": -0.5}),
    ],
)
def test_a_value_out_of_range_is_refused_with_the_number(name: str, settings: dict[str, float]):
    ((key, value),) = settings.items()
    with pytest.raises(SettingError, match=f"{name}.{key} must .*got {value}"):
        build(name, settings)

"""The anchor methods: which space they take, what twins and strangers get, and the presets."""

from __future__ import annotations

import dataclasses
from typing import Any, get_args

import numpy as np
import pytest

from tokensurgeon.errors import InitialiserError, SettingError
from tokensurgeon.initialisers import DonorRows, build, check_initialiser
from tokensurgeon.initialisers.anchor_spaces import SpaceName, SpaceSpec, locate, shared_pairs
from tokensurgeon.initialisers.check import ExampleStates, example_context
from tokensurgeon.initialisers.methods.anchors import CombinerName

SPACES: tuple[SpaceName, ...] = ("donor", "co-occurrence", "hidden-states", "ngrams")
PRESETS = ("wechsel", "focus", "clp", "tokenadapt", "tokenadapt-local", "tokenadapt-global")


def weights_of(side, context) -> np.ndarray:
    assert side.dense is None
    assert side.virtual is None
    assert side.weights.shape == (context.n_missing, context.n_source)
    return side.weights.toarray()


def twin(context, number: int = 0):
    """Return a context whose donor gives missing token `number` the row of a shared token."""
    targets, source_ids = shared_pairs(context, context.donor.known)
    token = int(context.missing[number])
    sides = [context.donor.input.copy(), context.donor.output.copy()]
    for rows in sides:
        rows[token] = rows[targets[11]]
    known = context.donor.known.copy()
    known[token] = True
    donor = DonorRows(input=sides[0], output=sides[1], known=known)
    return dataclasses.replace(context, donor=donor), int(source_ids[11])


@pytest.mark.parametrize(
    ("space", "combiner"),
    [
        *((space, "nearest") for space in SPACES),
        *(("donor", combiner) for combiner in get_args(CombinerName)[1:]),
        ("co-occurrence", "omp"),  # few anchors, and tokens that it does not know
        ("hidden-states", "sparsemax"),
    ],
)
def test_any_space_and_any_combiner_keep_the_contract(space: str, combiner: str):
    check_initialiser(build("anchors", {"space": space, "combiner": combiner, "k": 4}))


def test_the_space_of_a_file_of_no_encoder_is_refused(tmp_path):
    assert set(SPACES) | {"encoder"} == set(get_args(SpaceName))
    with pytest.raises(SettingError, match="needs the folder of a text encoder"):
        build("anchors", {"space": "encoder"})
    with pytest.raises(InitialiserError, match=r"config\.json"):
        build("tokenadapt", {"encoder": str(tmp_path)})(example_context())


@pytest.mark.parametrize("name", ["anchors", "wechsel", "focus", "tokenadapt-global"])
def test_an_exact_twin_takes_all_as_the_temperature_falls(name: str):
    context, source_id = twin(example_context())
    combiner = {"combiner": "nearest"} if name == "anchors" else {}
    new = build(name, {"space": "donor", "temperature": 1e-3, **combiner})(context)
    for side in (new.input, new.output):
        row = weights_of(side, context)[0]
        assert row[source_id] == pytest.approx(1, abs=1e-5)


def test_omp_and_ridge_find_a_twin_too():
    context, source_id = twin(example_context())
    settings = {"space": "donor", "combiner": "omp", "k": 1, "centre": False}
    row = weights_of(build("anchors", settings)(context).output, context)[0]
    assert np.flatnonzero(row).tolist() == [source_id]
    # A linear map from the donor's rows to the source's is found where there is one.
    turn = np.random.default_rng(0).standard_normal((12, context.width)).astype(np.float32)
    targets, source_ids = shared_pairs(context, context.donor.known)
    rows = context.output_rows.copy()
    rows[source_ids] = context.donor.output[targets] @ turn
    linear = dataclasses.replace(context, output_rows=rows)
    found = build("anchors", {"space": "donor", "combiner": "ridge"})(linear)
    known = context.donor.known[context.missing]
    wanted = context.donor.output[context.missing[known]] @ turn
    assert found.output.values(rows)[known] == pytest.approx(wanted, abs=1e-2)


def test_what_the_space_does_not_know_gets_the_mean_of_its_pieces():
    context = example_context()
    known = context.donor.known.copy()
    known[context.missing[3]] = False
    context = dataclasses.replace(context, donor=dataclasses.replace(context.donor, known=known))
    mean = build("subword-mean", {})(context)
    for combiner in get_args(CombinerName):
        new = build("anchors", {"space": "donor", "combiner": combiner})(context)
        for side, other, rows in (
            (new.input, mean.input, context.input_rows),
            (new.output, mean.output, context.output_rows),
        ):
            made, pieces = side.values(rows), other.values(rows)
            assert made[3] == pytest.approx(pieces[3], abs=1e-6)
            assert not np.allclose(made[0], pieces[0], atol=1e-3)


def test_both_sides_get_the_same_weights_but_in_a_donors_space():
    context = example_context()
    for space in ("co-occurrence", "ngrams", "hidden-states"):
        new = build("wechsel", {"space": space})(context)
        assert abs(new.input.weights - new.output.weights).max() == 0
    new = build("wechsel", {"space": "donor"})(context)
    assert abs(new.input.weights - new.output.weights).max() > 0


@pytest.mark.parametrize("name", ["anchors", *PRESETS])
def test_a_tied_matrix_gets_one_answer(name: str):
    new = build(name, {})(example_context(tied=True))
    assert new.input is new.output


@pytest.mark.parametrize("name", ["anchors", *PRESETS])
def test_the_order_of_the_missing_tokens_does_not_matter(name: str):
    context = example_context()
    order = np.random.default_rng(2).permutation(context.n_missing)
    mixed = dataclasses.replace(
        context, missing=context.missing[order], pieces=tuple(context.pieces[i] for i in order)
    )
    for settings in ({"space": "ngrams"}, {"space": "donor"}):
        initialiser = build(name, settings)
        straight, other = initialiser(context), initialiser(mixed)
        rows = context.output_rows
        wanted = straight.output.values(rows)[order]
        assert other.output.values(rows) == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize("name", ["anchors", *PRESETS])
def test_the_space_is_chosen_by_what_is_at_hand_and_said(name: str):
    everything = example_context()
    without = dataclasses.replace(everything, donor=None)
    bare = example_context(extras="bare")
    for context, space in ((everything, "donor"), (without, "co-occurrence"), (bare, "ngrams")):
        method: Any = build(name, {})
        assert method.resolved(context).space == space
        chosen = build(name, {"space": space})(context).output.values(context.output_rows)
        assert np.array_equal(method(context).output.values(context.output_rows), chosen)
    assert SpaceSpec(encoder="x").resolved_space(everything) == "encoder"


def test_what_a_space_is_made_of_is_asked_for():
    bare = example_context(extras="bare")
    for space, word in (
        ("donor", "--donor"),
        ("co-occurrence", "--calibration-text"),
        ("hidden-states", "not at hand"),
    ):
        with pytest.raises(InitialiserError, match=word):
            build("anchors", {"space": space})(bare)


def test_a_space_is_computed_once_and_never_for_another_surgery():
    context = example_context()
    first = locate(context, SpaceSpec("ngrams"), "input", "x")
    assert len(context.cache) == 1
    second = locate(context, SpaceSpec("ngrams"), "output", "y")
    assert np.shares_memory(first.missing, second.missing)
    fewer = dataclasses.replace(
        context, missing=context.missing[:2], pieces=tuple(context.pieces[:2])
    )
    assert fewer.cache == {}
    assert locate(fewer, SpaceSpec("ngrams"), "input", "x").missing.shape[0] == 2


def test_hidden_states_are_run_for_every_method_that_asks():
    class Counting(ExampleStates):
        n = 0

        def __call__(self, ids, layer, position_ids=None):
            Counting.n += len(ids)
            return super().__call__(ids, layer, position_ids)

    base = example_context()
    context = dataclasses.replace(base, states=Counting(base.input_rows))
    build("anchors", {"space": "hidden-states"})(context)
    once = Counting.n
    assert once == context.n_missing + context.anchors.sum()
    build("wechsel", {"space": "hidden-states"})(context)
    assert Counting.n == 2 * once


def test_anchors_are_trained_and_each_counts_once():
    context = example_context()
    untrained = context.anchors.copy()
    targets, source_ids = shared_pairs(context, np.ones(context.target.n_rows, dtype=bool))
    untrained[source_ids[:5]] = False
    fewer = dataclasses.replace(context, anchors=untrained)
    for space in SPACES:
        located = locate(fewer, SpaceSpec(space), "input", "x")
        assert not set(source_ids[:5]) & set(located.source_ids)
        assert len(set(located.source_ids)) == len(located.source_ids)
    assert len(targets) == len(set(targets.tolist()))


def test_shared_only_leaves_the_rest_of_the_source_out():
    context = example_context()
    _, shared = shared_pairs(context, np.ones(context.target.n_rows, dtype=bool))
    keep = context.alignment.source_ids.copy()
    match = context.alignment.match.copy()
    gone = np.flatnonzero(keep == shared[0])
    keep[gone], match[gone] = -1, 0
    context = dataclasses.replace(
        context, alignment=context.alignment.with_matches(keep, match, "one less")
    )
    everywhere = locate(context, SpaceSpec("ngrams"), "input", "x").source_ids
    only = locate(context, SpaceSpec("ngrams", shared_only=True), "input", "x").source_ids
    assert shared[0] in everywhere
    assert set(everywhere) - set(only) == {shared[0]}


def test_no_anchor_is_an_error_with_a_way_out():
    context = example_context()
    none = dataclasses.replace(context, anchors=np.zeros_like(context.anchors))
    with pytest.raises(InitialiserError, match=r"finds 0 anchors.*'donor'"):
        build("wechsel", {})(none)


def test_tokenadapt_is_seven_parts_local_and_three_parts_global():
    context = example_context()
    for space in SPACES:
        whole, local, far = (
            build(name, {"space": space})(context)
            for name in ("tokenadapt", "tokenadapt-local", "tokenadapt-global")
        )
        located = locate(context, SpaceSpec(space), "output", "x")
        answered = located.known & (located.missing != 0).any(axis=1)
        share = np.where(answered, 0.3, 0.0)[:, None]
        wanted = (1 - share) * local.output.weights.toarray()
        wanted += share * far.output.weights.toarray()
        assert whole.output.weights.toarray() == pytest.approx(wanted, abs=1e-9)
        assert wanted.sum(axis=1) == pytest.approx(1)


def test_tokenadapts_local_weights_are_the_published_formula():
    context = example_context()
    made = weights_of(build("tokenadapt-local", {"space": "ngrams"})(context).output, context)
    located = locate(context, SpaceSpec("ngrams"), "output", "x")
    where = {int(s): i for i, s in enumerate(located.source_ids)}

    def softmax(values):
        powers = np.exp(np.asarray(values) - np.max(values))
        return powers / powers.sum()

    for i, pieces in enumerate(context.pieces):
        query = located.missing[i] / np.linalg.norm(located.missing[i])
        near = [located.anchors[where[p]] for p in pieces]
        cosines = [float(query @ (v / np.linalg.norm(v))) for v in near]
        lengths = np.array([len(context.source.token_bytes[p]) for p in pieces], float)
        wanted = np.zeros(context.n_source)
        scores = (softmax(cosines) + lengths / lengths.sum()) / 2
        np.add.at(wanted, list(pieces), softmax(scores / 0.3))
        assert made[i] == pytest.approx(wanted, abs=1e-6)


def test_a_piece_that_is_not_finite_is_left_out():
    context = example_context()
    rows = context.output_rows.copy()
    piece = context.pieces[0][0]
    rows[piece] = np.nan
    anchors = context.anchors.copy()
    anchors[piece] = False
    broken = dataclasses.replace(context, output_rows=rows, anchors=anchors)
    for name in ("anchors", *PRESETS):
        new = build(name, {"space": "ngrams"})(broken)
        assert np.isfinite(new.output.values(np.nan_to_num(rows))).all()
        if new.output.weights is not None:
            assert new.output.weights[:, [piece]].nnz == 0


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("anchors", {"k": 0}),
        ("anchors", {"temperature": 0}),
        ("anchors", {"layer": -1}),
        ("wechsel", {"dim": 0}),
        ("focus", {"temperature": -1}),
        ("clp", {"k": 0}),
        ("tokenadapt", {"share": 1.5}),
        ("tokenadapt-global", {"k": 0}),
    ],
)
def test_a_value_out_of_range_is_refused_with_the_number(name: str, settings: dict[str, float]):
    ((key, value),) = settings.items()
    with pytest.raises(SettingError, match=f"{name}.{key} must .*got {value}"):
        build(name, settings)


def test_a_tied_donor_is_combined_once(monkeypatch: pytest.MonkeyPatch) -> None:
    context = example_context(tied=False)
    donor = context.donor
    assert donor is not None
    method = build("anchors", {"space": "donor", "combiner": "nearest"})
    once = dataclasses.replace(context, donor=dataclasses.replace(donor, input=donor.output))
    twice = dataclasses.replace(
        context, donor=dataclasses.replace(donor, input=donor.output.copy())
    )
    located: list[str] = []

    def counted(context, spec, side, name):
        located.append(side)
        return locate(context, spec, side, name)

    monkeypatch.setattr("tokensurgeon.initialisers.methods.anchors.locate", counted)
    found = method(once)
    assert located == ["output"]
    expected = method(twice)
    assert located == ["output", "input", "output"]
    for side, rows in (("input", context.input_rows), ("output", context.output_rows)):
        values = getattr(found, side).values(rows)
        assert np.allclose(values, getattr(expected, side).values(rows))

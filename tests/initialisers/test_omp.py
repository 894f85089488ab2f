"""Matching pursuit: recovery, agreement with the oracle, and survival of bad dictionaries."""

from __future__ import annotations

import dataclasses
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokensurgeon.errors import InitialiserError
from tokensurgeon.initialisers import build
from tokensurgeon.initialisers.anchor_spaces import shared_pairs
from tokensurgeon.initialisers.check import example_context
from tokensurgeon.initialisers.methods.omp import OMP
from tokensurgeon.initialisers.numerics.dictionary import Dictionary
from tokensurgeon.initialisers.numerics.pursuit import Pursuit, greedy_choice, pursue
from tokensurgeon.initialisers.numerics.shortlist import shortlist_choice
from tokensurgeon.spaces.work import Work


def planted(n: int, n_atoms: int, width: int, k: int, seed: int = 0):
    """Return unit atoms, sparse weights and the targets that they make."""
    rng = np.random.default_rng(seed)
    atoms = rng.standard_normal((n_atoms, width)).astype(np.float32)
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    weights = np.zeros((n, n_atoms))
    for row in weights:
        signs = rng.choice([-1.0, 1.0], k)
        row[rng.choice(n_atoms, k, replace=False)] = signs * rng.uniform(1.0, 2.0, k)
    return atoms, weights, (weights @ atoms).astype(np.float32)


def dense(found: Pursuit, n_atoms: int) -> np.ndarray:
    weights = np.zeros((len(found.support), n_atoms))
    for row, ids, values in zip(weights, found.support, found.coefficients, strict=True):
        np.add.at(row, ids[ids >= 0], values[ids >= 0])
    return weights


def published(atoms: np.ndarray, x: np.ndarray, k: int) -> float:
    """Return the relative residual of the plain recipe: raw atoms, least squares at each step."""
    chosen: list[int] = []
    residual = x.astype(np.float64)
    for _ in range(k):
        scores = np.abs(atoms @ residual)
        scores[chosen] = -1
        chosen.append(int(scores.argmax()))
        solved, *_ = np.linalg.lstsq(atoms[chosen].T.astype(np.float64), x, rcond=None)
        residual = x - solved @ atoms[chosen]
    return float(np.linalg.norm(residual) / np.linalg.norm(x))


both_choices = pytest.mark.parametrize("exact", [True, False], ids=["exact", "shortlist"])


@both_choices
@pytest.mark.parametrize("k", [4, 12])
def test_a_planted_mixture_is_recovered_and_nothing_is_added_to_it(exact: bool, k: int):
    atoms, weights, targets = planted(30, 300, 192, 4)
    found = pursue(atoms, targets, k, exact=exact)
    assert dense(found, 300) == pytest.approx(weights, abs=1e-4)
    assert found.residual.max() < 1e-5
    assert ((found.support >= 0).sum(axis=1) == 4).all()


def test_it_agrees_with_scikit_learn_on_unit_atoms():
    from sklearn.linear_model import orthogonal_mp_gram

    atoms, _, targets = planted(20, 300, 32, 6, seed=1)
    targets += 0.05 * np.random.default_rng(2).standard_normal(targets.shape).astype(np.float32)
    wide, aim = atoms.astype(np.float64), targets.astype(np.float64)
    oracle = orthogonal_mp_gram(wide @ wide.T, wide @ aim.T, n_nonzero_coefs=6).T
    exact = dense(pursue(atoms, targets, 6, exact=True), 300)
    assert np.array_equal(exact != 0, oracle != 0)
    assert exact == pytest.approx(oracle, abs=1e-3)


def lengths_of_noise(rng: np.random.Generator):
    atoms = rng.standard_normal((5000, 96)) * rng.lognormal(0.0, 0.3, (5000, 1))
    return atoms, rng.standard_normal((40, 96))


def rows_with_a_common_direction(rng: np.random.Generator):
    """As in output matrices of real models: the first atoms change everything."""
    topics = rng.standard_normal((60, 96)) / 6
    mean = 2 * rng.standard_normal(96)
    rows = rng.standard_normal((5040, 60)) @ topics + 0.2 * rng.standard_normal((5040, 96))
    rows = (rows + mean) * rng.lognormal(0.0, 0.4, (5040, 1))
    return rows[:5000], rows[5000:]


@pytest.mark.parametrize("make", [lengths_of_noise, rows_with_a_common_direction])
@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("k", [4, 12])
def test_few_searches_leave_no_more_than_the_greedy_choice(make, normalise: bool, k: int):
    atoms, targets = (each.astype(np.float32) for each in make(np.random.default_rng(8)))
    exact = pursue(atoms, targets, k, normalise=normalise, exact=True)
    shortlisted = pursue(atoms, targets, k, normalise=normalise)
    # Among unit atoms of pure noise the two are even; there a hundredth is granted.
    slack = 1.01 if normalise and make is lengths_of_noise else 1.0
    assert shortlisted.residual.mean() <= slack * exact.residual.mean()
    assert ((shortlisted.support >= 0).sum(axis=1) == k).all()
    for ids in shortlisted.support:
        assert len(set(ids.tolist())) == k


def test_few_searches_are_few():
    """The point of it: noise of the size of real vocabularies needs a search or two."""
    atoms, targets = (
        each.astype(np.float32) for each in lengths_of_noise(np.random.default_rng(9))
    )
    searched: list[int] = []

    class Counting(Dictionary):
        def correlate(self, residual, width=None):
            searched.append(len(residual))
            return super().correlate(residual, width)

    import torch

    with torch.no_grad():
        for choose, most in ((shortlist_choice, 3), (greedy_choice, 12)):
            searched.clear()
            choose(
                Counting(atoms, torch.device("cpu"), False), torch.from_numpy(targets), 12, 0, None
            )
            assert 1 <= sum(searched) / len(targets) <= most


def test_the_residual_is_that_of_the_coefficients():
    atoms, targets = (
        each.astype(np.float32) for each in lengths_of_noise(np.random.default_rng(10))
    )
    found = pursue(atoms, targets, 8, normalise=False)
    left = targets - dense(found, len(atoms)) @ atoms
    told = np.linalg.norm(left, axis=1) / np.linalg.norm(targets, axis=1)
    assert found.residual == pytest.approx(told, abs=1e-4)
    for x, ids, left_over in zip(targets, found.support, found.residual, strict=True):
        best = np.linalg.lstsq(atoms[ids].T.astype(np.float64), x, rcond=None)[1][0]
        assert left_over == pytest.approx(np.sqrt(best) / np.linalg.norm(x), abs=1e-5)


def test_the_two_step_search_finds_the_best():
    import torch

    rng = np.random.default_rng(11)
    atoms = rng.standard_normal((1001, 24)).astype(np.float32)
    targets = rng.standard_normal((7, 24)).astype(np.float32)
    dictionary = Dictionary(atoms, torch.device("cpu"), False)
    support = torch.full((7, 2), -1)
    support[0] = torch.from_numpy(np.argsort(-np.abs(atoms @ targets[0]))[:2].copy())
    ids, scores = dictionary.search(torch.from_numpy(targets), support, 20)
    for i, x in enumerate(targets):
        ranked = np.argsort(-np.abs(atoms @ x))
        wanted = ranked[2:22] if i == 0 else ranked[:20]
        assert ids[i].tolist() == wanted.tolist()
        assert scores[i].numpy() == pytest.approx(np.abs(atoms[wanted] @ x), rel=1e-4)


@both_choices
def test_more_atoms_never_leave_more(exact: bool):
    rng = np.random.default_rng(3)
    atoms = rng.standard_normal((200, 24)).astype(np.float32)
    targets = rng.standard_normal((15, 24)).astype(np.float32)
    left = np.array(
        [pursue(atoms, targets, k, exact=exact).residual for k in (1, 2, 4, 8, 16, 24, 40)]
    )
    # Token by token only the greedy choice is nested.
    assert (np.diff(left if exact else left.mean(axis=1), axis=0) <= 1e-5).all()


@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_the_plain_recipe_never_leaves_less(spread: float):
    rng = np.random.default_rng(4)
    lengths = rng.lognormal(0.0, spread, (150, 1))
    atoms = (lengths * rng.standard_normal((150, 32))).astype(np.float32)
    targets = rng.standard_normal((12, 32)).astype(np.float32)
    for k in (1, 4, 12):
        left = pursue(atoms, targets, k, normalise=False, exact=True).residual
        reference = [published(atoms, x, k) for x in targets]
        assert (left <= np.array(reference) + 1e-4).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_the_order_of_atoms_and_targets_does_not_matter(seed: int, exact: bool):
    atoms, _, targets = planted(6, 40, 16, 3, seed=seed)
    rng = np.random.default_rng(seed)
    rows, columns = rng.permutation(6), rng.permutation(40)
    straight = dense(pursue(atoms, targets, 3, exact=exact), 40)
    moved = dense(pursue(atoms[columns], targets[rows], 3, exact=exact), 40)
    assert moved == pytest.approx(straight[rows][:, columns], abs=1e-4)


@both_choices
def test_tiles_of_any_size_give_the_same_answer(exact: bool):
    atoms, _, targets = planted(40, 120, 32, 4)
    whole = pursue(atoms, targets, 4, exact=exact)
    small = pursue(atoms, targets, 4, exact=exact, work=Work(memory_budget=1))
    assert np.array_equal(whole.support, small.support)
    assert whole.coefficients == pytest.approx(small.coefficients, abs=1e-5)


def test_k_follows_the_width_of_the_donor_up_to_the_published_64():
    method, published, five = (
        cast(OMP, build(name, settings))
        for name, settings in (("omp", {}), ("omp-published", {}), ("omp", {"k": "5"}))
    )
    assert [method.resolved_k(width) for width in (16, 192, 512, 1024, 8192)] == [8, 12, 32, 64, 64]
    assert published.resolved_k(16) == 64
    assert five.resolved_k(8192) == 5


@both_choices
def test_dependent_atoms_are_never_chosen_twice_and_never_explode(exact: bool):
    rng = np.random.default_rng(5)
    base = rng.standard_normal((20, 12)).astype(np.float32)
    atoms = np.concatenate([base, base, 3 * base, np.zeros((4, 12), np.float32)])
    atoms[20:40] += 1e-6 * rng.standard_normal((20, 12)).astype(np.float32)
    targets = rng.standard_normal((10, 12)).astype(np.float32)
    found = pursue(atoms, targets, 32, exact=exact)
    for ids in found.support:
        kept = ids[(ids >= 0) & (ids < 60)] % 20
        assert len(set(kept.tolist())) == len(kept) <= 12
        assert ids.max() < 60
    assert np.abs(found.coefficients).max() < 1e3
    assert found.residual.max() < 1e-3


@both_choices
def test_k_above_the_rank_stops_where_nothing_is_left(exact: bool):
    atoms, _, targets = planted(8, 50, 6, 2)
    found = pursue(atoms, targets, 30, exact=exact)
    assert ((found.support >= 0).sum(axis=1) <= 6).all()
    assert np.isfinite(found.coefficients).all()


@both_choices
def test_a_zero_target_gets_no_atoms(exact: bool):
    atoms, _, _ = planted(1, 20, 8, 1)
    found = pursue(atoms, np.zeros((2, 8), np.float32), 4)
    assert (found.support == -1).all()
    assert not found.coefficients.any()


@both_choices
def test_a_tolerance_stops_early_and_is_kept(exact: bool):
    rng = np.random.default_rng(6)
    atoms = rng.standard_normal((300, 32)).astype(np.float32)
    targets = rng.standard_normal((20, 32)).astype(np.float32)
    found = pursue(atoms, targets, 32, tolerance=0.3, exact=exact)
    used = (found.support >= 0).sum(axis=1)
    assert (used < 32).all()
    assert (found.residual <= 0.3 + 1e-5).all()


@both_choices
def test_a_ridge_shrinks_the_coefficients(exact: bool):
    rng = np.random.default_rng(7)
    atoms = rng.standard_normal((100, 16)).astype(np.float32)
    targets = rng.standard_normal((10, 16)).astype(np.float32)
    sizes = [
        np.linalg.norm(pursue(atoms, targets, 16, ridge=ridge, exact=exact).coefficients)
        for ridge in (0.0, 0.1, 1.0, 10.0)
    ]
    assert sizes == sorted(sizes, reverse=True)


@both_choices
def test_forced_atoms_come_first(exact: bool):
    atoms, _, targets = planted(5, 40, 16, 2)
    forced = np.array([[3, -1], [7, 9], [-1, -1], [0, 1], [39, 2]])
    found = pursue(atoms, targets, 4, forced=forced, exact=exact)
    for chosen, wanted in zip(found.support, forced, strict=True):
        for slot, atom in enumerate(wanted):
            assert atom in (-1, chosen[slot])


def with_donor(context, input_rows, output_rows=None, known=None):
    output_rows = input_rows if output_rows is None else output_rows
    known = np.ones(len(input_rows), dtype=bool) if known is None else known
    donor = dataclasses.replace(context.donor, input=input_rows, output=output_rows, known=known)
    return dataclasses.replace(context, donor=donor)


def linear_pair(context, seed: int = 0):
    """Return the context with a donor whose rows are a rotation of a world the source lives in.

    Each missing token is, in that world, the sum of two shared tokens; so is its right row.
    """
    rng = np.random.default_rng(seed)
    shared = context.alignment.shared[
        context.anchors[context.alignment.source_ids[context.alignment.shared]]
    ]
    recipe = rng.choice(shared, (context.n_missing, 2))
    recipe[:, 1] = np.where(recipe[:, 0] == recipe[:, 1], shared[0], recipe[:, 1])
    turn = np.linalg.qr(rng.standard_normal((24, context.width)))[0].astype(np.float32)
    rows = np.zeros((context.target.n_rows, 24), dtype=np.float32)
    ids = context.alignment.source_ids[shared]
    rows[shared] = context.input_rows[ids] @ turn.T
    rows[context.missing] = rows[recipe].sum(axis=1)
    right = context.input_rows[context.alignment.source_ids[recipe]].sum(axis=1)
    return with_donor(context, rows), right


@pytest.mark.parametrize("centre", [False, True])
def test_rows_are_right_where_the_donor_is_a_rotation_of_the_source(centre: bool):
    context, right = linear_pair(example_context())
    new = build("omp", {"k": 16, "centre": centre, "ridge": 0.0, "prior": 0.0})(context)
    assert new.input.values(context.input_rows) == pytest.approx(right, abs=1e-2)


def test_the_sides_are_written_each_from_its_own_donor_rows():
    context = example_context()
    swapped = with_donor(
        context, context.donor.output, context.donor.input, known=context.donor.known
    )
    mirrored = dataclasses.replace(
        swapped, input_rows=context.output_rows, output_rows=context.input_rows
    )
    one, other = build("omp", {"k": 8})(context), build("omp", {"k": 8})(mirrored)
    assert np.array_equal(one.input.weights.toarray(), other.output.weights.toarray())
    assert np.array_equal(one.output.weights.toarray(), other.input.weights.toarray())


def test_a_token_that_the_donor_lacks_gets_the_mean_of_its_pieces():
    context = example_context()
    known = context.donor.known.copy()
    known[context.missing[1:]] = False
    context = with_donor(context, context.donor.input, context.donor.output, known)
    found = build("omp", {"k": 8})(context).input.values(context.input_rows)
    plain = build("subword-mean", {})(context).input.values(context.input_rows)
    assert found[1:] == pytest.approx(plain[1:], abs=1e-5)
    assert not np.allclose(found[0], plain[0], atol=1e-3)


def test_donor_rows_that_are_not_finite_poison_nothing():
    context = example_context()
    rows = context.donor.input.copy()
    rows[context.missing[2]] = np.nan
    rows[context.alignment.shared[40]] = np.inf
    found = build("omp", {"k": 8})(with_donor(context, rows, context.donor.output))
    assert np.isfinite(found.input.values(context.input_rows)).all()
    assert np.isfinite(found.output.values(context.output_rows)).all()


def test_duplicate_donor_rows_are_survived():
    context = example_context()
    rows = context.donor.input.copy()
    rows[context.alignment.shared[::2]] = rows[context.alignment.shared[0]]
    found = build("omp", {"ridge": 0.0})(with_donor(context, rows)).input
    assert np.abs(found.weights.data).max() < 1e3


def test_too_large_a_k_names_both_numbers_and_the_way_out():
    context = example_context()
    n_shared = len(shared_pairs(context, context.donor.known)[0])
    with pytest.raises(
        InitialiserError,
        match=f"OMP needs 999 shared tokens; these vocabularies share {n_shared}. Lower k",
    ):
        build("omp", {"k": 999})(context)


def test_without_a_donor_the_next_step_is_named():
    with pytest.raises(InitialiserError, match="--donor"):
        build("omp", {})(example_context(extras="bare"))


def test_weights_touch_trained_shared_rows_only():
    context = example_context()
    known = context.donor.known[context.missing]
    allowed = set(shared_pairs(context, context.donor.known)[1].tolist())
    for name in ("omp", "omp-published"):
        side = build(name, {"k": 8})(context).output
        used = set(side.weights[np.flatnonzero(known)].indices.tolist())
        assert used <= allowed | {context.n_source}


def test_forced_pieces_are_among_the_weights():
    context = example_context()
    side = build("omp", {"k": 12, "include_pieces": True})(context).input
    allowed = set(shared_pairs(context, context.donor.known)[1].tolist())
    for i in np.flatnonzero(context.donor.known[context.missing]):
        pieces = set(context.pieces[i]) & allowed
        assert pieces <= set(side.weights[[i]].indices.tolist())


def test_a_strong_prior_pulls_the_rows_towards_the_mean_of_the_pieces():
    context = example_context()
    plain = build("subword-mean", {})(context).input.values(context.input_rows)
    known = context.donor.known[context.missing]

    def distance(prior: float) -> float:
        new = build("omp", {"k": 32, "prior": prior})(context).input
        return float(np.linalg.norm((new.values(context.input_rows) - plain)[known]))

    assert distance(0.0) > distance(1.0) > distance(100.0)


@pytest.mark.parametrize("settings", [{}, {"centre": True}, {"prior": 0.5}])
def test_a_tied_donor_is_solved_once_and_gives_what_two_solutions_give(
    settings: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    context = example_context(tied=False)
    donor = context.donor
    assert donor is not None
    method = build("omp", {"k": 4, **settings})
    twice = dataclasses.replace(
        context, donor=dataclasses.replace(donor, input=donor.output.copy())
    )
    expected = method(twice)
    once = dataclasses.replace(context, donor=dataclasses.replace(donor, input=donor.output))
    solved = []

    def counted(*args, **more):
        solved.append(len(args[1]))
        return pursue(*args, **more)

    monkeypatch.setattr("tokensurgeon.initialisers.numerics.pursuit.pursue", counted)
    found = method(once)
    assert len(solved) == (2 if settings else 1)
    for side, rows in (("input", context.input_rows), ("output", context.output_rows)):
        assert np.array_equal(
            getattr(found, side).values(rows), getattr(expected, side).values(rows)
        )

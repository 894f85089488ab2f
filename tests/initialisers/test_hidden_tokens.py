"""Hidden tokens are really hidden, and sums of methods are found again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tokensurgeon import Recipe
from tokensurgeon.initialisers import build
from tokensurgeon.initialisers import hidden_tokens as selection
from tokensurgeon.initialisers.contract import InitContext
from tokensurgeon.initialisers.hidden_tokens import (
    STRATA,
    Hidden,
    Mixture,
    Rebuilt,
    hide,
    rebuild,
    stack,
    strata,
)
from tokensurgeon.surgery import prepare


@pytest.fixture(scope="module")
def context(tiny_source: Path, tiny_donor: Path) -> InitContext:
    recipe = Recipe(source=str(tiny_source), tokenizer=str(tiny_donor), donor=str(tiny_donor))
    return prepare(recipe).context


@pytest.fixture
def hidden(context: InitContext) -> Iterator[Hidden]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "FEWEST_HIDDEN", 5)
        found = hide(context)
        assert found is not None
        yield found


def test_too_few_shared_tokens_hide_nothing(context: InitContext) -> None:
    assert hide(context) is None


def test_hidden_tokens_are_in_no_piece_and_no_anchor(context: InitContext, hidden: Hidden) -> None:
    trial = hidden.context
    ids = trial.missing
    assert np.isin(ids, context.alignment.shared).all()
    assert not np.isin(ids, trial.alignment.shared).any()
    assert np.array_equal(hidden.source_ids, context.alignment.source_ids[ids])
    used = {piece for pieces in trial.pieces for piece in pieces}
    assert not used & set(hidden.source_ids.tolist())
    assert not trial.anchors[hidden.source_ids].any()
    for token, pieces in zip(ids.tolist(), trial.pieces, strict=True):
        assert context.source.bytes_of(pieces) == context.target.token_bytes[token]
    again = hide(context)
    assert again is not None
    assert np.array_equal(again.context.missing, ids)


def test_the_context_itself_is_as_it_was(context: InitContext, hidden: Hidden) -> None:
    assert not np.isin(hidden.context.missing, context.missing).any()
    assert context.anchors[hidden.source_ids].all()


def test_candidates_are_ranked_by_what_they_miss(hidden: Hidden) -> None:
    candidates = {name: build(name) for name in ("mean", "zero", "omp", "hidden-residual")}
    found = rebuild(hidden, candidates, "output")
    errors = [each.error for each in found]
    assert errors == sorted(errors)
    by_name = {each.method: each.error for each in found}
    assert by_name["mean"] == pytest.approx(1.0)
    assert "hidden-residual" not in by_name  # it has no output rows
    doubled = rebuild(hidden, candidates, "output", 2 * np.eye(hidden.context.width))
    assert [each.error for each in doubled] == pytest.approx(errors)


def test_a_planted_sum_is_found_again(hidden: Hidden) -> None:
    generator = np.random.default_rng(0)
    truth = hidden.context.output_rows[hidden.source_ids]
    noise = generator.normal(size=truth.shape).astype(np.float32)
    made = [
        Rebuilt("half", 0.0, 0.5 * truth + noise),
        Rebuilt("noise", 0.0, noise),
        Rebuilt("useless", 0.0, generator.normal(size=truth.shape).astype(np.float32) * 1e-6),
        Rebuilt("minus", 0.0, -truth),
    ]
    weights = stack(hidden, made[:1] + made[2:], "output")
    assert "minus" not in weights or weights["minus"][0] == 0
    for metric in (None, np.diag(np.arange(1.0, truth.shape[1] + 1))):
        both = stack(
            hidden, [Rebuilt("a", 0.0, truth - noise), Rebuilt("b", 0.0, noise)], "output", metric
        )
        assert both["a"] == pytest.approx((1.0,) * len(STRATA), abs=1e-3)
        assert both["b"] == pytest.approx((1.0,) * len(STRATA), abs=1e-3)


def test_strata_are_told_apart(context: InitContext) -> None:
    target = context.target
    digits = target.ids_of_bytes(b"7")
    letter = target.ids_of_bytes(b"q")
    space = target.ids_of_bytes(b" t")
    assert digits
    assert letter
    assert space
    found = strata(target, [space[0], letter[0], digits[0]])
    assert [STRATA[k] for k in found] == ["word", "part", "digits"]


@pytest.mark.parametrize("side", ["input", "output"])
def test_a_mixture_is_the_weighted_sum(context: InitContext, side: str) -> None:
    parts = [build("subword-mean"), build("subword-shrunk"), build("hidden-residual")]
    if side == "output":
        parts = parts[:2]
    weights = [(0.5, 0.25, 1.0, 2.0), (0.1, 0.2, 0.3, 0.4), (1.0, 0.0, 0.5, 0.0)][: len(parts)]
    mixture = Mixture(side, tuple(zip(parts, weights, strict=True)))(context)
    rows = context.input_rows if side == "input" else context.output_rows
    kinds = strata(context.target, context.missing)
    wanted = np.zeros((context.n_missing, context.width))
    for part, shares in zip(parts, weights, strict=True):
        one = getattr(part(context), side)
        wanted += np.array(shares)[kinds][:, None] * one.values(rows)
    found = getattr(mixture, side)
    assert np.allclose(found.values(rows), wanted, atol=1e-5)
    assert getattr(mixture, "output" if side == "input" else "input") is None

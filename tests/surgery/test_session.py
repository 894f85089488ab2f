"""Laws of a session: what is dear is made once, and a variant shares what does not change."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tokensurgeon import Recipe
from tokensurgeon.progress import Timings
from tokensurgeon.surgery import Session, prepare
from tokensurgeon.surgery.calibrate import calibrate_rows
from tokensurgeon.surgery.prepare import read_inputs
from tokensurgeon.surgery.rows import patch_rows
from tokensurgeon.surgery.session import Part


@pytest.fixture
def session(tiny_source: Path, tiny_donor: Path, tiny_text: Path) -> Session:
    text = {"calibration": [str(tiny_text)]}
    return prepare(
        Recipe.parse({"source": str(tiny_source), "tokenizer": str(tiny_donor), "text": text})
    )


def changed(session: Session, what: str) -> Session:
    """Return a variant in which one thing differs."""
    if what == "pair":
        own = session.recipe.model_copy(update={"tokenizer": session.recipe.source})
        return session.variant(inputs=read_inputs(own, session.progress, Timings()))
    texts = ("Another text.", "And one more.")
    changes: dict[str, Any] = {"seed": 5, "untie": True, "texts": texts}
    return session.variant(**{what: changes[what]})


def test_what_is_dear_is_made_once(session: Session) -> None:
    assert not session.model_loaded
    assert session.model is session.model
    assert session.model_loaded
    assert session.context is session.context
    assert session.suppressed_row is session.suppressed_row
    assert session.calibration_data is session.calibration_data


@pytest.mark.parametrize("what", ["pair", "seed", "untie", "texts"])
def test_a_variant_shares_the_model_and_nothing_that_depends_on_the_change(
    session: Session, what: str
) -> None:
    other = changed(session, what)
    assert other.model is session.model
    assert other.states is session.states
    assert other.timings is session.timings
    assert other.warnings is session.warnings
    assert other.context is not session.context
    assert other.context.input_rows is session.context.input_rows
    shares_silent = other.suppressed_row is session.suppressed_row
    assert shares_silent == (what in ("pair", "untie"))
    assert (other.calibration_texts is session.calibration_texts) == (what != "texts")
    shares_counts = other.context.source_counts is session.context.source_counts
    assert shares_counts == (what not in ("pair", "texts"))


@pytest.mark.parametrize("what", ["pair", "seed", "untie", "texts"])
def test_every_part_says_what_it_depends_on(session: Session, what: str) -> None:
    parts = [part for part in vars(Session).values() if isinstance(part, Part)]
    assert {"model", "states", "context", "calibration_data"} < {part.name for part in parts}
    other = changed(session, what)
    for part in parts:
        assert (part.of(other) is part.of(session)) == (what not in part.depends_on), part.name


def test_a_variant_is_what_a_session_of_its_own_would_be(session: Session) -> None:
    seeded = session.variant(seed=3)
    alone = prepare(session.recipe.model_copy(update={"seed": 3}))
    assert seeded.recipe == alone.recipe
    assert seeded.context.seed == alone.context.seed == 3
    assert session.context.seed == 0
    assert np.array_equal(seeded.suppressed_row.row, alone.suppressed_row.row)
    one, other = seeded.calibration_data.texts, alone.calibration_data.texts
    assert one == other
    texts = session.variant(texts=("One text of its own.",))
    assert texts.context.texts == ("One text of its own.",)
    assert texts.variant(seed=1).context.texts == ("One text of its own.",)


@pytest.mark.parametrize("what", ["pair", "untie"])
def test_the_silent_row_that_variants_share_is_their_own(session: Session, what: str) -> None:
    shared = changed(session, what)
    alone = prepare(shared.recipe)
    assert np.array_equal(shared.suppressed_row.row, alone.suppressed_row.row)


def test_a_variant_without_texts_has_none_of_the_other_session(session: Session) -> None:
    assert session.context.texts
    without = session.variant(texts=())
    assert without.calibration_texts == without.context.texts == ()
    assert without.context.source_counts is None


def test_inputs_cannot_be_changed(session: Session) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        session.inputs.n_rows = 3  # type: ignore[misc]


def test_healing_goes_on_before_the_draft_and_the_draft_is_fitted_again(
    tiny_source: Path, tiny_donor: Path, tiny_text: Path
) -> None:
    recipe = {
        "source": str(tiny_source),
        "for_draft": str(tiny_donor),
        "text": {"calibration": [str(tiny_text)]},
    }
    session = prepare(Recipe.parse(recipe))
    rows = patch_rows(session, ("subword-mean", "subword-mean"), session.recipe.init)
    first = calibrate_rows(session, rows, ["unigram"])
    assert [record.stage for record in first.to_rows(session).stages] == ["unigram", "draft"]
    healed = first.healed(session, 0.02).to_rows(session)
    assert [record.stage for record in healed.stages] == ["unigram", "heal", "draft"]

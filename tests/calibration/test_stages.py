"""Laws of the closed-form stages, on a real tiny model whose right answers are known."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from tests.calibration.conftest import TEXTS
from tests.world import SENTENCES
from tokensurgeon import Recipe
from tokensurgeon.calibration import (
    STAGES,
    CalibrationData,
    Candidate,
    Matrices,
    Stage,
    StageRecord,
    calibrate,
    find_stages,
)
from tokensurgeon.calibration import (
    calibration_texts as texts,
)
from tokensurgeon.calibration.acceptance import Acceptance, Standing, run_stage
from tokensurgeon.calibration.byte_positions import common_states, positions_of, state_at
from tokensurgeon.calibration.calibration_texts import TextBounds, split_texts
from tokensurgeon.calibration.contract import Candidates
from tokensurgeon.calibration.stages import BY_NAME, OF_LARGE, OF_SMALL
from tokensurgeon.calibration.stages.directions import even_direction, shifted
from tokensurgeon.calibration.stages.output_rows import from_text, read_out
from tokensurgeon.calibration.stages.states import Fold, Match, Unigram
from tokensurgeon.calibration.stages.taught import Taught
from tokensurgeon.errors import CalibrationError, UnknownNameError
from tokensurgeon.progress import Clock
from tokensurgeon.surgery import prepare
from tokensurgeon.surgery.calibrate import calibrate_rows, clipped
from tokensurgeon.surgery.row_origins import RECALIBRATED
from tokensurgeon.surgery.rows import patch_rows
from tokensurgeon.text.chunks import Chunk, chunk_documents
from tokensurgeon.text.encoding import encode_chunks
from tokensurgeon.vocabulary import vocabulary_from_tokenizer


def test_positions_meet_at_the_bytes_that_both_have_read(
    tiny_source: Path, tiny_donor: Path
) -> None:
    from tokensurgeon.vocabulary import load_vocabulary

    chunks = chunk_documents(TEXTS[:6], max_bytes_per_chunk=128)
    one, other = (
        positions_of(encode_chunks(load_vocabulary(folder), chunks), chunks)
        for folder in (tiny_source, tiny_donor)
    )
    for positions in (one, other):
        assert positions.n_states == sum(map(len, positions.sequences))
        assert (positions.ends >= positions.starts).all()
        assert (np.diff(positions.boundaries) > 0).all()
        assert (state_at(positions, positions.ends) >= positions.after).all()
    here, there = common_states(one, other)
    offset_of = dict(zip(one.boundary_states.tolist(), one.boundaries.tolist(), strict=True))
    other_of = dict(zip(other.boundary_states.tolist(), other.boundaries.tolist(), strict=True))
    assert len(here) > len(chunks)
    assert [offset_of[i] for i in here] == [other_of[i] for i in there]
    whole, again = common_states(one, one)
    assert np.array_equal(whole, again)
    assert len(whole) == len(one.boundaries)


def test_a_state_without_a_border_is_not_found(same: CalibrationData) -> None:
    assert (state_at(same.source_positions, np.array([-5, 10**9])) == -1).all()


def test_an_even_direction_reads_one_where_one_can_be_read() -> None:
    generator = np.random.default_rng(0)
    states = generator.normal(size=(500, 8)).astype(np.float32)
    states[:, 3] = 2.0
    direction = even_direction(states, ridge=1e-9)
    assert np.allclose(states @ direction, 1, atol=1e-4)


def test_a_shift_adds_nats_to_the_logits(own: Matrices) -> None:
    ids = np.array([5, 9])
    direction = np.ones(own.output.shape[1]) / own.output.shape[1]
    moved = shifted(own, ids, np.array([1.0, -2.0]), direction, scale=2.0)
    state = np.ones(own.output.shape[1])
    change = 2.0 * ((moved.output - own.output) @ state)
    assert np.allclose(change[ids], [1.0, -2.0], atol=1e-5)
    assert np.count_nonzero(change) == 2
    with_bias = Matrices(own.input, own.output, np.zeros(len(own.output), np.float32))
    by_bias = shifted(with_bias, ids, np.array([1.0, -2.0]), direction, scale=2.0)
    assert by_bias.output is own.output or np.array_equal(by_bias.output, own.output)
    assert by_bias.bias is not None
    assert np.allclose(by_bias.bias[ids], [0.5, -1.0])


def test_readout_finds_the_row_that_the_source_has(same: CalibrationData, own: Matrices) -> None:
    token = int(np.bincount(same.source_positions.ids).argmax())
    rows = own.output.copy()
    rows[token] = 0
    data = dataclasses.replace(same, new=np.array([token]))
    found = read_out(data, Matrices(own.input, rows), from_text(data), strength=1e-6)
    states = same.source_states()[data.occurrences.states[data.occurrences.tokens == token]]
    wanted = states @ own.output[token]
    assert np.abs(states @ rows[token] - wanted).max() > 0.01
    assert np.allclose(states @ found[token], wanted, atol=0.01)
    others = np.delete(np.arange(len(rows)), token)
    assert np.array_equal(found[others], rows[others])


def test_what_needs_no_mending_is_left(same: CalibrationData, own: Matrices) -> None:
    for candidate in Match(shared=True).propose(same, own):
        assert np.allclose(candidate.matrices.input, own.input, atol=1e-5)
    for candidate in Fold().propose(same, own):
        assert np.allclose(candidate.matrices.output, own.output, atol=1e-4)


def test_unigram_brings_expected_counts_to_the_texts(same: CalibrationData, own: Matrices) -> None:
    data = dataclasses.replace(same, new=same.shared)
    positions = data.target_positions
    states = data.target_states(own)[positions.before[positions.before >= 0]]
    counts = np.bincount(positions.ids[positions.before >= 0], minlength=len(own.output))

    def off(matrices: Matrices) -> float:
        expected = data.head(matrices).expected_counts(states)
        return float(np.abs(np.log((counts + 2) / (expected + 2))).sum())

    *_, last = Unigram().propose(data, own)
    assert off(last.matrices) < 0.8 * off(own)


def run(
    data: CalibrationData, matrices: Matrices, *stages: Stage, seconds: float = float("inf")
) -> tuple[Matrices, tuple[StageRecord, ...]]:
    done = calibrate(data, matrices, stages, clock=Clock(seconds))
    return done.matrices, done.records


class Worse(Stage):
    """A stage that spoils the rows."""

    name = "worse"

    def propose(self, data: CalibrationData, matrices: Matrices) -> Candidates:
        yield Candidate.of({}, matrices.with_output(matrices.output * 50))
        return None


class Broken(Worse):
    """A stage whose rows are not numbers."""

    def propose(self, data: CalibrationData, matrices: Matrices) -> Candidates:
        yield Candidate.of({}, matrices.with_output(np.full_like(matrices.output, 1e38)))
        return None


class Memory(Worse):
    """A stage that helps on the selection text by making everything else impossible."""

    changes_shared = True

    def propose(self, data: CalibrationData, matrices: Matrices) -> Candidates:
        positions = positions_of(
            encode_chunks(data.context.target, data.texts.selection), data.texts.selection
        )
        absent = np.setdiff1d(np.arange(len(matrices.output)), positions.ids)
        states = data.source_states()
        yield Candidate.of(
            {}, shifted(matrices, absent, np.full(len(absent), -9.0), even_direction(states), 1.0)
        )
        return None


@pytest.mark.parametrize("stage", [Worse, Broken])
def test_a_stage_that_hurts_is_not_kept(
    same: CalibrationData, own: Matrices, stage: type[Stage]
) -> None:
    with np.errstate(all="ignore"):
        after, (record,) = run(same, own, stage())
    assert not record.kept
    assert after is own
    assert "no gain" in record.why


def test_a_gain_that_costs_other_text_is_refused(same: CalibrationData, own: Matrices) -> None:
    selection = same.texts.selection[:1]
    other = tuple(chunk_documents(["0123456789 ZYXWVUT ~~~ %%% &&& ###"]))
    texts = dataclasses.replace(same.texts, selection=selection, other=other)
    data = dataclasses.replace(same, texts=texts)
    after, (record,) = run(data, own, Memory())
    assert record.after is not None
    assert record.before is not None
    assert record.after < record.before
    assert record.other_after is not None
    assert record.other_before is not None
    assert record.other_after > record.other_before
    assert not record.kept
    assert after is own
    assert "other text" in record.why


class Series(Worse):
    """A stage whose series gets worse; it counts how often it is asked."""

    asked = 0

    def propose(self, data: CalibrationData, matrices: Matrices) -> Candidates:
        for factor in (2, 50, 100, 200):
            type(self).asked += 1
            if (yield Candidate.of({}, matrices.with_output(matrices.output * factor))) is False:
                return None
        return None


def test_a_series_that_gets_worse_is_asked_no_further(same: CalibrationData, own: Matrices) -> None:
    run(same, own, Series())
    assert Series.asked <= 2


def test_a_part_of_a_change_is_kept_where_the_whole_costs_other_text(
    same: CalibrationData, own: Matrices, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = own.with_output(own.output + 1.0)
    figures = {
        0.0: (2.0, 3.0),
        1.0: (1.0, 3.2),
        0.75: (1.1, 3.1),
        0.5: (1.3, 3.05),
        0.25: (1.6, 3.0),
    }

    def score(matrices: Matrices, chunks: object) -> float:
        share = round(float((matrices.output - own.output).mean()), 2)
        return figures[share][chunks is data.texts.other]

    class Whole(Worse):
        changes_shared = True

        def propose(self, data: CalibrationData, matrices: Matrices) -> Candidates:
            yield Candidate.of({"is": "whole"}, rows)
            return None

    # What a random model writes may be no text at all, so another text is given.
    texts = dataclasses.replace(same.texts, other=same.texts.selection[:1])
    data = dataclasses.replace(same, texts=texts)
    monkeypatch.setattr(data, "score", score)
    after, (record,) = run(data, own, Whole())
    assert record.kept
    assert record.settings == {"is": "whole", "of_the_change": 0.25}
    assert (record.before, record.after) == (2.0, 1.6)
    assert (record.other_before, record.other_after) == (3.0, 3.0)
    assert np.allclose(after.output, own.output + 0.25)
    assert after.input is own.input


def test_tied_matrices_stay_one_on_the_way_to_others(own: Matrices) -> None:
    tied = Matrices(own.output, own.output)
    halfway = tied.towards(tied.with_output(own.output * 3), 0.5)
    assert halfway.tied
    assert np.allclose(halfway.output, own.output * 2)


def test_no_stage_begins_after_the_budget(same: CalibrationData, own: Matrices) -> None:
    after, records = run(same, own, *find_stages(["shrunk", "prior"], False), seconds=-1)
    assert after is own
    assert [record.kept for record in records] == [False, False]
    assert all("not tried: it needs about 0 s, 0 s are left" in one.why for one in records)


def test_stages_that_cannot_be_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="no calibration stage 'foldd'; known: quiet"):
        find_stages(["foldd"], False)
    assert [stage.name for stage in find_stages(["fold"], tied=True)] == ["fold"]
    assert "fold" not in [stage.name for stage in find_stages(None, tied=True)]
    assert [stage.name for stage in find_stages(list(STAGES), tied=False)] == list(STAGES)


@pytest.mark.parametrize(
    "name", [name for name in STAGES if find_stages([name], tied=False)[0].one_side]
)
def test_a_stage_of_one_side_moves_both_of_a_tied_model(
    pair: tuple[CalibrationData, Matrices], name: str
) -> None:
    data, rows = pair
    tied = Matrices(rows.output, rows.output)
    (stage,) = find_stages([name], tied=True)
    done = calibrate(data, tied, [stage])
    assert done.matrices.tied
    (record,) = done.records
    assert record.before is not None
    assert record.after is not None
    assert record.after != record.before
    (candidate, *_) = stage.propose(data, tied)
    assert candidate.matrices.tied
    assert not np.array_equal(candidate.matrices.input, tied.input)


@pytest.mark.parametrize(("large", "names"), [(False, OF_SMALL), (True, OF_LARGE)])
def test_the_size_of_the_model_decides_over_the_stages(large: bool, names: tuple[str, ...]) -> None:
    assert [stage.name for stage in find_stages(None, tied=False, large=large)] == list(names)
    tied = find_stages(None, tied=True, large=large)
    assert tied
    assert not any(stage.one_side for stage in tied)
    assert set(OF_SMALL) | set(OF_LARGE) | set(BY_NAME) == set(STAGES)


def test_a_stage_has_its_older_name_too() -> None:
    (stage,) = find_stages(["stand-in"], False)
    assert stage.name == "context-rows"


def test_texts_are_parted_by_document(same: CalibrationData) -> None:
    context = same.context
    parted = split_texts(
        same.model,
        context.source,
        context.target,
        TEXTS,
        SENTENCES[:1],
        bounds=TextBounds(fit=4000),
    )
    fit, selection = ({chunk.text for chunk in part} for part in (parted.fit, parted.selection))
    assert fit
    assert selection
    assert not fit & selection
    heads = tuple(text for text in selection if text[0].isdigit())
    assert heads
    assert not any(document.startswith(heads) for document in parted.documents)
    assert [chunk.text for chunk in parted.other] == [SENTENCES[0]]
    assert not parted.generated
    assert parted.n_bytes == sum(
        chunk.n_bytes for chunk in (*parted.fit, *parted.selection, *parted.other)
    )
    assert not parted.more


def test_more_text_goes_on_where_the_text_to_fit_to_ends(same: CalibrationData) -> None:
    context = same.context
    parted = split_texts(
        same.model,
        context.source,
        context.target,
        TEXTS,
        SENTENCES[:1],
        bounds=TextBounds(fit=1000, more=2000),
    )
    assert 0 < sum(chunk.n_bytes for chunk in parted.fit) <= 1000
    whole = parted.fit + parted.more
    assert 1000 < sum(chunk.n_bytes for chunk in whole) <= 3000
    assert {chunk.text for chunk in whole}.isdisjoint(chunk.text for chunk in parted.selection)
    assert parted.n_bytes == sum(
        chunk.n_bytes for chunk in (*whole, *parted.selection, *parted.other)
    )


def test_more_text_is_read_after_the_text_to_fit_to(same: CalibrationData, own: Matrices) -> None:
    fit = same.texts.fit
    few = dataclasses.replace(
        same, texts=dataclasses.replace(same.texts, fit=fit[:3], more=fit[3:])
    )
    alone, after_each = few.next_tokens(own)
    states, ids = few.next_tokens(own, more=True)
    assert 0 < len(alone) < len(states)
    assert np.array_equal(ids[: len(alone)], after_each)
    assert np.allclose(states[: len(alone)], alone, atol=1e-5)
    assert np.array_equal(ids, same.next_tokens(own)[1])


def test_chunks_come_from_many_documents(same: CalibrationData) -> None:
    context = same.context
    words = " ".join(SENTENCES).split()
    # Every word of a document names it, so that a chunk tells where it was cut out.
    documents = [" ".join(f"{word}{i}x" for word in words * 8) for i in range(200)]
    size = len(documents[0].encode())
    bounds = TextBounds(fit=6 * size)
    parted = split_texts(
        same.model,
        context.source,
        context.target,
        documents,
        SENTENCES,
        bounds=bounds,
    )

    def origins(chunks: Sequence[Chunk]) -> set[str]:
        return {re.findall(r"(\d+)x", chunk.text)[0] for chunk in chunks}

    room = texts.SELECTION_SHARE * (6 * size + texts.MOST_SELECTION)
    for chunks, n_bytes in ((parted.fit, 6 * size), (parted.selection, room)):
        total = sum(chunk.n_bytes for chunk in chunks)
        assert n_bytes / 2 < total <= n_bytes
        assert len(origins(chunks)) > 2 * total / size
    assert not origins(parted.fit) & origins(parted.selection)
    free = {re.findall(r"(\d+)x", document)[0] for document in parted.documents}
    assert not free & origins(parted.selection)
    assert len(free) >= (1 - texts.MOST_HELD) * len(documents) - 1


def test_too_little_text_is_said(same: CalibrationData) -> None:
    context = same.context
    bounds = TextBounds(fit=100)
    with pytest.raises(CalibrationError, match="2 bytes of calibration text leave nothing"):
        split_texts(same.model, context.source, context.target, ["ab"], ["cd"], bounds=bounds)


def test_calibrated_rows_say_what_was_done(
    tiny_source: Path, tiny_donor: Path, text_file: Path
) -> None:
    session = prepare(
        Recipe.parse(
            {
                "source": str(tiny_source),
                "tokenizer": str(tiny_donor),
                "text": {"calibration": [str(text_file)]},
            }
        )
    )
    rows = patch_rows(session, ("subword-mean", "subword-mean"), session.recipe.init)
    assert calibrate_rows(session, rows, ()).to_rows(session) is rows
    found = calibrate_rows(session, rows, list(STAGES)).to_rows(session)
    assert [record.stage for record in found.stages] == list(STAGES)
    assert found.used_text
    assert not found.generated
    assert found.forward_tokens > 0
    steps = {record.stage: record.gradient_steps for record in found.stages}
    taught = [steps.pop(name) for name in ("token-distillation", "attention-influence", "distil")]
    assert all(taught)
    assert found.gradient_steps == sum(taught)
    assert not any(steps.values())
    for before, after in ((rows.input, found.input), (rows.output, found.output)):
        changed = (before.rows != after.rows).any(axis=1)
        assert (after.copied[changed] == -1).all()
        assert np.array_equal(after.copied[~changed], before.copied[~changed])
        assert ((after.origin == RECALIBRATED) <= changed).all()
    kept = [record for record in found.stages if record.kept]
    assert kept  # random rows of a random model: something always helps
    assert all(r.before - r.after >= 1e-3 for r in kept if r.before and r.after)


def test_calibration_data_is_one_before_and_after_calibration(
    tiny_source: Path, tiny_donor: Path, text_file: Path
) -> None:
    # Another seed's healing draws its text anew, when its rows are calibrated already.
    recipe = {"source": str(tiny_source), "tokenizer": str(tiny_donor)}
    texts = {"calibration": [str(text_file)], "other": [str(text_file)]}
    session = prepare(Recipe.parse({**recipe, "text": texts}))
    rows = patch_rows(session, ("subword-mean", "subword-mean"), session.recipe.init)
    names = ("context-rows", "match-shared", "unigram-shared", "refit")
    found = calibrate_rows(session, rows, names).to_rows(session)
    assert (found.output.origin == RECALIBRATED).any()
    first, again = session.calibration_data, session.variant(seed=1).calibration_data
    assert again is not first
    assert np.array_equal(again.shared, first.shared)
    assert np.array_equal(again.new, first.new)


def test_clipping_shortens_new_rows_only(tiny_source: Path, tiny_donor: Path) -> None:
    session = prepare(Recipe(source=str(tiny_source), tokenizer=str(tiny_donor)))
    rows = patch_rows(session, ("subword-mean", "subword-mean"), session.recipe.init)
    found = clipped(session, rows, 1.0)
    changed = (rows.input.rows != found.input.rows).any(axis=1)
    assert found.input.clipped == changed.sum() > 0
    assert (rows.input.copied[changed] == -1).all()
    norms = np.linalg.norm(found.input.rows, axis=1)
    assert (norms[changed] < np.linalg.norm(rows.input.rows[changed], axis=1)).all()


@pytest.mark.parametrize("name", list(STAGES))
def test_a_stage_runs_no_more_tokens_than_it_said(
    pair: tuple[CalibrationData, Matrices], name: str
) -> None:
    data = dataclasses.replace(pair[0], forward_tokens=0)
    (stage,) = find_stages([name], False)
    said = stage.cost(data.sizes).total_tokens(data.sizes)
    if stage.cost(data.sizes).seconds:
        # A training has said its time instead; without any, it runs what it said besides.
        assert isinstance(stage, Taught)
        stage.seconds = 0.0
    start = Standing.of(Acceptance.of(data), pair[1])
    before = data.forward_tokens
    run_stage(data, start, stage, Acceptance.of(data))
    assert data.forward_tokens - before <= said


def test_other_output_rows_are_scored_without_a_forward_pass(
    pair: tuple[CalibrationData, Matrices],
) -> None:
    data, rows = pair
    selection = data.texts.selection
    data.score(rows, selection)
    before = data.forward_tokens
    moved = rows.with_output(rows.output * 1.5)
    figure = data.score(moved, selection)
    assert data.forward_tokens == before
    assert figure == pytest.approx(data.score_model(data.patched(moved), selection), abs=1e-5)
    other_input = rows.with_input(rows.input * 1.1)
    assert data.score(other_input, selection) != figure
    assert data.forward_tokens > before


def test_a_score_from_kept_states_leaves_out_what_nothing_stands_before(
    pair: tuple[CalibrationData, Matrices],
) -> None:
    data, rows = pair
    state = data.context.target.tokenizer.to_str().replace("<|bos|>", "<|b|>")
    target = vocabulary_from_tokenizer(Tokenizer.from_str(state.replace("<|eos|>", "<|e|>")), {})
    assert target.start_id is None
    alignment = dataclasses.replace(data.context.alignment, target=target)
    context = dataclasses.replace(data.context, alignment=alignment)
    without = dataclasses.replace(data, context=context)
    selection = data.texts.selection
    figure = without.score(rows, selection)
    assert figure == pytest.approx(without.score_model(data.patched(rows), selection), abs=1e-5)
    assert figure != data.score(rows, selection)


def test_a_training_is_resumed_before_the_stages_that_come_after_one(
    pair: tuple[CalibrationData, Matrices],
) -> None:
    data, rows = pair
    early, late = find_stages(["prior"], False), find_stages(["refit"], False)
    whole = calibrate(data, rows, [*early, *late])
    assert whole.before_training is not None
    assert [record.stage for record in whole.before_training.records] == ["prior"]
    again = calibrate(data, whole.before_training, late)
    assert np.array_equal(again.matrices.output, whole.matrices.output)
    assert [record.stage for record in again.records] == ["prior", "refit"]

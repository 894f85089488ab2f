"""Text that a source writes itself, and the lessons among it."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np

from tests.calibration.conftest import TEXTS
from tokensurgeon.calibration import CalibrationData
from tokensurgeon.calibration.calibration_texts import MOST_TAUGHT, TextBounds, split_texts
from tokensurgeon.calibration.openings import OPENINGS
from tokensurgeon.calibration.written_texts import (
    OPENING_TOKENS,
    WritingTime,
    beginnings,
    generate_texts,
)
from tokensurgeon.vocabulary import Kind


def test_the_source_writes_the_same_text_again(same: CalibrationData) -> None:
    source = same.context.source
    for of_kinds in (False, True):
        one, again, other = (
            generate_texts(same.model, source, 2000, seed=seed, of_kinds=of_kinds)
            for seed in (3, 3, 4)
        )
        assert one == again
        assert sum(len(text.encode()) for text in one) >= 2000
        assert one != other


def test_texts_of_all_kinds_begin_with_tokens_at_random_and_with_openings(
    same: CalibrationData,
) -> None:
    source = same.context.source
    at_random, openings, others, again = itertools.islice(
        beginnings(source, 2 * len(OPENINGS), np.random.default_rng(3)), 4
    )
    assert {len(ids) for ids in (*at_random, *others)} == {1}
    assert len({ids[0] for ids in at_random}) > 20
    assert all(source.kinds[ids[0]] == Kind.ORDINARY for ids in at_random)
    begun = [source.decode(ids) for ids in openings]
    assert {len(ids) for ids in openings} == {OPENING_TOKENS}
    assert all(any(opening.startswith(text) for opening in OPENINGS) for text in begun)
    known = {opening for opening in OPENINGS if source.decode(source.encode(opening)) == opening}
    assert len(set(begun)) == len(known) > 20  # all of them, before any comes again
    assert sorted(map(tuple, openings)) == sorted(map(tuple, again))
    written = generate_texts(same.model, source, 20_000, seed=3, of_kinds=True)
    assert any(text.startswith(tuple(begun)) for text in written)
    assert not all(text.startswith(tuple(begun)) for text in written)


def test_lessons_are_other_text_than_what_judges_and_written_once_asked_for(
    same: CalibrationData,
) -> None:
    source, bounds = same.context.source, TextBounds(fit=4000, other=500)
    parted = split_texts(same.model, source, same.context.target, TEXTS, bounds=bounds)
    assert parted.generated_other
    data = dataclasses.replace(same, texts=parted, lesson_time=WritingTime())
    assert "lessons" not in vars(data)
    judged = " ".join(chunk.text for chunk in parted.other)
    assert data.lessons
    assert not any(lesson in judged for lesson in data.lessons)
    assert dataclasses.replace(same, texts=parted, lesson_time=None).lessons == ()


def test_no_time_is_no_text(same: CalibrationData) -> None:
    time = WritingTime(seconds=0, slow=True)
    assert generate_texts(same.model, same.context.source, 2000, time, of_kinds=True) == []


def test_a_part_of_the_users_other_text_is_taught_and_never_judges(same: CalibrationData) -> None:
    source, bounds = same.context.source, TextBounds(fit=4_000, other=300)
    other = [f"{i}: {text}" for i, text in enumerate(TEXTS[:40])]
    parted = split_texts(same.model, source, same.context.target, TEXTS, other, bounds=bounds)
    assert not parted.generated_other
    assert set(parted.taught) < set(other)
    assert parted.other
    assert not any(text.startswith(chunk.text) for text in parted.taught for chunk in parted.other)
    assert 0 < sum(map(len, parted.taught)) <= MOST_TAUGHT + max(map(len, other))
    data = dataclasses.replace(same, texts=parted, lesson_time=WritingTime())
    assert data.lessons[: len(parted.taught)] == parted.taught
    assert len(data.lessons) > len(parted.taught)
    assert dataclasses.replace(data, lesson_time=None).lessons == parted.taught

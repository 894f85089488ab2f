"""Laws of text whose words are replaced by such as the target parts."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from tests.calibration.conftest import pair_of
from tokensurgeon.calibration import CalibrationData
from tokensurgeon.calibration.stages import distil
from tokensurgeon.calibration.teacher.lessons import batches
from tokensurgeon.calibration.teacher.parted_text import parted_texts
from tokensurgeon.calibration.training.teaching import CHUNKS_PER_STEP
from tokensurgeon.text.chunks import Chunk


@pytest.fixture(scope="module")
def parting(tiny_source: Path, tiny_donor: Path, text_file: Path) -> CalibrationData:
    """Calibration data of a target that parts tokens of its source."""
    return pair_of(tiny_donor, tiny_source, text_file)[0]


def test_where_nothing_is_parted_no_word_is_replaced(
    same: CalibrationData, parting: CalibrationData
) -> None:
    assert same.parted_share == 0
    assert distil._parted(same, 0) == []
    assert distil._parted(parting, 0)


def test_each_step_reads_ordinary_text_beside(parting: CalibrationData) -> None:
    few, many = parting.texts.fit[:2], parting.texts.fit[2:]
    both = list(batches(parting.spellings, many, few, size=CHUNKS_PER_STEP, seed=0))
    assert len(both) == len(many)
    assert sorted(id(one) for one, _ in both) == sorted(map(id, many))
    assert {id(one) for _, one in both} == set(map(id, few))
    plain = list(batches(parting.spellings, many, size=CHUNKS_PER_STEP, seed=0))
    assert [len(batch) for batch in plain[:-1]] == [CHUNKS_PER_STEP] * (len(plain) - 1)


def test_the_mean_of_the_source_is_a_distribution(parting: CalibrationData) -> None:
    mean, counts = parting.source_mean, parting.context.source_counts
    assert counts is not None
    np.testing.assert_allclose(mean.sum(), 1, atol=1e-6)
    assert (mean >= counts / counts.sum() / 2).all()
    parted = [s for s, one in enumerate(parting.spellings.spelled) if len(one) > 1]
    shown = np.isin(parting.source_positions.ids, parted)
    assert 0 < parting.parted_share == shown.mean()


def test_words_are_replaced_by_such_as_the_target_parts(parting: CalibrationData) -> None:
    def read(seed: int) -> list[str]:
        return list(
            parted_texts(
                parting.spellings,
                parting.source_head,
                parting.source_positions,
                parting.source_states(),
                parting.source_mean,
                n=2,
                seed=seed,
            )
        )

    texts, source = read(0), parting.context.source
    assert texts == read(0) != read(1)
    assert len(texts) == 2 * len(parting.texts.fit)
    parted = {s for s, one in enumerate(parting.spellings.spelled) if len(one) > 1}

    def share(some: list[str]) -> float:
        ids = list(itertools.chain(*(one.ids for one in source.encode_many(some))))
        return float(np.mean([i in parted for i in ids]))

    plain = [chunk.text for chunk in parting.texts.fit]
    assert share(texts) > share(plain) + 0.02
    same_length = [
        (one, two)
        for one, two in zip(plain, texts, strict=False)
        if len(one.split(" ")) == len(two.split(" "))
    ]
    assert same_length
    for one, two in same_length:  # every other word, and all between them, stays
        kept = sum(a == b for a, b in zip(one.split(" "), two.split(" "), strict=True))
        assert kept >= len(one.split(" ")) // 2 - 1


def test_one_chunk_of_four_is_written_by_the_source(parting: CalibrationData) -> None:
    text, written = ([Chunk(f"{kind} {i}", 0) for i in range(9)] for kind in ("text", "written"))

    def kinds(**sides: list[Chunk]) -> list[list[str]]:
        found = batches(parting.spellings, text, size=2, seed=0, **sides)
        return [[chunk.text.split()[0] for chunk in batch] for batch in found]

    alone = list(itertools.chain(*kinds(written=written[:2])))
    assert alone == ["text"] * 3 + (["written"] + ["text"] * 3) * 2 + ["written"]
    both = kinds(beside=[Chunk("beside", 0)] * 6, written=written)
    assert both == [["text", one] for one in (["beside"] * 3 + ["written"]) * 2 + ["beside"]]
    assert kinds() == [["text", "text"]] * 4 + [["text"]]

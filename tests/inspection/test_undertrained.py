"""Rows that were never trained are found, in tied and untied models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.vocabulary.tiny_tokenizers import made
from tokensurgeon.errors import UsageError
from tokensurgeon.inspection import find_undertrained, judge_rows
from tokensurgeon.inspection.undertrained import cosine_distances, untrained_rows
from tokensurgeon.vocabulary import Kind, load_vocabulary

WIDTH = 24


def rows_of(n_rows: int, quiet: list[int], seed: int = 0) -> np.ndarray:
    """Return rows at random, those of `quiet` short and all in one direction."""
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(n_rows, WIDTH)) + 3 * np.eye(WIDTH)[0]
    direction = generator.normal(size=WIDTH)
    rows[quiet] = 0.1 * direction + 0.001 * generator.normal(size=(len(quiet), WIDTH))
    return rows.astype(np.float32)


@pytest.mark.parametrize("tied", [True, False])
def test_planted_rows_come_first(tied: bool) -> None:
    vocabulary = made("byte_level")
    n_rows = vocabulary.n_rows + 8
    planted = [290, 301, 322]
    reference = untrained_rows(vocabulary, n_rows)
    assert set(range(vocabulary.n_rows, n_rows)) <= set(reference.tolist())
    rows = rows_of(n_rows, [*reference.tolist(), *planted])
    found = judge_rows(vocabulary, rows, rows, tied=tied, limit=3)
    assert found.indicator == ("cosine" if tied else "norm")
    assert sorted(each.id for each in found.suspects) == planted
    assert found.references == len(reference)
    assert found.median > 10 * (found.threshold or 0)


def test_references_are_holes_reserved_tokens_and_bytes_that_utf8_never_has() -> None:
    vocabulary = made("unigram_bytes")
    found = set(untrained_rows(vocabulary, vocabulary.n_rows).tolist())
    names = {vocabulary.spellings[i] for i in found if vocabulary.kinds[i] == Kind.BYTE}
    assert names == {f"<0x{byte:02X}>" for byte in (0xC0, 0xC1, *range(0xF5, 0x100))}


def test_without_references_rows_are_sorted_by_norm_and_none_is_condemned() -> None:
    vocabulary = made("words")
    rows = rows_of(vocabulary.n_rows, [5])
    found = judge_rows(vocabulary, rows, rows, tied=True, limit=2)
    assert (found.indicator, found.threshold, found.count) == ("norm", None, None)
    assert found.suspects[0].id == 5
    assert found.suspects[0].cosine is None


def test_a_constant_direction_and_the_length_of_rows_do_not_matter_to_cosine() -> None:
    generator = np.random.default_rng(1)
    rows = generator.normal(size=(200, WIDTH)).astype(np.float32)
    reference = np.arange(10)
    rows[reference] = 1 + 0.01 * generator.normal(size=(10, WIDTH))
    distances = cosine_distances(rows, reference)
    assert distances[reference].max() < distances[10:].min()
    assert cosine_distances(5 * rows, reference) == pytest.approx(distances, abs=1e-4)


def test_a_checkpoint_is_read_and_another_models_tokenizer_is_refused(
    tiny_source: Path, tiny_donor: Path
) -> None:
    found = find_undertrained(load_vocabulary(tiny_source), tiny_source, limit=7)
    assert not found.tied
    assert len(found.suspects) == 7
    norms = [each.norm for each in found.suspects]
    assert norms == sorted(norms)
    with pytest.raises(UsageError, match=r"400 ids and .* 320 rows"):
        find_undertrained(load_vocabulary(tiny_donor), tiny_source)


def test_bytes_that_stories_never_needed_are_found_in_a_tied_model(assets: Path) -> None:
    """Its vocabulary has letters besides bytes, so byte tokens of letters were never trained."""
    folder = assets / "models" / "stories260K"
    vocabulary = load_vocabulary(folder)
    found = find_undertrained(vocabulary, folder, limit=40)
    assert found.tied
    assert all(vocabulary.kinds[each.id] == Kind.BYTE for each in found.suspects)
    assert 100 < (found.count or 0) < 300

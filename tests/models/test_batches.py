"""Laws of batches: every sequence once, within the limit, and little padded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tokensurgeon.models.batches import (
    ENOUGH_TOKENS,
    MOST_PADDING,
    batches_by_length,
    padded_batches,
)

LENGTHS = st.lists(st.integers(1, 400), max_size=60)
LIMITS = st.sampled_from([1, 100, 4096])


@given(LENGTHS, LIMITS)
def test_every_sequence_is_in_one_batch_within_the_limit(lengths: list[int], limit: int) -> None:
    batches = list(batches_by_length(lengths, limit))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= limit


@given(LENGTHS)
def test_what_comes_to_enough_tokens_is_hardly_padded(lengths: list[int]) -> None:
    ids = [[i] * n for i, n in enumerate(lengths)]
    seen: list[int] = []
    for members, batch in padded_batches(ids):
        seen += members
        assert len({len(row) for row in batch}) == 1
        for i, row in zip(members, batch, strict=True):
            assert row == [i] * len(batch[0])
        before = sum(lengths[i] for i in members[:-1])
        if before >= ENOUGH_TOKENS:
            assert len(batch) * len(batch[0]) <= MOST_PADDING * sum(lengths[i] for i in members)
    assert sorted(seen) == list(range(len(lengths)))

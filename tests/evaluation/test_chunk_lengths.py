"""The length of chunks depends on all models of a table."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tokensurgeon.errors import EvaluationError
from tokensurgeon.evaluation import evaluate


def test_chunks_are_as_long_as_fits_every_model(source, texts):
    class Short:
        kind = "causal"
        max_positions = 70

        def nll(self, batch):
            return source.model.nll(batch)

    long = [" ".join(texts) * 3]
    entries = [source, replace(source, name="short", model=Short())]
    alone, beside = evaluate(entries[:1], long), evaluate(entries, long)
    assert alone.chunk_bytes > beside.chunk_bytes
    assert beside.n_too_long <= 0.01 * beside.n_chunks
    # A length that is asked for is taken; what does not fit is left out for all, and counted.
    asked = evaluate(entries, long, chunk_bytes=beside.chunk_bytes * 2)
    assert asked.chunk_bytes == beside.chunk_bytes * 2
    assert asked.n_too_long > 0
    with pytest.raises(EvaluationError, match="too short"):
        evaluate(entries, long, chunk_bytes=2)

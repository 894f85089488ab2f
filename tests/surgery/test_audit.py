"""A new row that draws probability everywhere is named by the report of a surgery."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from tokensurgeon import InitContext, NewRows, SideRows, transplant
from tokensurgeon.report.words import rows_to_look_at

Checkpoints = Callable[..., Path]


@dataclass(frozen=True)
class OneOverPredictedRow:
    """Mean rows, but the third along the direction that all final states have in common."""

    name: ClassVar[str] = "one-over-predicted-row"

    def __call__(self, context: InitContext) -> NewRows:
        mean = context.output_rows[context.anchors].mean(axis=0)
        rows = np.repeat(mean[None], context.n_missing, axis=0)
        assert context.states is not None
        one = np.flatnonzero(context.anchors)[:64]
        states = context.states([[int(i)] for i in one], context.states.n_layers)
        common = states.mean(axis=0)
        rows[2] += (100 / np.linalg.norm(common)) * common
        return NewRows(output=SideRows(dense=rows))


def test_the_over_predicted_row_is_named_and_mean_rows_are_not(
    checkpoints: Checkpoints, world: Path
) -> None:
    source, target = str(checkpoints()), str(world / "target")
    found = transplant(source=source, tokenizer=target, initialiser=OneOverPredictedRow()).report
    over = found.output.audit.over_predicted
    assert found.output.audit.states > 0
    assert [fact.id for fact in over][:1] == [fact.id for fact in found.output.audit.long][:1]
    assert over[0].probability > 0.1
    assert repr(over[0].spelling) in "\n".join(rows_to_look_at(found))
    assert not found.input.audit.over_predicted

    plain = transplant(
        source=source,
        tokenizer=target,
        init={"input": "subword-mean", "output": "subword-mean"},
    ).report
    assert not plain.output.audit.over_predicted

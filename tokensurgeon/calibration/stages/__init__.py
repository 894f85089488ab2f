"""The stages of a calibration, one file per family, and the order in which they are tried.

CONTRIBUTING.md says how to add one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from tokensurgeon.calibration.contract import Stage
from tokensurgeon.calibration.stages.blend import Blend, Lean
from tokensurgeon.calibration.stages.context_rows import ContextRows
from tokensurgeon.calibration.stages.distil import Distil
from tokensurgeon.calibration.stages.marginal import Marginal
from tokensurgeon.calibration.stages.matched import AttentionInfluence, TokenDistillation
from tokensurgeon.calibration.stages.output_rows import Prior, Readout, Shrunk
from tokensurgeon.calibration.stages.quiet import Quiet
from tokensurgeon.calibration.stages.refit import Refit
from tokensurgeon.calibration.stages.shares import Shares
from tokensurgeon.calibration.stages.states import Fold, Match, Unigram
from tokensurgeon.errors import UnknownNameError

STAGES: dict[str, Callable[[], Stage]] = {
    "quiet": Quiet,
    "lean": Lean,
    "blend": Blend,
    "context-rows": ContextRows,
    "match": Match,
    "match-shared": partial(Match, shared=True),
    "shrunk": Shrunk,
    "prior": Prior,
    "readout": Readout,
    "fold": Fold,
    "unigram": Unigram,
    "unigram-shared": partial(Unigram, shared=True),
    "marginal": Marginal,
    "token-distillation": TokenDistillation,
    "attention-influence": AttentionInfluence,
    "distil": Distil,
    "shares": Shares,
    "refit": Refit,
}
"""Every stage but healing and drafts, in the order in which they are tried."""

OF_LARGE = ("quiet", "lean", "blend", "distil", "shares", "refit")
"""Tried by default on a large model: one pass over the text is dear there, and the source teaches
more in it than the others win. On SmolLM2-135M and Gemma-3-270M the ten older stages won 0.003 and
0.018 bits per byte together; `marginal` won 0.002 at best, in time in which `distil` wins more."""
BY_NAME = ("marginal", "token-distillation", "attention-influence")
"""Never tried unless they are named."""
OF_SMALL = tuple(name for name in STAGES if name == "refit" or name not in (*OF_LARGE, *BY_NAME))
"""Tried by default on a small model, where each of them takes a second."""

OLDER_NAMES = {"stand-in": "context-rows"}
"""Names of earlier releases, which recipes may still use."""


def find_stages(names: Sequence[str] | None, tied: bool, *, large: bool = False) -> list[Stage]:
    """Return stages by name.

    Parameters
    ----------
    names : sequence of str or None
        None returns those of small models, or of large ones, that suit the checkpoint.
    tied : bool
    large : bool
        Whether the model is large.

    Raises
    ------
    UnknownNameError
        If there is no such stage.
    """
    if names is None:
        stages = [STAGES[name]() for name in (OF_LARGE if large else OF_SMALL)]
        return [stage for stage in stages if not (tied and stage.one_side)]
    stages = []
    for name in names:
        name = OLDER_NAMES.get(name, name)
        if name not in STAGES:
            raise UnknownNameError(f"no calibration stage '{name}'; known: {', '.join(STAGES)}")
        stages.append(STAGES[name]())
    return stages

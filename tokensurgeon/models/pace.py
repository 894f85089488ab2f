"""How fast a model runs here, measured on a few hundred tokens."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from tokensurgeon.models.language_model import LanguageModel

PROBE_SEQUENCES, PROBE_LENGTH = 2, 96
"""Of the pass that is timed, as long as chunks of text are: a second or two where a forward pass
of 40 kB takes a minute."""
WARM_UP = 16
"""Tokens that are run before, untimed."""
SQUARE = 768
"""Rows and columns of the product that is timed: large enough for a processor's full speed, and
some hundredths of a second."""
FASTEST = 1e-6
"""Seconds that a probe takes at least, so that no clock makes a pace infinite."""


@dataclass(frozen=True)
class Pace:
    """How fast a model runs.

    Attributes
    ----------
    body : float
        Tokens a second through all blocks, to the final state.
    head : float
        Logits a second, with their loss: states times output rows.
    arithmetic : float
        Floating-point operations a second of a product of matrices on the model's device.
    """

    body: float = float("inf")
    head: float = float("inf")
    arithmetic: float = float("inf")

    def seconds(self, tokens: float, scored: float = 0.0, n_rows: int = 0) -> float:
        """Return what some tokens through the body take, and states scored against `n_rows`."""
        return tokens / self.body + scored * n_rows / self.head


NO_TIME = Pace()
"""At which nothing takes time: where there is no deadline."""


def measure_pace(model: LanguageModel) -> Pace:
    """Run a few sequences, and score their states.

    Parameters
    ----------
    model : LanguageModel
    """
    length = max(1, min(PROBE_LENGTH, (model.max_positions or PROBE_LENGTH) - 1))
    ids = np.random.default_rng(0).integers(model.n_rows, size=(PROBE_SEQUENCES, length))
    sequences: list[list[int]] = ids.tolist()
    model.all_states([sequences[0][:WARM_UP]], model.n_layers)  # the first pass also allocates
    start = time.perf_counter()
    states = model.all_states(sequences, model.n_layers)
    body = max(FASTEST, time.perf_counter() - start)
    head = model.head
    head.nll(states[:WARM_UP], ids[0, :WARM_UP])
    start = time.perf_counter()
    head.nll(states[:length], ids[0])
    scoring = max(FASTEST, time.perf_counter() - start)
    arithmetic = measure_arithmetic(model.device).arithmetic
    return Pace(ids.size / body, length * model.n_rows / scoring, arithmetic)


def measure_arithmetic(device: str) -> Pace:
    """Return the pace of arithmetic on a torch device, where no model runs."""
    import torch

    square = torch.ones((SQUARE, SQUARE), device=device)
    (square @ square).cpu()
    start = time.perf_counter()
    (square @ square).cpu()
    return Pace(arithmetic=2.0 * SQUARE**3 / max(FASTEST, time.perf_counter() - start))

"""Models trained further for some steps: all weights, or the vocabulary rows alone.

What one start is ahead of another right after a surgery need not last once training goes on. Here
every model takes the same steps at one learning rate, and nothing is tuned for any of them. It is
small on purpose: a probe of what training would do, not a training.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from tokensurgeon.arrays import ITEM_BYTES, Ids, Mask
from tokensurgeon.calibration.training.batches import TrainingText
from tokensurgeon.calibration.training.loop import rate_for
from tokensurgeon.calibration.training.trainer import Trainer
from tokensurgeon.errors import SettingError
from tokensurgeon.models import LanguageModel
from tokensurgeon.models.head_gradients import backward_from_head
from tokensurgeon.progress import Progress, no_progress

if TYPE_CHECKING:
    import torch

RATE = 3e-4
"""Of all weights. Fifty steps of it leave stories260K a little better on held-out text (0.878 to
0.873 bits per byte), steps of 1e-3 spoil it (0.928)."""
TOKENS_PER_STEP = 2048
"""Small batches: a million tokens are then hundreds of steps."""
WARM_UP = 20
"""Steps in which the learning rate rises; then it stays, so that stages can be compared."""
BETAS = (0.9, 0.98)
"""Of Adam, as in healing: moments that last 50 steps, not 1,000, where there are few."""
LONGEST_GRADIENT = 1.0
"""A gradient of all weights is cut to this norm, as is usual: one odd batch decides nothing."""


PER_WEIGHT = 16
"""Bytes: a weight, its gradient and two moments, in float32."""
PER_ROW_VALUE = {"all": 12, "rows": 44}
"""Bytes that each number of the vocabulary rows takes beside that; all it takes, for rows alone."""
KEPT_BY_A_PASS = {"all": 22, "rows": 12}
"""Numbers that a forward pass keeps for each token, block and number of the width. Measured, as
those above, as the rise of the peak on random models of width 576, intermediate width 1,536, 4 and
8 blocks and 49,152 tied rows."""


@dataclass(frozen=True)
class FurtherTraining:
    """How every model is trained further.

    Attributes
    ----------
    steps : int
        0 trains nothing.
    rows_only : bool
        Train the vocabulary rows alone, the body frozen: it takes a fraction of the memory.
    rate : float or None
        Of Adam, after a warm-up. None is `RATE` for all weights; for rows alone it is what suits
        the width, in units of the root mean square of the rows, as in `train_rows`.
    tokens_per_step : int
        Of the target's tokenizer, at most; of the source's where the source is trained.

    Raises
    ------
    SettingError
        If there are fewer than 0 steps, or fewer than 1 token in one, or the rate is no positive
        number.
    """

    steps: int = 0
    rows_only: bool = False
    rate: float | None = None
    tokens_per_step: int = TOKENS_PER_STEP

    def __post_init__(self) -> None:
        """Refuse what cannot be trained with."""
        if self.steps < 0:
            raise SettingError(f"{self.steps} steps of further training: give 0 or more")
        if self.tokens_per_step < 1:
            raise SettingError(f"{self.tokens_per_step} tokens a step: give 1 or more")
        if self.rate is not None and not 0 < self.rate < math.inf:
            raise SettingError(f"a learning rate of {self.rate:g}: give a number above 0")

    @property
    def weights(self) -> str:
        """What is trained: ``all`` or ``rows``."""
        return "rows" if self.rows_only else "all"

    def rate_for(self, width: int) -> float:
        """Return the learning rate for models of a width."""
        if self.rate is not None:
            return self.rate
        return rate_for(width) if self.rows_only else RATE

    def to_dict(self, width: int) -> dict[str, Any]:
        """Say what all models of a width have in common, for JSON."""
        return {
            "steps": self.steps,
            "weights": self.weights,
            "rate": self.rate_for(width),
            "tokens_per_step": self.tokens_per_step,
            "warm_up": WARM_UP,
        }

    def memory(self, n_body: int, n_in_rows: int, n_layers: int, width: int) -> int:
        """Return about how many bytes training takes besides the model that is given.

        `n_body` and `n_in_rows` count numbers: of the body, and of the rows of all sides.
        """
        of_weights = 0 if self.rows_only else PER_WEIGHT * (n_body + n_in_rows)
        of_rows = PER_ROW_VALUE[self.weights] * n_in_rows
        kept = KEPT_BY_A_PASS[self.weights] * self.tokens_per_step * n_layers * width
        return of_weights + of_rows + ITEM_BYTES["float32"] * kept


class WeightTrainer:
    """Trains all weights of a copy of a model, in float32.

    Parameters
    ----------
    model : LanguageModel
        Not changed.
    tied : bool
        One matrix serves both sides of the copy; otherwise each side has its own.

    Attributes
    ----------
    model : LanguageModel
        The copy, as it stands.
    """

    def __init__(self, model: LanguageModel, *, tied: bool) -> None:
        import torch

        body = copy.deepcopy(model.model).float()
        inner, outer = body.get_input_embeddings(), body.get_output_embeddings()
        if tied:
            outer.weight = inner.weight
        elif outer.weight is inner.weight:
            outer.weight = torch.nn.Parameter(outer.weight.detach().clone())
        self.model = type(model)(body, logit_scale=model.logit_scale, softcap=model.softcap)
        self._plain = self.model.plain_head
        body.requires_grad_(True)
        self._weights = list(body.parameters())
        self._adam = torch.optim.AdamW(self._weights, betas=BETAS, weight_decay=0.0)

    def step(self, ids: Ids, real: Mask, rate: float) -> int:
        """Take a step on one padded batch; return how many tokens were scored."""
        import torch

        batch = torch.from_numpy(ids).to(self.model.device)
        scored = torch.from_numpy(real[:, 1:].copy()).to(batch.device)
        with torch.enable_grad():
            self._backward(batch, scored)
        torch.nn.utils.clip_grad_norm_(self._weights, LONGEST_GRADIENT)
        for group in self._adam.param_groups:
            group["lr"] = rate
        self._adam.step()
        self._adam.zero_grad()
        return int(real[:, 1:].sum())

    def write(self) -> None:
        """Do nothing: a step leaves every weight in place."""

    def _backward(self, batch: torch.Tensor, scored: torch.Tensor) -> None:
        """Leave the gradients of the mean loss in place."""
        import torch

        if self._plain:
            head = backward_from_head(self.model, batch, scored)
            outer = self.model.model.get_output_embeddings()
            _add_gradient(outer.weight, head.rows)
            if head.bias is not None:
                _add_gradient(outer.bias, head.bias)
            return
        scores = self.model.model(input_ids=batch, use_cache=False).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(scores[scored].float(), batch[:, 1:][scored])
        loss.backward()  # type: ignore[no-untyped-call]


def _add_gradient(weight: torch.Tensor, gradient: torch.Tensor) -> None:
    weight.grad = gradient if weight.grad is None else weight.grad.add_(gradient)


def train_further(
    model: LanguageModel,
    text: TrainingText,
    training: FurtherTraining,
    *,
    tied: bool,
    seed: int = 0,
    name: str = "further training",
    progress: Progress = no_progress,
) -> LanguageModel:
    """Take the steps of a further training.

    Parameters
    ----------
    model : LanguageModel
        Not changed.
    text : TrainingText
        Under the model's own tokenizer; read over and over where it is short.
    training : FurtherTraining
    tied : bool
        One matrix serves both sides.
    seed : int
        Of the order of the text; nothing else is random.
    name : str
        Told to `progress`.
    progress : callable(done, total, what), optional

    Returns
    -------
    LanguageModel
        The trained copy; of all weights in float32, of rows alone with the body of `model`.
    """
    trainer = trainer_for(model, training, tied=tied)
    rate = training.rate_for(model.width)
    order = text.passes(np.random.default_rng(seed), training.tokens_per_step)
    for done, batch in enumerate(islice(order, training.steps)):
        progress(done, training.steps, name)
        trainer.step(*text.padded(batch), rate * warm_up(done))
    progress(training.steps, training.steps, name)
    trainer.write()
    return trainer.model


def trainer_for(
    model: LanguageModel, training: FurtherTraining, *, tied: bool
) -> WeightTrainer | Trainer:
    """Return what takes the steps of one model."""
    if not training.rows_only:
        return WeightTrainer(model, tied=tied)
    every = np.ones(model.n_rows, dtype=np.bool_)
    return Trainer(model, every, every, tied=tied, shared_map=False)


def warm_up(done: int) -> float:
    """Return the share of the learning rate that the step after `done` others takes."""
    return min(1.0, (done + 1) / WARM_UP)

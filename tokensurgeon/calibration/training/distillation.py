"""The training of vocabulary rows, and where wanted of the body, on what a teacher says.

The teacher is the source, by its own implied distribution at every target position that has one
(`tokensurgeon.calibration.teacher`), or the big model that a draft is made for. There are no
labels, so nothing is learnt of the text but where its tokens stand.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tokensurgeon.arrays import Float32, Ids, blocks
from tokensurgeon.calibration.matrices import Matrices
from tokensurgeon.calibration.teacher.cells import CellGradients, SampledRows, cell_gradients
from tokensurgeon.calibration.teacher.lessons import Lesson, Reads, Teaches
from tokensurgeon.calibration.training.batches import padded
from tokensurgeon.calibration.training.low_rank import LowRank
from tokensurgeon.calibration.training.steps import RowAdam, rows_of_gradient
from tokensurgeon.calibration.training.teaching import HIGHEST_RATE, Taught, teach
from tokensurgeon.models import LanguageModel
from tokensurgeon.models.early_exit import states_before
from tokensurgeon.models.head import LOSS_LOGITS, shape_logits
from tokensurgeon.progress import Clock, Progress, no_progress

if TYPE_CHECKING:
    import torch

RATE_BY_WIDTH = 12.0
"""In units of the rows' root mean square the rate is this over the width, at most `HIGHEST_RATE`.
So fast a training overshoots, and half of the way is where it should have gone: see
`stages.distil.SHARES`."""
CALM = 0.5
"""Times the rate, for rows that are right as they are. SmolLM2-135M onto gpt2's tokens, with the
body; bits per byte above the source on articles, of which it read others, on Shakespeare and on
Python:

    before                        +0.218   +0.076   +0.562
    trained at the full rate      +0.159   +0.094   +0.339
    shared rows half of the way   +0.161   +0.084   +0.331
    all half of the way           +0.166   +0.079   +0.370

Trained at half of the rate +0.087 on Shakespeare and +0.326 on Python, and 0.002 less on articles
than at the full rate."""
BODY_RATE = 1e-3
"""Of the factors of the body's update: usual for adapters of that kind."""
RANK = 16
"""Of the body's update: a few million numbers in a model of 135M parameters."""
SHARE_OF_BLOCKS = 0.25
"""Of the blocks, the first and the last each, whose weights the update may change: where text of
other tokens enters, and where the next token is formed."""
LIKELY, OTHERS = 4_000, 4_000
"""Rows that are scored in each step besides those that its distributions name: the likeliest, and
some of the others. Both together cost a tenth of a vocabulary of 128,000."""
RENEWED = 20
"""Steps after which the likeliest rows are looked for anew."""
LOOKED_AT = 256
"""States that they are looked for on."""


def distil(
    model: LanguageModel,
    teacher: Teaches[Reads],
    batches: Iterable[Sequence[Reads]],
    matrices: Matrices,
    ids: Ids,
    *,
    calm: Ids | None = None,
    clock: Clock,
    max_tokens: int | None = None,
    slower: float = 1.0,
    body: frozenset[str] = frozenset(),
    seed: int = 0,
    progress: Progress = no_progress,
) -> Taught:
    """Train rows by the divergence from what a teacher says.

    Parameters
    ----------
    model : LanguageModel
        The source, or a faster copy; not changed.
    teacher : Teaches
    batches : iterable of sequences
        What the teacher reads at a step.
    matrices : Matrices
        The rows to start from; not changed.
    ids : int64
        Rows that may change.
    calm : int64, optional
        Those of them that move at half the rate.
    clock : Clock
        Ends the training; rates fall to zero until then.
    max_tokens : int, optional
        Ends it too. Where this binds, and not the clock, the same seed gives the same rows.
    slower : float
        Times the usual rates.
    body : frozenset of str
        Weights that may change too, by an update of low rank.
    seed : int
        Of the rows that are scored.
    progress : callable(done, total, what)
    """
    rates = np.zeros(len(matrices.input), dtype=np.float32)
    rates[ids] = 1.0
    if calm is not None:
        rates[calm] *= CALM
    student = _Student(model, matrices, rates, teacher.group, seed, slower, body)

    def step(batch: Sequence[Reads], share: float) -> tuple[float, int]:
        lesson = teacher.lesson(batch)
        return student.step(lesson, share), lesson.n_states

    try:
        losses, n_tokens = teach(
            batches,
            step,
            clock=clock,
            max_tokens=max_tokens,
            progress=progress,
            what="distilling",
        )
    finally:
        student.detach()
    return Taught(student.result(), len(losses), n_tokens, losses)


class _Student:
    """The patched model while its rows are trained."""

    def __init__(
        self,
        model: LanguageModel,
        matrices: Matrices,
        rates: Float32,
        group: Ids,
        seed: int,
        slower: float,
        body: frozenset[str],
    ) -> None:
        import torch

        self._start = matrices
        self.model = model.patched(
            matrices.input, matrices.output, matrices.bias, body=matrices.body
        )
        self._inner: Any = self.model.model.get_input_embeddings()
        self._outer: Any = self.model.model.get_output_embeddings()
        self._inner.sparse = True
        self._device = self._inner.weight.device
        self._input = torch.from_numpy(matrices.input.copy()).to(self._device)
        self._output = self._input
        if not matrices.tied:
            self._output = torch.from_numpy(matrices.output.copy()).to(self._device)
        self._bias = None
        if matrices.bias is not None:
            self._bias = torch.from_numpy(matrices.bias.copy()).to(self._device)
        self._steps = RowAdam(self._input, even=True), RowAdam(self._output, even=True)
        self._scales = tuple(
            float(side.pow(2).mean().sqrt()) for side in (self._input, self._output)
        )
        self._rates = torch.from_numpy(rates).to(self._device)
        self._group, self._rng = group, np.random.default_rng(seed)
        self._likely: Ids = np.zeros(0, dtype=np.int64)
        self._n_steps, self._body_rate = 0, slower * BODY_RATE
        self._rate = min(slower * RATE_BY_WIDTH / model.width, HIGHEST_RATE)
        self._low_rank = None
        if body:
            n = max(1, round(SHARE_OF_BLOCKS * model.n_layers))
            self._low_rank = LowRank(self.model, RANK, first=n, last=n, allowed=body, seed=seed)

    def step(self, lesson: Lesson, share: float) -> float:
        """Take a step at a share of the rates; return the loss in nats a position."""
        import torch

        implied = lesson.implied
        if not len(implied.positions):
            return 0.0
        batch, real = padded(lesson.sequences)
        on_device = torch.from_numpy(batch).to(self._device)
        self._write(torch.from_numpy(np.unique(batch)).to(self._device))
        self._inner.weight.requires_grad_(True)
        try:
            with torch.enable_grad():
                states = states_before(
                    self._outer,
                    lambda: self.model.model(input_ids=on_device, use_cache=False),
                    f"the output matrix of {type(self.model.model).__name__}",
                )
                flat = states[torch.from_numpy(real).to(self._device)]
                ids, found = self._backward(flat, lesson)
            to_input = rows_of_gradient(self._inner.weight.grad)
        finally:
            self._inner.weight.requires_grad_(False)
            self._inner.weight.grad = None
        n = len(implied.positions)
        to_output = ids, found.rows / n
        if self._start.tied:
            self._move(1, *_summed(to_output, to_input), share)
        else:
            self._move(0, *to_input, share)
            self._move(1, *to_output, share)
        if self._bias is not None:
            self._bias[ids] -= self._rate * share * self._rates[ids] * (found.bias / n)
        if self._low_rank is not None:
            self._low_rank.step(self._body_rate * share)
        self._n_steps += 1
        return found.loss / n

    def _backward(self, flat: torch.Tensor, lesson: Lesson) -> tuple[torch.Tensor, CellGradients]:
        """Take the gradients of the mean loss; return those of the rows that were scored, summed.

        Parameters
        ----------
        flat : (n_states, width)
            The final states, with their graph.
        lesson : Lesson

        Returns
        -------
        ids of the rows, and their gradients
        """
        import torch

        implied = lesson.implied
        before = torch.from_numpy(lesson.states).to(self._device)
        given = flat.detach()[before]
        if self._n_steps % RENEWED == 0:
            self._likely = self._likeliest(given)
        sampled = SampledRows.draw(
            implied, lesson.tokens, self._likely, self._group, OTHERS, self._rng
        )
        ids = sampled.ids.to(self._device)
        found = cell_gradients(
            given,
            self._output[ids].to(given.dtype),
            sampled,
            implied.ids,
            implied.masses,
            bias=None if self._bias is None else self._bias[ids],
            scale=self.model.logit_scale,
            softcap=self.model.softcap,
        )
        back = torch.zeros(flat.shape, dtype=torch.float32, device=self._device)
        back.index_add_(0, before, found.states / len(implied.positions))
        flat.backward(back.to(flat.dtype))  # type: ignore[no-untyped-call]
        return ids, found

    def _move(self, side: int, ids: torch.Tensor, gradient: torch.Tensor, share: float) -> None:
        changed = self._rates[ids] > 0
        ids = ids[changed]
        rates = self._rate * share * self._scales[side] * self._rates[ids][:, None]
        self._steps[side].step(ids, gradient[changed], rates)

    def _likeliest(self, states: torch.Tensor) -> Ids:
        """Return the rows that have most of the mass at some states."""
        import torch

        few = states[:: max(1, len(states) // LOOKED_AT)]
        mass = torch.zeros(len(self._output), device=self._device)
        rows = self._output.to(few.dtype)
        for part in blocks(len(few), LOSS_LOGITS // len(rows)):
            logits = (few[part] @ rows.T).float()
            if self._bias is not None:
                logits += self._bias
            logits = shape_logits(logits, self.model.logit_scale, self.model.softcap)
            mass += logits.softmax(1).sum(0)
        likely: Ids = mass.topk(min(LIKELY, len(mass))).indices.cpu().numpy()
        return likely

    def _write(self, ids: torch.Tensor) -> None:
        """Bring some input rows to the model."""
        self._inner.weight.data[ids] = self._input[ids].to(self._inner.weight.dtype)

    def result(self) -> Matrices:
        """Return a copy of the rows, and the body's change."""
        rows = self._input.cpu().numpy().copy()
        output = rows if self._start.tied else self._output.cpu().numpy().copy()
        bias = None if self._bias is None else self._bias.cpu().numpy().copy()
        matrices = Matrices(rows, output, bias, body=self._start.body)
        if self._low_rank is None:
            return matrices
        update = self._low_rank.update()
        return matrices.with_body(update if matrices.body is None else matrices.body.plus(update))

    def detach(self) -> None:
        """Take the hooks off the model."""
        if self._low_rank is not None:
            self._low_rank.detach()


def _summed(
    one: tuple[torch.Tensor, torch.Tensor], other: tuple[torch.Tensor, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the ids of both, each once, and the sums of their rows."""
    import torch

    ids, place = torch.cat([one[0], other[0]]).unique(return_inverse=True)  # type: ignore[no-untyped-call]
    rows = torch.cat([one[1], other[1]])
    return ids, torch.zeros((len(ids), rows.shape[1]), device=rows.device).index_add_(
        0, place, rows
    )

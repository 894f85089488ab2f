"""The training of input rows until the patched model's states are the source's at the same bytes.

Two published objectives differ in which states these are: the last ones (Token Distillation), or
what attention adds in the first third of the blocks (Attention Influence Modeling). Both leave
output rows to others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from tokensurgeon.arrays import Ids, blocks
from tokensurgeon.calibration.byte_positions import BytePositions, common_states, positions_of
from tokensurgeon.calibration.matrices import Matrices
from tokensurgeon.calibration.training.batches import padded
from tokensurgeon.calibration.training.steps import RowAdam, rows_of_gradient
from tokensurgeon.calibration.training.teaching import (
    CHUNKS_PER_STEP,
    HIGHEST_RATE,
    Taught,
    teach,
)
from tokensurgeon.errors import CalibrationError
from tokensurgeon.models import LanguageModel
from tokensurgeon.models.early_exit import states_before
from tokensurgeon.progress import Clock, Progress, no_progress
from tokensurgeon.text.chunks import Chunk
from tokensurgeon.text.encoding import encode_chunks
from tokensurgeon.vocabulary import Vocabulary

if TYPE_CHECKING:
    import torch

Observe = Callable[[LanguageModel, "torch.Tensor"], "list[torch.Tensor]"]
"""Runs a model on ids, (n, length); returns states, (n, length, width) each."""

RATE_BY_WIDTH = 5.0
"""The rate is this over the width, at most `HIGHEST_RATE`: twice that of `distil`, for rows that
both tokenizers have stay here. Not tuned on a real model."""
ATTENTION_SHARE = 1 / 3
"""Of the blocks, the first ones, whose attention is compared; as published."""
LEAST_SPREAD = 1e-12
"""Added to a variance that a difference is divided by: states of a block may all be equal."""


def last_states(model: LanguageModel, ids: torch.Tensor) -> list[torch.Tensor]:
    """Return what the output rows see."""
    outer = model.model.get_output_embeddings()
    run = _forward(model, ids)
    return [states_before(outer, run, f"the output matrix of {type(model.model).__name__}")]


def attention_outputs(model: LanguageModel, ids: torch.Tensor) -> list[torch.Tensor]:
    """Return what attention adds to the states in each of the first third of the blocks.

    Raises
    ------
    CalibrationError
        If no module of these blocks is called an attention.
    """
    n_blocks = max(1, round(ATTENTION_SHARE * model.n_layers))
    caught: list[torch.Tensor] = []

    def catch(module: Any, args: Any, output: Any) -> None:
        caught.append(output[0] if isinstance(output, tuple) else output)

    with ExitStack() as hooks:
        for block in model.layers[:n_blocks]:
            attention = _attention_of(block)
            hooks.callback(attention.register_forward_hook(catch).remove)
        beyond = model.layers[n_blocks] if n_blocks < model.n_layers else None
        run = _forward(model, ids)
        if beyond is None:
            run()
        else:
            states_before(beyond, run, f"block {n_blocks} of {type(model.model).__name__}")
    return caught


def _forward(model: LanguageModel, ids: torch.Tensor) -> Callable[[], object]:
    return lambda: model.model(input_ids=ids, use_cache=False)


def _attention_of(block: Any) -> Any:
    """Return the outermost module of a block whose class is called an attention."""
    for module in block.modules():
        if module is not block and "attention" in type(module).__name__.lower():
            return module
    raise CalibrationError(
        f"no attention was found in {type(block).__name__}: use the calibration "
        "'token-distillation', which compares the last states"
    )


def match_states(
    model: LanguageModel,
    source: Vocabulary,
    target: Vocabulary,
    chunks: Sequence[Chunk],
    matrices: Matrices,
    ids: Ids,
    observe: Observe,
    *,
    clock: Clock,
    max_tokens: int | None = None,
    seed: int = 0,
    progress: Progress = no_progress,
) -> Taught:
    """Train input rows by the squared difference of states at borders that both tokenizers have.

    Parameters
    ----------
    model : LanguageModel
        The source, or a faster copy; not changed.
    source, target : Vocabulary
    chunks : sequence of Chunk
        Each is read once at most, in an order of its own.
    matrices : Matrices
        The rows to start from; not changed. Of tied rows the output side moves along.
    ids : int64
        Rows that may change.
    observe : callable(model, ids)
        Which states are compared.
    clock : Clock
        Ends the training; the rate falls to zero until then.
    max_tokens : int, optional
        Ends it too. Where this binds, and not the clock, the same seed gives the same rows.
    seed : int
        Of the order of chunks.
    progress : callable(done, total, what)

    Raises
    ------
    CalibrationError
        If the states cannot be observed.
    """
    student = _Student(model, matrices, ids, observe)
    order = np.random.default_rng(seed).permutation(len(chunks)).tolist()

    def step(batch: list[Chunk], share: float) -> tuple[float, int]:
        theirs, ours = (
            positions_of(encode_chunks(vocabulary, batch), batch) for vocabulary in (source, target)
        )
        return student.step(theirs, ours, share), ours.n_states

    losses, n_tokens = teach(
        ([chunks[i] for i in order[part]] for part in blocks(len(order), CHUNKS_PER_STEP)),
        step,
        clock=clock,
        max_tokens=max_tokens,
        progress=progress,
        what="matching states",
    )
    return Taught(student.result(), len(losses), n_tokens, losses)


class _Student:
    """The patched model while its input rows are trained."""

    def __init__(self, model: LanguageModel, matrices: Matrices, ids: Ids, observe: Observe):
        import torch

        self._teacher, self._start, self._observe = model, matrices, observe
        self.model = model.with_input_rows(matrices.input, matrices.body)
        self._inner: Any = self.model.model.get_input_embeddings()
        self._inner.sparse = True
        self._device = self._inner.weight.device
        self._rows = torch.from_numpy(matrices.input.copy()).to(self._device)
        self._steps = RowAdam(self._rows, even=True)
        scale = float(self._rows.pow(2).mean().sqrt())
        self._rate = scale * min(RATE_BY_WIDTH / model.width, HIGHEST_RATE)
        self._may_change = torch.zeros(len(self._rows), dtype=torch.bool, device=self._device)
        self._may_change[torch.from_numpy(ids).to(self._device)] = True

    def step(self, theirs: BytePositions, ours: BytePositions, share: float) -> float:
        """Take a step at a share of the rate; return the loss."""
        import torch

        at_theirs, at_ours = common_states(theirs, ours)
        with torch.no_grad():
            wanted = self._states(self._teacher, theirs, at_theirs)
        touched = torch.from_numpy(np.unique(np.concatenate(ours.sequences))).to(self._device)
        self._inner.weight.data[touched] = self._rows[touched].to(self._inner.weight.dtype)
        self._inner.weight.requires_grad_(True)
        try:
            with torch.enable_grad():
                given = self._states(self.model, ours, at_ours)
                loss = torch.stack(
                    [_difference(one, goal) for one, goal in zip(given, wanted, strict=True)]
                ).mean()
                loss.backward()  # type: ignore[no-untyped-call]
            ids, gradient = rows_of_gradient(self._inner.weight.grad)
        finally:
            self._inner.weight.requires_grad_(False)
            self._inner.weight.grad = None
        changed = self._may_change[ids]
        self._steps.step(ids[changed], gradient[changed], self._rate * share)
        return float(loss.detach())

    def _states(
        self, model: LanguageModel, positions: BytePositions, at: Ids
    ) -> list[torch.Tensor]:
        """Return the states that are compared, float32 (len(at), width) each."""
        import torch

        batch, real = padded(positions.sequences)
        states = self._observe(model, torch.from_numpy(batch).to(self._device))
        places = np.flatnonzero(real)[at]
        index = torch.from_numpy(places).to(self._device)
        return [one.reshape(-1, one.shape[-1])[index].float() for one in states]

    def result(self) -> Matrices:
        """Return a copy of the rows."""
        rows = self._rows.cpu().numpy().copy()
        return self._start.with_output(rows) if self._start.tied else self._start.with_input(rows)


def _difference(given: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Return the mean squared difference of states, in units of the wanted ones' variance."""
    spread = (wanted - wanted.mean(0)).pow(2).mean() + LEAST_SPREAD
    return (given - wanted).pow(2).mean() / spread

"""A copy of a model whose vocabulary rows can be trained, and the step on a batch.

The copy shares the frozen body with the model that was given and has rows of its own. A forward
pass ends at the output matrix, whose loss and gradients the head works out in bounded memory;
only for a model whose logits are more than a product does autograd go through them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, SupportsFloat

import numpy as np

from tokensurgeon.arrays import Float32, Ids, Mask, to_float32
from tokensurgeon.calibration.matrices import Matrices
from tokensurgeon.calibration.training.steps import TrainedRows
from tokensurgeon.evaluation.shared_work import ALONE, SharedWork
from tokensurgeon.models import LanguageModel
from tokensurgeon.models.head_gradients import backward_from_head

if TYPE_CHECKING:
    import torch

State = tuple["torch.Tensor", ...]
Gradients = tuple["torch.Tensor | None", "torch.Tensor | None", "torch.Tensor | None"]
"""Of the input rows that a batch touches, of all output rows, and of the output bias. Of a tied
matrix the first is in the second."""


class Trainer:
    """Trains the rows of a copy of a model.

    Parameters
    ----------
    model : LanguageModel
        Not changed.
    train_input, train_output : bool (n_rows,)
    tied : bool
        One matrix serves both sides.
    shared_map : bool
        See `TrainedRows`.
    team : SharedWork
        Processes that take each step together, each with its share of the batch.

    Attributes
    ----------
    model : LanguageModel
        The copy, as it stands.
    any_rows : bool
        Whether there is a row to train.
    loss : float, or a tensor of one
        Mean of the last batch, in nats; NaN before the first.
    """

    def __init__(
        self,
        model: LanguageModel,
        train_input: Mask,
        train_output: Mask,
        *,
        tied: bool,
        shared_map: bool,
        team: SharedWork = ALONE,
    ) -> None:
        self.team = team
        given = model.model.get_output_embeddings()
        bias = getattr(given, "bias", None)
        first = _numbers(model.model.get_input_embeddings().weight)
        self.model = model.patched(
            first,
            first if tied else _numbers(given.weight),
            None if bias is None else _numbers(bias),
        )
        self._inner: Any = self.model.model.get_input_embeddings()
        self._outer: Any = self.model.model.get_output_embeddings()
        if tied:
            self._outer.weight = self._inner.weight
            train_input = train_output = train_input | train_output
        # Where logits are not a plain product, autograd goes through the whole of the head.
        self._plain = self.model.plain_head
        # A batch touches few input rows: their gradients alone are stored.
        self._inner.sparse = self._plain
        self._tied, self._masks = tied, (train_input, train_output)
        self.loss: SupportsFloat = float("nan")
        self.any_rows = bool(train_input.any() or train_output.any())
        self._output = TrainedRows(self._outer.weight, train_output, shared_map=shared_map)
        self._input = self._output
        if not tied:
            self._input = TrainedRows(self._inner.weight, train_input, shared_map=shared_map)
        self._bias = None
        if bias is not None:
            self._bias = TrainedRows(self._outer.bias, train_output, shared_map=False)

    def write(self) -> None:
        """Bring every trained row to the model; a step brings only the input rows it reads."""
        self._input.write()

    def state(self) -> State:
        """Return a copy of the rows as they stand in the model."""
        return tuple(tensor.detach().clone() for tensor in self._tensors())

    def restore(self, state: State) -> None:
        """Put rows back, to be returned or to start from."""
        for tensor, before in zip(self._tensors(), state, strict=True):
            tensor.data.copy_(before)
        for side in (self._input, self._output, self._bias):
            if side is not None:
                side.restart()

    def result(self) -> Matrices:
        """Return a copy of the rows."""
        first = _numbers(self._inner.weight)
        second = first if self._tied else _numbers(self._outer.weight)
        return Matrices(first, second, None if self._bias is None else _numbers(self._outer.bias))

    def _tensors(self) -> list[torch.Tensor]:
        tensors = [self._inner.weight] if self._tied else [self._inner.weight, self._outer.weight]
        return tensors if self._bias is None else [*tensors, self._outer.bias]

    def step(self, ids: Ids, real: Mask, rate: float) -> int:
        """Take a step on one padded batch; return how many tokens were scored."""
        import torch

        n = int(real[:, 1:].sum())
        touched = torch.from_numpy(np.unique(ids)).to(self._inner.weight.device)
        if not self._tied:
            self._input.write(touched)
        of_input, of_output, of_bias = self._of_all(ids, real, touched, n)
        if self._tied and of_output is not None:
            self._output.step_all(of_output, rate)
        else:
            if of_input is not None:
                self._input.step_some(touched, of_input, rate)
            if of_output is not None:
                self._output.step_all(of_output, rate)
        if self._bias is not None and of_bias is not None:
            self._bias.step_all(of_bias, rate)
        return n

    def _of_all(self, ids: Ids, real: Mask, touched: torch.Tensor, n: int) -> Gradients:
        """Return the gradients of a batch of which each process takes a share."""
        own = slice(self.team.rank, None, self.team.n)
        ids, real = ids[own], real[own]
        longest = int(real.sum(1).max(initial=0))
        ids, real = ids[:, :longest], real[:, :longest]
        n_own = int(real[:, 1:].sum())
        found = self._of_batch(ids, real, touched) if n_own else self._zeros(touched)
        if self.team.n == 1:
            return found
        of_input, of_output, of_bias = (
            None if part is None else self.team.summed(part * (n_own / n)) for part in found
        )
        return of_input, of_output, of_bias

    def _of_batch(self, ids: Ids, real: Mask, touched: torch.Tensor) -> Gradients:
        """Return the mean loss's gradients: of the input rows `touched`, output rows and bias."""
        import torch

        batch = torch.from_numpy(ids.copy()).to(touched.device)
        scored = torch.from_numpy(real[:, 1:].copy()).to(touched.device)
        # Of input rows that do not train no gradient is taken, nor of the body above them.
        self._inner.weight.requires_grad_(bool(self._masks[0].any()))
        try:
            with torch.enable_grad():
                of_output, of_bias = self._backward(batch, scored)
            of_input = self._inner.weight.grad
        finally:
            self._inner.weight.requires_grad_(False)
            self._inner.weight.grad = None
        if self._tied:
            return None, of_output if of_input is None else of_output + of_input, of_bias
        if of_input is not None and of_input.is_sparse:
            of_input = of_input.coalesce()
            rows = torch.zeros((len(touched), of_input.shape[1]), device=touched.device)
            rows[torch.searchsorted(touched, of_input.indices()[0])] = of_input.values().float()
            of_input = rows
        elif of_input is not None:
            of_input = of_input[touched].float()
        return of_input, of_output if self._masks[1].any() else None, of_bias

    def _zeros(self, touched: torch.Tensor) -> Gradients:
        """Return what `_of_batch` would of nothing."""
        import torch

        output, width = self._outer.weight, self._inner.weight.shape[1]
        return (
            None
            if self._tied or not self._masks[0].any()
            else torch.zeros((len(touched), width), device=touched.device),
            torch.zeros_like(output, dtype=torch.float32) if self._masks[1].any() else None,
            None if self._bias is None else torch.zeros_like(self._outer.bias, dtype=torch.float32),
        )

    def _backward(
        self, batch: torch.Tensor, scored: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the mean loss's gradients of output rows and bias; leave the input's in place."""
        if not self._plain:
            return self._through_the_head(batch, scored)
        head = backward_from_head(self.model, batch, scored)
        self.loss = head.loss
        return head.rows, head.bias

    def _through_the_head(
        self, batch: torch.Tensor, scored: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        import torch

        trained = [self._outer.weight, *([] if self._bias is None else [self._outer.bias])]
        if self._tied:
            trained = trained[1:]
        for tensor in trained:
            tensor.requires_grad_(True)
        try:
            scores = self.model.model(input_ids=batch, use_cache=False).logits
            goals = batch[:, 1:][scored]
            loss = torch.nn.functional.cross_entropy(scores[:, :-1][scored].float(), goals)
            self.loss = loss.detach()
            loss.backward()  # type: ignore[no-untyped-call]
            bias = None if self._bias is None else self._outer.bias.grad.float()
            if self._tied:
                return torch.zeros_like(self._outer.weight, dtype=torch.float32), bias
            return self._outer.weight.grad.float(), bias
        finally:
            for tensor in trained:
                tensor.requires_grad_(False)
                tensor.grad = None


def _numbers(tensor: torch.Tensor) -> Float32:
    """Return a float32 copy."""
    return to_float32(tensor).copy()

"""A causal language model to be run, never trained: states, losses, logits, samples.

A thin wrapper over a transformers model in eval mode. Sequences are batched by length and never
padded. States are what the blocks and the output rows really see, caught by hooks, so no family's
scaling is repeated here. It does not tokenise.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tokensurgeon.checkpoint.checkpoint import Rows, max_positions
from tokensurgeon.checkpoint.embeddings import (
    CAUSAL,
    has_output_bias,
    position_offset,
    replace_rows,
)
from tokensurgeon.errors import CheckpointError, EvaluationError
from tokensurgeon.models.device_map import shared_with_copies
from tokensurgeon.models.sampling import sample

if TYPE_CHECKING:
    import torch

TOKENS_PER_BATCH = 4096
LOGIT_BYTES = 32 << 20
"""Bound of one block of float32 logits: the C library keeps blocks of this size for the next."""


class _ReachedError(Exception):
    """Carries a state out of a forward pass that need not go on; never leaves this module."""

    def __init__(self, state: torch.Tensor) -> None:
        self.state = state


class LanguageModel:
    """A causal language model without gradients; an instance satisfies `contract.States`.

    Attributes
    ----------
    model
        The transformers model, in eval mode.
    n_layers : int
        Number of blocks.
    width : int
        Width of the hidden states.
    n_rows : int
        Number of ids.
    max_positions : int or None
        The longest sequence.
    device : str
    logit_scale : float
    softcap : float or None
        Logits are softcap * tanh(logit_scale * head(state) / softcap), without a softcap
        logit_scale * head(state).
    kind : str
        As in `Layout`.
    """

    kind: str = CAUSAL

    def __init__(self, model: Any, *, logit_scale: float = 1.0, softcap: float | None = None):
        self.model = model.eval()
        self.model.requires_grad_(False)
        self.logit_scale, self.softcap = logit_scale, softcap
        text = model.config.get_text_config()
        self.n_layers = int(text.num_hidden_layers)
        self.width = int(text.hidden_size)
        self.n_rows = int(model.get_input_embeddings().weight.shape[0])
        self.max_positions = max_positions(model.config, position_offset(model))
        self.device = str(model.get_input_embeddings().weight.device)

    def __call__(
        self,
        ids: Sequence[Sequence[int]],
        layer: int,
        position_ids: Sequence[Sequence[int]] | None = None,
    ) -> Rows:
        """Return `states(ids, layer, position_ids)`."""
        return self.states(ids, layer, position_ids)

    def states(
        self,
        ids: Sequence[Sequence[int]],
        layer: int,
        position_ids: Sequence[Sequence[int]] | None = None,
    ) -> Rows:
        """Return the state after the last id of each sequence, float32 (len(ids), width).

        Layer 0 is what the first block sees (embeddings, with positions where the model adds
        them), layer k what follows block k, layer `n_layers` what the output rows see: the state
        after the last norm and whatever else the model does before its output matrix.

        Raises
        ------
        EvaluationError
            On a layer, an id or a position that the model does not have.
        """
        if not 0 <= layer <= self.n_layers:
            raise EvaluationError(f"layer {layer} asked of a model with {self.n_layers} layers")
        self._check(ids, position_ids)
        states = np.zeros((len(ids), self.width), dtype=np.float32)
        for members in self._batches(ids):
            positions = None if position_ids is None else [position_ids[i] for i in members]
            state = self._run([ids[i] for i in members], layer, positions)
            states[members] = state[:, -1].float().cpu().numpy()
        return states

    def every_state(self, ids: Sequence[Sequence[int]], layer: int) -> list[Rows]:
        """Return the states at all positions, one (len(ids[i]), width) array per sequence.

        `layer` as in `states`. Sequences share a forward pass padded on the right, where a causal
        model's earlier positions cannot look.
        """
        self._check(ids, None)
        found = [np.zeros((len(one), self.width), dtype=np.float32) for one in ids]
        for members in self._padded_batches(ids, TOKENS_PER_BATCH, shortest=1):
            longest = len(ids[members[-1]])
            batch = [[*ids[i], *[ids[i][-1]] * (longest - len(ids[i]))] for i in members]
            states = self._run(batch, layer, None).float().cpu().numpy()
            for i, state in zip(members, states, strict=True):
                found[i][:] = state[: len(ids[i])]
        return found

    def final_states(self, ids: Sequence[int]) -> Rows:
        """Return what the output rows see at each position of one sequence, (len(ids), width)."""
        return self.every_state([ids], self.n_layers)[0]

    def logits(self, ids: Sequence[int]) -> Rows:
        """Return the logits at each position of one sequence, float32 (len(ids), n_rows)."""
        import torch

        self._check([ids], None)
        if not len(ids):
            return np.zeros((0, self.n_rows), dtype=np.float32)
        with torch.inference_mode():
            result = self._forward(self._tensor([ids])).logits[0].float()
            values: Rows = result.cpu().numpy()
        return values

    def nll(self, ids: Sequence[Sequence[int]]) -> list[npt.NDArray[np.float64]]:
        """Return the loss in nats of each id given those before it, the first left out.

        Returns
        -------
        list of float64 (max(len - 1, 0),)
            From a float32 log-softmax, computed in blocks bounded in memory.
        """
        import torch
        from torch.nn.functional import cross_entropy

        self._check(ids, None)
        losses = [np.zeros(max(len(one) - 1, 0)) for one in ids]
        whole = not self._head_is_known
        step = max(1, LOGIT_BYTES // (4 * self.n_rows))
        for members in self._padded_batches(ids, step if whole else TOKENS_PER_BATCH):
            longest = len(ids[members[-1]])
            # Padded on the right, where a causal model's earlier positions cannot look.
            batch = self._tensor(
                [[*ids[i], *[ids[i][-1]] * (longest - len(ids[i]))] for i in members]
            )
            lengths = torch.tensor([len(ids[i]) for i in members], device=batch.device)
            real = torch.arange(1, longest, device=batch.device) < lengths[:, None]
            with torch.inference_mode():
                if whole:
                    blocks = self._forward(batch).logits[:, :-1].float()
                else:
                    blocks = self._run_tensor(batch, self.n_layers, None)[:, :-1]
                flat, targets = blocks[real], batch[:, 1:][real]
                parts = []
                for start in range(0, flat.shape[0], step):
                    part = flat[start : start + step]
                    scores = part if whole else self._head(part)
                    goal = targets[start : start + step]
                    parts.append(cross_entropy(scores, goal, reduction="none"))
            found = torch.cat(parts).double().cpu().numpy()
            ends = np.cumsum([len(ids[i]) - 1 for i in members])
            for i, values in zip(members, np.split(found, ends[:-1]), strict=True):
                losses[i] = values
        return losses

    def generate(
        self,
        prefix: Sequence[int],
        max_new_tokens: int,
        seed: int,
        n: int = 1,
        *,
        stop: Collection[int] = (),
        temperature: float = 1.0,
        top_k: int | None = None,
    ) -> list[list[int]]:
        """Sample `n` continuations of `prefix`; the prefix is not part of what is returned.

        A continuation ends with the first id of `stop`, which is kept, or after `max_new_tokens`,
        or where the model has no further position. Temperature 0 takes the likeliest id.
        """
        self._check([prefix], None)
        if not len(prefix):
            raise EvaluationError("a model needs at least one id to continue; give a prefix")
        if self.max_positions is not None:
            max_new_tokens = min(max_new_tokens, self.max_positions - len(prefix))
        batch = self._tensor([prefix] * n)
        return sample(self.model, batch, max_new_tokens, seed, stop, temperature, top_k)

    def patched(
        self, input_rows: Rows, output_rows: Rows, output_bias: Rows | None = None
    ) -> LanguageModel:
        """Return another model with this body and these rows; this one is not touched.

        Parameters
        ----------
        input_rows, output_rows : float32 (n_new, width)
            Rounded to the checkpoint's dtype by the caller (see `checkpoint.round_rows`).
        output_bias : float32 (n_new,) or None
            Needed where the model has an output bias.

        Raises
        ------
        CheckpointError
            If the shapes do not fit, or the bias is missing or too much.
        """
        import torch

        kept = [*self.model.parameters(), *self.model.buffers()]
        # parameters and buffers are named as already copied, so the copy shares their memory
        shared = {id(tensor): tensor for tensor in kept} | shared_with_copies(self.model)
        model: Any = copy.deepcopy(self.model, shared)
        inner, has_bias = model.get_input_embeddings(), has_output_bias(model)
        if has_bias != (output_bias is not None):
            raise CheckpointError(
                f"the model has {'an' if has_bias else 'no'} output bias, "
                f"and {'none' if has_bias else 'one'} was given"
            )
        if input_rows.shape != output_rows.shape or input_rows.shape[1] != inner.weight.shape[1]:
            raise CheckpointError(
                f"rows of shape {input_rows.shape} and {output_rows.shape} do not fit a model "
                f"of width {inner.weight.shape[1]}"
            )

        def parameter(values: Rows) -> torch.nn.Parameter:
            tensor = torch.tensor(np.ascontiguousarray(values))
            tensor = tensor.to(inner.weight.device, inner.weight.dtype)
            return torch.nn.Parameter(tensor, requires_grad=False)

        bias = None if output_bias is None else parameter(output_bias)
        replace_rows(model, parameter(input_rows), parameter(output_rows), bias)
        return type(self)(model, logit_scale=self.logit_scale, softcap=self.softcap)

    @cached_property
    def _blocks(self) -> Any:
        import torch

        for module in self.model.modules():
            if isinstance(module, torch.nn.ModuleList) and len(module) == self.n_layers:
                return module
        raise EvaluationError(
            f"the blocks of {type(self.model).__name__} were not found; only its final states "
            "can be had"
        )

    @cached_property
    def _head_is_known(self) -> bool:
        """Whether logits are softcap(scale * head(state)), tried once against the model itself."""
        import torch

        probe = self._tensor([[i % self.n_rows for i in range(3)]])
        with torch.inference_mode():
            told = self._forward(probe).logits.float()
            ours = self._head(self._run_tensor(probe, self.n_layers, None)[0])[None]
        if told.shape != ours.shape or not bool(torch.isfinite(told).all()):
            return False
        return bool(torch.allclose(told, ours, rtol=1e-5, atol=1e-5))

    def _head(self, states: torch.Tensor) -> torch.Tensor:
        import torch

        scores: torch.Tensor = self.model.get_output_embeddings()(states).float()
        if self.logit_scale != 1.0:
            scores = scores * self.logit_scale
        if self.softcap is not None:
            scores = self.softcap * torch.tanh(scores / self.softcap)
        return scores

    def _forward(self, batch: torch.Tensor, positions: torch.Tensor | None = None) -> Any:
        extra: dict[str, Any] = {}
        if positions is not None:
            import torch

            # with positions alone, a gap in them would be taken for a packed second sequence
            extra = {"position_ids": positions, "attention_mask": torch.ones_like(batch)}
        return self.model(input_ids=batch, use_cache=False, **extra)

    def _run(
        self, ids: Sequence[Sequence[int]], layer: int, positions: Sequence[Sequence[int]] | None
    ) -> torch.Tensor:
        placed = None if positions is None else self._tensor(positions)
        return self._run_tensor(self._tensor(ids), layer, placed)

    def _run_tensor(
        self, batch: torch.Tensor, layer: int, positions: torch.Tensor | None
    ) -> torch.Tensor:
        """Run until what block `layer`, or the output matrix, is given; nothing beyond is run."""
        import torch

        last = layer == self.n_layers
        module = self.model.get_output_embeddings() if last else self._blocks[layer]

        def catch(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            raise _ReachedError(args[0] if args else kwargs["hidden_states"])

        handle = module.register_forward_pre_hook(catch, with_kwargs=True)
        try:
            with torch.inference_mode():
                self._forward(batch, positions)
        except _ReachedError as reached:
            return reached.state.to(batch.device)  # of a model that is spread, a block's elsewhere
        finally:
            handle.remove()
        raise EvaluationError(f"layer {layer} of {type(self.model).__name__} was never reached")

    def _tensor(self, ids: Sequence[Sequence[int]]) -> torch.Tensor:
        import torch

        return torch.tensor(np.asarray(ids, dtype=np.int64), device=self.device)

    @staticmethod
    def _batches(
        ids: Sequence[Sequence[int]], limit: int = TOKENS_PER_BATCH
    ) -> Iterator[npt.NDArray[np.int64]]:
        """Yield members of equal length, at most `limit` tokens at once; empty ones never."""
        lengths = np.array([len(one) for one in ids], dtype=np.int64)
        for length in np.unique(lengths[lengths > 0]):
            members = np.flatnonzero(lengths == length)
            step = max(1, limit // int(length))
            for start in range(0, len(members), step):
                yield members[start : start + step]

    @staticmethod
    def _padded_batches(
        ids: Sequence[Sequence[int]], limit: int, shortest: int = 2
    ) -> Iterator[list[int]]:
        """Yield members by length, shortest first, at most `limit` tokens with their padding."""
        members: list[int] = []
        for i in sorted(range(len(ids)), key=lambda i: len(ids[i])):
            if members and len(ids[i]) * (len(members) + 1) > limit:
                yield members
                members = []
            if len(ids[i]) >= shortest:
                members.append(i)
        if members:
            yield members

    def _check(
        self, ids: Sequence[Sequence[int]], position_ids: Sequence[Sequence[int]] | None
    ) -> None:
        """Check ids and positions before the model indexes anything with them."""
        longest = 0
        for one in ids:
            if len(one) and not 0 <= min(one) <= max(one) < self.n_rows:
                raise EvaluationError(
                    f"ids from {min(one)} to {max(one)} given to a model of {self.n_rows} rows"
                )
            longest = max(longest, len(one))
        if position_ids is not None:
            if [len(one) for one in position_ids] != [len(one) for one in ids]:
                raise EvaluationError("position_ids and ids differ in length")
            if any(min(one, default=0) < 0 for one in position_ids):
                raise EvaluationError("a position is negative")
            longest = max((max(one) + 1 for one in position_ids if len(one)), default=0)
        if self.max_positions is not None and longest > self.max_positions:
            raise EvaluationError(
                f"a sequence needs {longest} positions and the model has {self.max_positions}; "
                "cut the text shorter"
            )

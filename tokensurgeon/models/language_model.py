"""A causal language model to be run, never trained: states, losses, logits, samples.

A thin wrapper over a transformers model in eval mode. States are what the blocks and the output
rows really see, caught by hooks, so no family's scaling is repeated here. It does not tokenise.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from tokensurgeon.arrays import Float32, Float64, Ids, blocks, to_float32
from tokensurgeon.checkpoint import BodyUpdate
from tokensurgeon.checkpoint.checkpoint import max_positions
from tokensurgeon.checkpoint.embeddings import CAUSAL, position_offset
from tokensurgeon.errors import CheckpointError, EvaluationError
from tokensurgeon.models.batches import TOKENS_PER_BATCH, batches_of_one_length, padded_batches
from tokensurgeon.models.device_map import offloaded_weights
from tokensurgeon.models.early_exit import states_before
from tokensurgeon.models.head import LOSS_LOGITS, OutputHead, shape_logits
from tokensurgeon.models.row_replacement import output_bias_of, replace_body, replace_rows
from tokensurgeon.models.sampling import sample

if TYPE_CHECKING:
    import torch


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
        As in `OutputHead`.
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

    @property
    def dtype(self) -> str:
        """The dtype that the model computes in, as torch names it."""
        return str(self.model.dtype).removeprefix("torch.")

    def states(
        self,
        ids: Sequence[Sequence[int]],
        layer: int,
        position_ids: Sequence[Sequence[int]] | None = None,
    ) -> Float32:
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
        for members in batches_of_one_length(ids):
            positions = None
            if position_ids is not None:
                positions = self._tensor([position_ids[i] for i in members])
            state = self._run(self._tensor([ids[i] for i in members]), layer, positions)
            states[members] = state[:, -1].float().cpu().numpy()
        return states

    __call__ = states

    def all_states(self, ids: Sequence[Sequence[int]], layer: int) -> Float32:
        """Return the states at all positions, one sequence after another, (n_tokens, width).

        `layer` as in `states`.
        """
        self._check(ids, None)
        ends = np.cumsum([0, *map(len, ids)])
        states = np.empty((int(ends[-1]), self.width), dtype=np.float32)
        for members, batch in padded_batches(ids):
            of_batch = self._run(self._tensor(batch), layer, None).float().cpu().numpy()
            for i, own in zip(members, of_batch, strict=True):
                states[ends[i] : ends[i + 1]] = own[: len(ids[i])]
        return states

    def every_state(self, ids: Sequence[Sequence[int]], layer: int) -> list[Float32]:
        """Return the states at all positions, one (len(ids[i]), width) array per sequence."""
        ends = np.cumsum([len(sequence) for sequence in ids])
        return np.split(self.all_states(ids, layer), ends[:-1]) if len(ids) else []

    def logits(self, ids: Sequence[int]) -> Float32:
        """Return the logits at each position of one sequence, float32 (len(ids), n_rows)."""
        import torch

        self._check([ids], None)
        if not len(ids):
            return np.zeros((0, self.n_rows), dtype=np.float32)
        with torch.inference_mode():
            logits: Float32 = self._forward(self._tensor([ids])).logits[0].float().cpu().numpy()
        return logits

    def nll(
        self,
        ids: Sequence[Sequence[int]],
        seen: Callable[[int, Float32], None] | None = None,
    ) -> list[Float64]:
        """Return the loss in nats of each id given those before it, the first left out.

        Parameters
        ----------
        ids : sequence of sequences of int
        seen : callable(i, states), optional
            Given the final states from which the losses of sequence i are, float32
            (len - 1, width). Nothing calls it without a `plain_head`, or for a shorter sequence.

        Returns
        -------
        list of float64 (max(len - 1, 0),)
            From a float32 log-softmax, computed in blocks bounded in memory.
        """
        import torch

        self._check(ids, None)
        losses = [np.zeros(max(len(sequence) - 1, 0)) for sequence in ids]
        whole = not self.plain_head
        limit = max(1, LOSS_LOGITS // self.n_rows) if whole else TOKENS_PER_BATCH
        for members, padded in padded_batches(ids, limit, shortest=2):
            batch = self._tensor(padded)
            lengths = torch.tensor([len(ids[i]) for i in members], device=batch.device)
            real = torch.arange(1, batch.shape[1], device=batch.device) < lengths[:, None]
            with torch.inference_mode():
                if whole:
                    given = self._forward(batch).logits[:, :-1].float()[real]
                else:
                    given = self._run(batch, self.n_layers, None)[:, :-1][real]
                of_all = self._losses(given, batch[:, 1:][real], whole)
            ends = np.cumsum([len(ids[i]) - 1 for i in members])
            for i, own in zip(members, np.split(of_all, ends[:-1]), strict=True):
                losses[i] = own
            if seen is not None and not whole:
                states = np.split(given.float().cpu().numpy(), ends[:-1])
                for i, state in zip(members, states, strict=True):
                    seen(i, state)
        return losses

    def nll_after(self, states: Float32, tokens: Ids) -> Float64:
        """Return the loss in nats of a token after each final state, as `nll` computes it.

        Parameters
        ----------
        states : float32 (n_states, width)
            Of this model or of another; this one has a `plain_head`.
        tokens : int64 (n_states,)

        Returns
        -------
        float64 (n_states,)
        """
        import torch

        if not len(states):
            return np.zeros(0)
        with torch.inference_mode():
            given = torch.from_numpy(states).to(self.device, self.model.dtype)
            return self._losses(given, torch.from_numpy(tokens).to(self.device), whole=False)

    def generate(
        self,
        prefix: Sequence[int],
        max_new_tokens: int,
        seed: int,
        starts: Sequence[Sequence[int]] = ((),),
        *,
        stop: Collection[int] = (),
        temperature: float = 1.0,
        top_k: int | None = None,
        until: Callable[[], bool] | None = None,
    ) -> list[list[int]]:
        """Sample continuations of `prefix`, which is not part of what is returned.

        There is one for each of `starts`, ids that stand after the prefix, equally many, and are
        not returned either. A continuation ends with the first id of `stop`, which is kept, or
        after `max_new_tokens`, or where the model has no further position, or once `until`, asked
        after each token, says so. Temperature 0 takes the likeliest id.
        """
        given = [[*prefix, *start] for start in starts]
        self._check(given, None)
        if not given or not given[0]:
            raise EvaluationError("a model needs at least one id to continue; give a prefix")
        if self.max_positions is not None:
            max_new_tokens = min(max_new_tokens, self.max_positions - len(given[0]))
        batch = self._tensor(given)
        return sample(self.model, batch, max_new_tokens, seed, stop, temperature, top_k, until)

    def patched(
        self,
        input_rows: Float32,
        output_rows: Float32,
        output_bias: Float32 | None = None,
        body: BodyUpdate | None = None,
    ) -> LanguageModel:
        """Return another model with this body and these rows; this one is not touched.

        Parameters
        ----------
        input_rows, output_rows : float32 (n_new, width)
            Rounded to the checkpoint's dtype by the caller (see `checkpoint.round_rows`).
        output_bias : float32 (n_new,) or None
            Needed where the model has an output bias.
        body : BodyUpdate or None
            Changes weights of the body, which are then not shared with this model.

        Raises
        ------
        CheckpointError
            If shapes or names do not fit, or the bias is missing or too much.
        """
        has_bias = output_bias_of(self.model) is not None
        if has_bias != (output_bias is not None):
            raise CheckpointError(
                f"the model has {'an' if has_bias else 'no'} output bias, "
                f"and {'none' if has_bias else 'one'} was given"
            )
        weight = self.model.get_input_embeddings().weight
        if input_rows.shape != output_rows.shape or input_rows.shape[1] != weight.shape[1]:
            raise CheckpointError(
                f"rows of shape {input_rows.shape} and {output_rows.shape} do not fit a model "
                f"of width {weight.shape[1]}"
            )
        import torch

        def parameter(values: Float32) -> torch.nn.Parameter:
            tensor = torch.tensor(np.ascontiguousarray(values)).to(weight.device, weight.dtype)
            return torch.nn.Parameter(tensor, requires_grad=False)

        # parameters and buffers are named as already copied, so the copy shares their memory
        tensors = [*self.model.parameters(), *self.model.buffers()]
        shared = {id(tensor): tensor for tensor in tensors} | offloaded_weights(self.model)
        model: Any = copy.deepcopy(self.model, shared)
        inputs = parameter(input_rows)
        outputs = inputs if output_rows is input_rows else parameter(output_rows)
        bias = None if output_bias is None else parameter(output_bias)
        replace_rows(model, inputs, outputs, bias)
        if body is not None:
            replace_body(model, body)
        return type(self)(model, logit_scale=self.logit_scale, softcap=self.softcap)

    def with_input_rows(self, input_rows: Float32, body: BodyUpdate | None = None) -> LanguageModel:
        """Return another model with these input rows (see `patched`), for its states alone."""
        bias = None if output_bias_of(self.model) is None else np.zeros(len(input_rows), np.float32)
        return self.patched(input_rows, input_rows, bias, body)

    @property
    def head(self) -> OutputHead:
        """The output side, over the rows and the bias as they are now.

        Raises
        ------
        EvaluationError
            If the model has no output rows.
        """
        outer, bias = self.model.get_output_embeddings(), output_bias_of(self.model)
        if outer is None:
            raise EvaluationError(f"{type(self.model).__name__} has no output rows")

        return OutputHead(
            to_float32(outer.weight),
            None if bias is None else to_float32(bias),
            self.logit_scale,
            self.softcap,
            self.device,
        )

    @cached_property
    def plain_head(self) -> bool:
        """Whether logits are those of `head` at the final state, tried once on the model itself."""
        import torch

        probe = self._tensor([[i % self.n_rows for i in range(3)]])
        with torch.inference_mode():
            logits = self._forward(probe).logits.float()
            plain = self._head(self._run(probe, self.n_layers, None)[0])[None]
        if plain.shape != logits.shape or not bool(torch.isfinite(logits).all()):
            return False
        return bool(torch.allclose(plain, logits, rtol=1e-5, atol=1e-5))

    @cached_property
    def layers(self) -> Any:
        """The blocks, in order: the modules between rows and last norm."""
        import torch

        for module in self.model.modules():
            if isinstance(module, torch.nn.ModuleList) and len(module) == self.n_layers:
                return module
        raise EvaluationError(
            f"the blocks of {type(self.model).__name__} were not found; only its final states "
            "can be had"
        )

    def _head(self, states: torch.Tensor) -> torch.Tensor:
        """Return final logits, in float32, of what the output matrix gives in its own dtype."""
        raw = self.model.get_output_embeddings()(states).float()
        return shape_logits(raw, self.logit_scale, self.softcap)

    def _losses(self, given: torch.Tensor, goals: torch.Tensor, whole: bool) -> Float64:
        """Return the loss of each goal after final states, or from `whole` logits, in blocks."""
        import torch
        from torch.nn.functional import cross_entropy

        parts = [
            cross_entropy(
                given[block] if whole else self._head(given[block]), goals[block], reduction="none"
            )
            for block in blocks(len(goals), LOSS_LOGITS // self.n_rows)
        ]
        losses: Float64 = torch.cat(parts).double().cpu().numpy()
        return losses

    def _forward(self, batch: torch.Tensor, positions: torch.Tensor | None = None) -> Any:
        extra: dict[str, Any] = {}
        if positions is not None:
            import torch

            # with positions alone, a gap in them would be taken for a packed second sequence
            extra = {"position_ids": positions, "attention_mask": torch.ones_like(batch)}
        return self.model(input_ids=batch, use_cache=False, **extra)

    def _run(self, batch: torch.Tensor, layer: int, positions: torch.Tensor | None) -> torch.Tensor:
        """Run until what block `layer`, or the output matrix, is given; nothing beyond is run."""
        import torch

        last = layer == self.n_layers
        module = self.model.get_output_embeddings() if last else self.layers[layer]
        what = f"layer {layer} of {type(self.model).__name__}"
        with torch.inference_mode():
            states = states_before(module, lambda: self._forward(batch, positions), what)
        return states.to(batch.device)  # where blocks lie on several devices, that of the rows

    def _tensor(self, ids: Sequence[Sequence[int]]) -> torch.Tensor:
        import torch

        return torch.tensor(np.asarray(ids, dtype=np.int64), device=self.device)

    def _check(
        self, ids: Sequence[Sequence[int]], position_ids: Sequence[Sequence[int]] | None
    ) -> None:
        """Check ids and positions before the model indexes anything with them."""
        longest = 0
        for sequence in ids:
            if len(sequence) and not 0 <= min(sequence) <= max(sequence) < self.n_rows:
                raise EvaluationError(
                    f"ids from {min(sequence)} to {max(sequence)} given to a model of "
                    f"{self.n_rows} rows"
                )
            longest = max(longest, len(sequence))
        if position_ids is not None:
            if [len(own) for own in position_ids] != [len(sequence) for sequence in ids]:
                raise EvaluationError("position_ids and ids differ in length")
            if any(min(own, default=0) < 0 for own in position_ids):
                raise EvaluationError("a position is negative")
            longest = max((max(own) + 1 for own in position_ids if len(own)), default=0)
        if self.max_positions is not None and longest > self.max_positions:
            raise EvaluationError(
                f"a sequence needs {longest} positions and the model has {self.max_positions}; "
                "cut the text shorter"
            )

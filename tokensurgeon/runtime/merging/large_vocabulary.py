"""A causal model that writes merged tokens: its own and very many others, behind an index.

After "Retrofitting (Large) Language Models with Dynamic Tokenization" (Feher, Vulić and Minixhofer,
2024, arXiv 2411.18553): the output matrix gives way to an index over the rows of a very large
vocabulary, and no product with all of them is made. A forward pass ends at the final state.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tokensurgeon.arrays import Float32, Ids
from tokensurgeon.errors import EvaluationError, SettingError
from tokensurgeon.models.head import shape_logits
from tokensurgeon.runtime.merging.continuation import final_states
from tokensurgeon.runtime.merging.dynamic_model import DynamicModel
from tokensurgeon.runtime.merging.merged_batch import MergedBatch, Pieces
from tokensurgeon.runtime.merging.merged_rows import MergedRows
from tokensurgeon.runtime.nearest_tokens import NearestTokens

DEFAULT_BIAS = -2.0
"""Added to the logits of merged tokens: rows that nobody trained draw mass that is not theirs. It
is that of hypertokens, which are such rows too."""


@dataclass(frozen=True)
class LargelyWritten:
    """What a model wrote.

    Attributes
    ----------
    ids : tuple of int
        Ids of the large vocabulary: one for each forward pass.
    own_ids : tuple of int
        What they stand for in the model's own vocabulary.
    """

    ids: tuple[int, ...]
    own_ids: tuple[int, ...]


class LargeVocabulary:
    """The model's own tokens and merged ones, any of which it may write.

    Parameters
    ----------
    model : DynamicModel
        A causal one. Its rows of merged tokens are those that it reads them by.
    tokens : sequence of tuples of int
        The pieces of the merged tokens, such as `MergedBatch.merged` of a long text. Token `i` has
        the id ``n_own + i``.
    output_rows : MergedRows
        What it writes them by; see `merged_rows` with ``side="output"``.
    method : str
        Of the index; see `NearestTokens`.
    bias : float
        Added to the logits of merged tokens.
    **settings
        Of the index, such as ``probes=64``.

    Raises
    ------
    EvaluationError
        If the model is not causal, or its logits are no product of a state and rows.
    SettingError, UnknownNameError, MissingExtraError
        As of `NearestTokens`; if a token has one piece, or occurs twice.
    """

    def __init__(
        self,
        model: DynamicModel,
        tokens: Sequence[Pieces],
        output_rows: MergedRows,
        method: str = "clusters",
        *,
        bias: float = DEFAULT_BIAS,
        **settings: Any,
    ) -> None:
        if not model.causal or not model.model.plain_head:
            raise EvaluationError(
                "an index needs a causal model whose logits are a product of its state and rows; "
                "give another model"
            )
        if len(set(tokens)) < len(tokens) or any(len(pieces) < 2 for pieces in tokens):
            raise SettingError("merged tokens must be of two pieces or more, each named once")
        self.model, self.tokens = model, tuple(tokens)
        head = model.model.head
        self.n_own = len(head.rows)
        rows = np.concatenate([head.rows, output_rows(self.tokens)])
        # A model may scale or cap what comes of rows and bias: the bias here goes through that too.
        biases = np.zeros(len(rows), dtype=np.float32)
        biases[self.n_own :] = bias
        if head.bias is not None:
            biases[: self.n_own] += head.bias
        self._head = head
        self.index = NearestTokens(rows, method, bias=biases, **settings)

    def pieces_of(self, token: int) -> Pieces:
        """Return the model's own ids that an id of the large vocabulary stands for."""
        return (token,) if token < self.n_own else self.tokens[token - self.n_own]

    def generate(
        self,
        batch: MergedBatch,
        max_new_tokens: int,
        *,
        temperature: float = 0.0,
        top_k: int = 16,
        seed: int = 0,
        stop: Collection[int] = (),
    ) -> list[LargelyWritten]:
        """Continue each sequence of a batch with tokens of the large vocabulary, one by one.

        Parameters
        ----------
        batch : MergedBatch
            Of ``model.merge``; each sequence has two tokens or more, of which the last is one of
            the model's own.
        max_new_tokens : int
            Forward passes, at most.
        temperature : float
            0 takes the nearest token.
        top_k : int
            Otherwise one of so many is drawn.
        seed : int
            Of the draws; every sequence has draws of its own.
        stop : collection of int
            Ids after which a sequence ends.

        Raises
        ------
        EvaluationError
            If a sequence is too short, or its last token was merged.
        """
        return [
            self._continue(batch, sequence, max_new_tokens, temperature, top_k, seed, stop)
            for sequence in batch.sequences
        ]

    def _continue(
        self,
        batch: MergedBatch,
        sequence: Ids,
        max_new_tokens: int,
        temperature: float,
        top_k: int,
        seed: int,
        stop: Collection[int],
    ) -> LargelyWritten:
        if len(sequence) < 2 or sequence[-1] >= batch.n_own:
            raise EvaluationError(
                f"a sequence of {len(sequence)} tokens cannot be gone on with: it needs two, the "
                "last of them not merged; set keep_last=1, or give more text"
            )
        generator = np.random.default_rng(seed)
        head = MergedBatch((sequence[:-1],), batch.merged, batch.n_own, batch.n_merges)
        read = self.model.prefill(head)
        position = int(read.next_position[0])
        token, written = int(sequence[-1]), list[int]()
        most = self.model.model.max_positions
        while len(written) < max_new_tokens and (most is None or position < most):
            state, position = self._state(token, read.cache, position)
            token = self._choose(state, temperature, top_k, generator)
            written.append(token)
            if token in stop:
                break
        own = tuple(i for token in written for i in self.pieces_of(token))
        return LargelyWritten(tuple(written), own)

    def _state(self, token: int, cache: Any, position: int) -> tuple[Float32, int]:
        """Return the final state after one more token, and the position of the next."""
        import torch

        pieces = self.pieces_of(token)
        merged = len(pieces) > 1
        one = MergedBatch(
            (np.array([self.n_own if merged else token]),),
            (pieces,) if merged else (),
            self.n_own,
            0,
        )
        given = self.model.inputs(one)
        options: dict[str, Any] = {}
        if self.model.positions == "spread":
            position += len(pieces) - 1
            options["position_ids"] = torch.tensor([[position]], device=self.model.model.device)
        network = self.model.model.model
        states = final_states(
            self.model.model,
            lambda: network(
                inputs_embeds=given.embeddings, past_key_values=cache, use_cache=True, **options
            ),
        )
        return states[0, -1:].float().cpu().numpy(), position + 1

    def _choose(
        self, state: Float32, temperature: float, top_k: int, generator: np.random.Generator
    ) -> int:
        import torch

        ids, raw = self.index.search(state, 1 if temperature <= 0 else top_k)
        found = ids[0] >= 0
        if temperature <= 0 or found.sum() == 1:
            return int(ids[0, 0])
        logits = shape_logits(torch.from_numpy(raw[0, found]), self._head.scale, self._head.softcap)
        p = torch.softmax(logits.double() / temperature, dim=0).numpy()
        return int(generator.choice(ids[0, found], p=p))

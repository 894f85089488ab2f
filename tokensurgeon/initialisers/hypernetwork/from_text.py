"""Train the network through the frozen model, on text cut by sampled vocabularies. Needs torch.

The rows of the tokens that a batch shows, and of others that could have stood there, are made by
the network; those that the source has are its own. The loss is the model's on the batch, over
these rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.func import functional_call
from torch.nn import functional

from tokensurgeon.arrays import Float32, Ids
from tokensurgeon.initialisers.hypernetwork.row_network import NetworkComposer, pack
from tokensurgeon.initialisers.hypernetwork.vocabulary_sampling import OneTarget, Sample, Sampler
from tokensurgeon.text.chunks import Chunk, chunk_documents

RATE = 5e-4
"""Half of the rate on rows: the network is trained by then, and losses of text are noisier."""
CHUNK = 256
"""Bytes of a chunk: short, so that a batch shows many documents."""
TOKENS = {"cpu": 1536, "cuda": 16384}
"""Of a batch: what keeps the device busy without filling its memory."""
OTHERS = 512
"""New tokens of the vocabulary that a batch does not show and that it is scored against: it
bounds the logits of a batch."""
ALSO = 2048
"""Shared tokens likewise; their rows cost nothing to make."""
STEPS_PER_SAMPLE = 2
"""Batches under one drawn vocabulary: to draw one costs time, and to cut text by it."""
MOST_SAMPLES = 48
"""Vocabularies that are drawn; then they come again. It bounds memory and the time of drawing."""
VALIDATION_BYTES = 24_000
"""Of text that a training is validated on, at most: it bounds the time of a validation."""
UNSEEN = (1 << 20) + 1
"""Number of the vocabulary that validates and is never trained on."""


class TextExamples:
    """Batches of text under sampled vocabularies.

    Parameters
    ----------
    model : LanguageModel
        The source; its body is not changed.
    draws : OneTarget or Sampler
    texts, validation : sequence of str
        What is trained on, and what validates the training.
    prefix : sequence of int
        Source ids that a text starts with.
    output_bias : float32 (n_source,) or None
    seed : int
    """

    def __init__(
        self,
        model: Any,
        draws: OneTarget | Sampler,
        texts: Sequence[str],
        validation: Sequence[str],
        *,
        prefix: Sequence[int],
        output_bias: Float32 | None,
        seed: int,
    ) -> None:
        self._model, self._draws, self._seed = model, draws, seed
        self._prefix = np.array(prefix, dtype=np.int64)
        self._bias = output_bias
        self._chunks = chunk_documents(texts, max_bytes_per_chunk=CHUNK)
        self._validation = chunk_documents(
            validation, max_bytes_per_chunk=CHUNK, max_bytes_total=VALIDATION_BYTES
        )
        self._sample: tuple[int, Sample] | None = None
        self._unseen = draws.draw(UNSEEN)
        self.n_tokens = 0
        inner, outer = model.model.get_input_embeddings(), model.model.get_output_embeddings()
        self._names: dict[str, str] = {}
        """From the model's names to the matrix that a batch's rows stand in for."""
        for path, module in model.model.named_modules():
            if module is inner:
                self._names[f"{path}.weight"] = "input"
            if module is outer:
                self._names[f"{path}.weight"] = "output"
                if getattr(outer, "bias", None) is not None:
                    self._names[f"{path}.bias"] = "bias"
        self._batch = TOKENS["cpu" if str(model.device) == "cpu" else "cuda"]

    @property
    def enough(self) -> bool:
        """Whether there is anything to train on."""
        return bool(self._chunks and self._validation)

    def validate(self, composer: NetworkComposer) -> float:
        """Return the model's bits per byte on the validation text under the unseen vocabulary."""
        sample = self._unseen
        sequences, n_bytes = self._cut(sample, self._validation)
        chosen = np.flatnonzero(sample.has_row)
        with torch.no_grad():
            table, bias = self._table(composer, sample, chosen)
        rows = [one.float().cpu().numpy() for one in table]
        patched = self._model.patched(
            rows[0], rows[-1], None if bias is None else bias.float().cpu().numpy()
        )
        indices = self._indices(sample, chosen)
        losses = patched.nll([_indexed(ids, indices).tolist() for ids in sequences])
        return float(sum(map(np.sum, losses)) / np.log(2) / max(1, n_bytes))

    def loss(self, composer: NetworkComposer, number: int) -> torch.Tensor:
        """Return the model's mean loss on batch `number`, in nats."""
        generator = np.random.default_rng((self._seed, 3, number))
        which = (number // STEPS_PER_SAMPLE) % MOST_SAMPLES
        if self._sample is None or self._sample[0] != which:
            self._sample = which, self._draws.draw(which)
        sample = self._sample[1]
        room = self._batch * 3
        order = generator.permutation(len(self._chunks))[: max(1, room // CHUNK)]
        cut, _ = self._cut(sample, [self._chunks[i] for i in order.tolist()])
        new = np.flatnonzero(sample.has_row & (sample.source_ids < 0))
        if not cut or not len(new):  # nothing to learn from here
            return torch.zeros((), device=composer.device, requires_grad=True)
        known = np.flatnonzero(sample.source_ids >= 0)
        shown = np.unique(np.concatenate(cut))
        shown = shown[shown >= 0]
        chosen, shift = _beside(generator, shown, ((new, OTHERS), (known, ALSO)))
        table, bias = self._table(composer, sample, chosen)
        indices = self._indices(sample, chosen)
        sequences = [_indexed(one, indices) for one in cut]
        longest = max(map(len, sequences))
        batch = np.stack([np.pad(one, (0, longest - len(one)), mode="edge") for one in sequences])
        lengths = np.array([len(one) for one in sequences])
        real = torch.from_numpy(np.arange(1, longest) < lengths[:, None]).to(composer.device)
        ids = torch.from_numpy(batch).to(composer.device)
        self.n_tokens += int(lengths.sum())
        weight = torch.from_numpy(np.pad(shift, (len(self._prefix), 0))).to(composer.device)
        scores = self._logits(ids, table, bias)[:, :-1][real].float() + weight
        return functional.cross_entropy(scores, ids[:, 1:][real])

    def _logits(
        self, ids: torch.Tensor, table: list[torch.Tensor], bias: torch.Tensor | None
    ) -> torch.Tensor:
        """Run the model with other rows in the place of its own, gradients reaching them."""
        rows = {"input": table[0], "output": table[-1]}
        if bias is not None:
            rows["bias"] = bias
        swapped = {name: rows[kind] for name, kind in self._names.items()}
        inner = self._model.model.get_input_embeddings()
        # Of the source's ids, where it is set; a batch has ids of its own.
        padding, inner.padding_idx = getattr(inner, "padding_idx", None), None
        try:
            logits: torch.Tensor = functional_call(
                self._model.model,
                swapped,
                kwargs={"input_ids": ids, "use_cache": False},
                tie_weights=False,
            ).logits
        finally:
            inner.padding_idx = padding
        return logits

    def _table(
        self, composer: NetworkComposer, sample: Sample, chosen: Ids
    ) -> tuple[list[torch.Tensor], torch.Tensor | None]:
        """Return the rows of the prefix and of chosen tokens for each matrix, and their bias."""
        source = sample.source_ids[chosen]
        new = np.flatnonzero(source < 0)
        rows = composer(pack([sample.spellings[i] for i in chosen[new].tolist()], composer.device))
        everything = np.concatenate([self._prefix, np.where(source < 0, 0, source)])
        taken = torch.from_numpy(everything).to(composer.device)
        where = torch.from_numpy(new + len(self._prefix)).to(composer.device)
        dtype = self._model.model.get_input_embeddings().weight.dtype
        tables = [
            own[taken].index_copy(0, where, composed).to(dtype)
            for own, composed in zip(composer.rows, rows, strict=True)
        ]
        bias = None
        if self._bias is not None:
            values = self._bias[everything].copy()
            values[new + len(self._prefix)] = self._bias.mean()
            bias = torch.from_numpy(values).to(composer.device, dtype)
        return tables, bias

    def _indices(self, sample: Sample, chosen: Ids) -> Ids:
        """Return the index of each id of a sample in a table of the prefix and chosen tokens."""
        indices = np.zeros(len(sample.source_ids), dtype=np.int64)
        indices[chosen] = np.arange(len(chosen)) + len(self._prefix)
        return indices

    def _cut(self, sample: Sample, chunks: Sequence[Chunk]) -> tuple[list[Ids], int]:
        """Return chunks as ids, the prefix as -1, -2, …, and how many bytes they have.

        Those with a token that has no row, or too long, are left out.
        """
        has_row = sample.has_row
        prefix = -1 - np.arange(len(self._prefix))
        sequences, n_bytes = [], 0
        most = self._model.max_positions or 1 << 30
        encoded = sample.encode([chunk.text for chunk in chunks])
        for chunk, ids in zip(chunks, encoded, strict=True):
            if ids is None or len(ids) + len(prefix) > most:
                continue
            if len(ids) and has_row[ids].all():
                sequences.append(np.concatenate([prefix, ids]))
                n_bytes += chunk.n_bytes
        return [one for one in sequences if len(one) > 1], n_bytes


def _indexed(ids: Ids, indices: Ids) -> Ids:
    """Return indices in a table that begins with the prefix, for ids in which it is -1, -2, …."""
    return np.where(ids < 0, -1 - ids, indices[ids])


def _beside(
    generator: np.random.Generator, shown: Ids, kinds: Sequence[tuple[Ids, int]]
) -> tuple[Ids, Float32]:
    """Return the shown ids with some others of each kind, and what to add to their logits.

    Each of the others stands for all that were not drawn: without that, the many tokens of a large
    vocabulary would learn to draw more mass than the batch shows them to have.
    """
    ids, shifts = [shown], [np.zeros(len(shown), dtype=np.float32)]
    for kind, most in kinds:
        rest = np.setdiff1d(kind, shown)
        drawn = rest if len(rest) <= most else generator.choice(rest, most, replace=False)
        ids.append(drawn)
        stands_for = np.log(len(rest) / len(drawn)) if len(drawn) else 0.0
        shifts.append(np.full(len(drawn), stands_for, dtype=np.float32))
    chosen, order = np.unique(np.concatenate(ids), return_index=True)
    return chosen, np.concatenate(shifts)[order]

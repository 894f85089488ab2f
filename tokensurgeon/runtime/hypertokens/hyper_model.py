"""A model that reads and predicts codes: its rows are extended, per sequence, by hypertokens.

Hooks do it, so that the model stays what it is, and transformers' own `generate` works on it. When
a forward pass begins, the codebooks of its sequences read the new codes, and a composer makes the
rows of the hypertokens that come of them. The embedding then has rows for them, the output matrix
gives logits for them, and the model's logits are -inf where a hypertoken does not exist yet.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from tokensurgeon.errors import EvaluationError, UnsupportedCheckpointError
from tokensurgeon.models import LanguageModel
from tokensurgeon.runtime.hypertokens.codec import Codebook, Limits
from tokensurgeon.runtime.hypertokens.composers import Composer, HyperRows

NEVER = 1 << 60
"""When a hypertoken is born that does not exist: after the last code of any sequence."""

PROBED = 64
"""Rows that the scale of an embedding is read from; one alone could be zero."""


def base_rows(model: LanguageModel) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the input and the output rows of a model, (n_ids, width); not copied.

    Raises
    ------
    UnsupportedCheckpointError
        If it has no output rows, or the sides differ in shape.
    """
    inner, outer = model.model.get_input_embeddings(), model.model.get_output_embeddings()
    if outer is None or inner.weight.shape != outer.weight.shape:
        raise UnsupportedCheckpointError(
            f"{type(model.model).__name__} has other rows on its output side than on its input "
            "side, and a hypertoken needs both alike; take a causal model with as many of either"
        )
    return inner.weight, outer.weight


class HyperTables:
    """The hypertokens of a batch, as tensors that grow.

    Attributes
    ----------
    books : list of Codebook
        Of each sequence.
    input, output : float (n, k, width)
        Rows by sequence and number.
    bias : float (n, k)
    born : int64 (n, k)
        As in `Codebook`; `NEVER` where a sequence has no such hypertoken.
    """

    def __init__(self, limits: Limits, n: int, rows: torch.Tensor) -> None:
        self.limits = limits
        self.books = [Codebook(limits) for _ in range(n)]
        self.n_seen = 0
        self.input = rows.new_zeros((n, 0, rows.shape[1]))
        self.output, self.bias = self.input, rows.new_zeros((n, 0))
        self.born = torch.zeros((n, 0), dtype=torch.int64, device=rows.device)

    @property
    def n_hyper(self) -> int:
        """The most hypertokens that a sequence of the batch has."""
        return max(len(book.phrases) for book in self.books)

    def read(self, codes: torch.Tensor, composer: Composer) -> None:
        """Take the next codes of each sequence, int64 (n, length), and make the rows they bring."""
        before = [len(book.phrases) for book in self.books]
        for book, own in zip(self.books, codes.tolist(), strict=True):
            for code in own:
                book.read(code)
        self.n_seen += codes.shape[1]
        places = [
            (i, number)
            for i, book in enumerate(self.books)
            for number in range(before[i], len(book.phrases))
        ]
        if not places:
            return
        rows = composer([self.books[i].phrases[number] for i, number in places])
        self._grow()
        index = tuple(torch.tensor(places, device=self.born.device).T)
        self._put(index, rows)
        born = [self.books[i].born[number] for i, number in places]
        self.born[index] = torch.tensor(born, device=self.born.device)

    def _put(self, index: tuple[torch.Tensor, ...], rows: HyperRows) -> None:
        if rows.input.requires_grad or rows.output.requires_grad:
            self.input = self.input.index_put(index, rows.input)
            self.output = self.output.index_put(index, rows.output)
            self.bias = self.bias.index_put(index, rows.bias)
            return
        self.input[index], self.output[index], self.bias[index] = rows

    def _grow(self) -> None:
        """Make room: twice as much as there is, so that a token of a long text costs no copy."""
        room, wanted = self.born.shape[1], self.n_hyper
        if wanted <= room:
            return
        more = max(wanted, min(2 * room, self.limits.max_hypertokens)) - room
        pad = torch.nn.functional.pad
        self.input = pad(self.input, (0, 0, 0, more))
        self.output = pad(self.output, (0, 0, 0, more))
        self.bias = pad(self.bias, (0, more))
        self.born = pad(self.born, (0, more), value=NEVER)

    def exists(self, last: torch.Tensor) -> torch.Tensor:
        """Return which hypertokens may follow the code of a number, bool (n, len(last), k)."""
        there: torch.Tensor = self.born[:, None, : self.n_hyper] <= last[None, :, None] + 1
        return there

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Return what the output rows give before the model's scale, (n, length, k)."""
        k = self.n_hyper
        raw = torch.einsum("ntw,nkw->ntk", states, self.output[:, :k].to(states.dtype))
        return raw + self.bias[:, None, :k].to(states.dtype)


class HyperModel:
    """A language model with a composer, whose hooks are on while `attached`.

    Parameters
    ----------
    model : LanguageModel
        Its weights are not changed.
    composer : Composer
    limits : Limits
        `n_ids` is the model's number of rows.

    Attributes
    ----------
    tables : HyperTables or None
        Of the sequences of the last forward pass.

    Raises
    ------
    UnsupportedCheckpointError
        As `base_rows`.
    """

    def __init__(self, model: LanguageModel, composer: Composer, limits: Limits) -> None:
        self.model, self.composer, self.limits = model, composer, limits
        self.tables: HyperTables | None = None
        self._rows = base_rows(model)
        self._codes: torch.Tensor | None = None
        # Some embeddings scale what they look up; hypertokens have rows of the matrix.
        inner = model.model.get_input_embeddings()
        with torch.no_grad():
            some = self._rows[0][:PROBED].float()
            looked_up = inner(torch.arange(len(some), device=some.device)).float()
        self._scale = float((looked_up * some).sum() / some.pow(2).sum().clamp_min(1e-30))

    @contextmanager
    def attached(self) -> Iterator[Any]:
        """Give the transformers model that takes codes for ids; afterwards it is as it was."""
        model = self.model.model
        inner, outer = model.get_input_embeddings(), model.get_output_embeddings()
        hooks = [
            model.register_forward_pre_hook(self._begin, with_kwargs=True),
            inner.register_forward_pre_hook(self._first_ids),
            inner.register_forward_hook(self._extend_embedding),
            outer.register_forward_hook(self._extend_logits),
            model.register_forward_hook(self._mask),
        ]
        try:
            yield model
        finally:
            for hook in hooks:
                hook.remove()
            self._codes = None

    def _begin(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        codes: torch.Tensor | None = kwargs.get("input_ids", args[0] if args else None)
        if codes is None:
            raise EvaluationError(
                "codes are needed, and vectors were given: give a prompt of codes alone"
            )
        cache = kwargs.get("past_key_values")
        n_past = 0 if cache is None else int(cache.get_seq_length())
        if n_past == 0 or self.tables is None:
            self.tables = HyperTables(self.limits, len(codes), self._rows[1])
        if self.tables.n_seen != n_past or len(self.tables.books) != len(codes):
            raise EvaluationError(
                f"the cache holds {n_past:,} codes of {len(codes)} sequences and the codebooks "
                f"{self.tables.n_seen:,} of {len(self.tables.books)}: run one generation at a "
                "time, without beams or a draft"
            )
        self.tables.read(codes, self.composer)
        self._codes = codes

    def _first_ids(self, module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (args[0].masked_fill(args[0] >= self.limits.n_ids, 0), *args[1:])

    def _extend_embedding(
        self, module: Any, args: tuple[Any, ...], output: torch.Tensor
    ) -> torch.Tensor:
        assert self._codes is not None
        assert self.tables is not None
        number = self._codes - self.limits.n_ids
        hyper = number >= 0
        if not bool(hyper.any()):
            return output
        index = number.clamp_min(0)[..., None].expand(*number.shape, output.shape[-1])
        rows = self._scale * self.tables.input.gather(1, index)
        return torch.where(hyper[..., None], rows.to(output.dtype), output)

    def _extend_logits(
        self, module: Any, args: tuple[Any, ...], output: torch.Tensor
    ) -> torch.Tensor:
        assert self.tables is not None
        return torch.cat([output, self.tables.logits(args[0])], dim=-1)

    def _mask(self, module: Any, args: tuple[Any, ...], output: Any) -> None:
        """Rule out what does not exist yet: last, for a softcap would make -inf finite."""
        assert self.tables is not None
        logits = output.logits
        last = torch.arange(
            self.tables.n_seen - logits.shape[1], self.tables.n_seen, device=logits.device
        )
        n_ids = logits.shape[-1] - self.tables.n_hyper
        logits[..., n_ids:].masked_fill_(~self.tables.exists(last), float("-inf"))

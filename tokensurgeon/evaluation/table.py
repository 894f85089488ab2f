"""The table that an evaluation gives: figures of each model, and what they are over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

from tokensurgeon.checkpoint.embeddings import CAUSAL
from tokensurgeon.evaluation.breakdown import Part
from tokensurgeon.evaluation.by_group import GroupResult
from tokensurgeon.evaluation.exact_bytes import ExactBytes
from tokensurgeon.evaluation.excess import Excess
from tokensurgeon.evaluation.generation import Generation
from tokensurgeon.evaluation.metrics import Interval
from tokensurgeon.evaluation.model_kinds import PROTOCOLS
from tokensurgeon.evaluation.numbers import NumberLoss
from tokensurgeon.evaluation.span_relations import SpanPart
from tokensurgeon.evaluation.token_costs import NewTokens

_KEYS = {
    "n_bytes": "bytes",
    "n_tokens": "tokens",
    "n_chunks": "chunks",
    "n_lost": "chunks_not_comparable",
}
"""Names of fields of `EntryResult` in JSON, where they are others."""


@dataclass(frozen=True)
class EntryResult:
    """Figures of one model.

    Attributes
    ----------
    name : str
    bits_per_byte : float or None
        The headline; None where no chunk is comparable.
    perplexity, byte_perplexity : float or None
        Per token (not comparable between vocabularies) and per byte.
    perplexity_ratio : float or None
        Token perplexity over that of the first entry, as the literature reports it.
    bytes_per_token : float or None
        On the text given.
    n_bytes, n_tokens, n_chunks : int
        What the figures are over.
    n_lost : int
        Chunks on which the tokenizer loses text: not comparable, in no figure of this entry.
    difference : Interval or None
        Bits per byte above the first entry, over the chunks that both could score; None for the
        first.
    by_match : dict of Part, or None
        ``shared`` and ``missing`` tokens, where an alignment was given.
    by_kind : dict of Part
    excess : tuple of Excess, or None
        Where the gap comes from, both models' losses on the same bytes; None for the first.
    by_span : tuple of SpanPart, or None
        The loss by how tokens stand to the first entry's on the same text; None for the first.
    generation : Generation or None
    numbers : NumberLoss or None
        The loss on digits; None where the text has none.
    exact_bytes : ExactBytes or None
        By exact probabilities of bytes, on the first bytes of the text; None where not asked for.
    tokens_saved : float or None
        By which share the text takes fewer tokens than in the first entry, over the chunks that
        both could score; below 0 where it takes more. None for the first.
    new_tokens : NewTokens or None
        Which tokens that the first lacks cost most and least, where an alignment was given.
    by_group : dict of GroupResult, or None
        The figures on each group of the documents, where they are grouped.
    """

    name: str
    bits_per_byte: float | None
    perplexity: float | None
    byte_perplexity: float | None
    perplexity_ratio: float | None
    bytes_per_token: float | None
    n_bytes: int
    n_tokens: int
    n_chunks: int
    n_lost: int
    difference: Interval | None
    by_match: dict[str, Part] | None
    by_kind: dict[str, Part]
    excess: tuple[Excess, ...] | None = None
    by_span: tuple[SpanPart, ...] | None = None
    generation: Generation | None = None
    numbers: NumberLoss | None = None
    exact_bytes: ExactBytes | None = None
    tokens_saved: float | None = None
    new_tokens: NewTokens | None = None
    by_group: dict[str, GroupResult] | None = None

    @property
    def comparable(self) -> bool:
        """Whether the tokenizer kept all of the text, so that the entry may be ranked."""
        return self.n_lost == 0 and self.bits_per_byte is not None

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain values, ready for JSON."""
        figures = {_KEYS.get(name, name): value for name, value in asdict(self).items()}
        excess = None if self.excess is None else [part.to_dict() for part in self.excess]
        by_span = None if self.by_span is None else [asdict(part) for part in self.by_span]
        return figures | {"excess": excess, "by_span": by_span, "comparable": self.comparable}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> EntryResult:
        """Read what `to_dict` wrote."""

        def parts(data: dict[str, Any]) -> dict[str, Part]:
            return {name: Part(**part) for name, part in data.items()}

        data = {"exact_bytes": None, **data}  # not in older tables
        values = {field.name: data[_KEYS.get(field.name, field.name)] for field in fields(cls)}
        readers: dict[str, Callable[[Any], Any]] = {
            "difference": lambda data: Interval(**data),
            "by_match": parts,
            "by_kind": parts,
            "excess": lambda data: tuple(map(Excess.from_dict, data)),
            "by_span": lambda data: tuple(SpanPart(**part) for part in data),
            "generation": lambda data: Generation(**data),
            "numbers": lambda data: NumberLoss(**data),
            "exact_bytes": lambda data: ExactBytes(**data),
            "new_tokens": NewTokens.from_dict,
            "by_group": lambda data: {k: GroupResult.from_dict(v) for k, v in data.items()},
        }
        for name, read in readers.items():
            if values[name] is not None:
                values[name] = read(values[name])
        return cls(**values)


@dataclass(frozen=True)
class Evaluation:
    """A table of models on one text.

    Attributes
    ----------
    entries : tuple of EntryResult
        In the order given; the first is the source.
    n_documents, n_chunks, n_bytes : int
        What was chosen from the text.
    n_too_long : int
        Chunks left out for all because one model does not take so many tokens.
    n_left_out_bytes : int
        First bytes of chunks left out for all because a model has neither BOS nor EOS.
    chunk_bytes, max_bytes : int, int or None
    sha256 : str
        Of the chunks' text.
    seed : int
        Of the bootstrap and of generation.
    kind : str
        Of the models: what their loss is.
    n_replaced : int
        Characters of the text that was read which are not UTF-8 and count as U+FFFD.
    notes : tuple of str
        On the models' tokenizers, such as dropout that is off.
    """

    entries: tuple[EntryResult, ...]
    n_documents: int
    n_chunks: int
    n_bytes: int
    n_too_long: int
    n_left_out_bytes: int
    chunk_bytes: int
    max_bytes: int | None
    sha256: str
    seed: int
    kind: str = CAUSAL
    n_replaced: int = 0
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> EntryResult:
        for entry in self.entries:
            if entry.name == name:
                return entry
        raise KeyError(name)

    def to_dict(self) -> dict[str, Any]:
        """Return the table as plain values, ready for JSON."""
        return {
            "entries": [entry.to_dict() for entry in self.entries],
            "text": {
                "documents": self.n_documents,
                "chunks": self.n_chunks,
                "bytes": self.n_bytes,
                "chunks_too_long": self.n_too_long,
                "left_out_bytes": self.n_left_out_bytes,
                "chunk_bytes": self.chunk_bytes,
                "max_bytes": self.max_bytes,
                "sha256": self.sha256,
                "replaced_characters": self.n_replaced,
            },
            "seed": self.seed,
            "protocol": PROTOCOLS[self.kind],
            "notes": list(self.notes),
        }

"""The table that an evaluation gives: figures of each model, and what they are over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tokensurgeon.checkpoint.embeddings import CAUSAL
from tokensurgeon.evaluation.breakdown import Part, parts_to_dict
from tokensurgeon.evaluation.excess import Excess
from tokensurgeon.evaluation.generation import Generation
from tokensurgeon.evaluation.metrics import Interval
from tokensurgeon.evaluation.model_kinds import PROTOCOLS

_FIGURES = (
    "bits_per_byte",
    "perplexity",
    "perplexity_ratio",
    "byte_perplexity",
    "bytes_per_token",
)


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
    generation : Generation or None
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
    generation: Generation | None = None

    @property
    def comparable(self) -> bool:
        """Whether the tokenizer kept all of the text, so that the entry may be ranked."""
        return self.n_lost == 0 and self.bits_per_byte is not None

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain values, ready for JSON."""
        return {
            "name": self.name,
            "bits_per_byte": self.bits_per_byte,
            "difference": self.difference.to_dict() if self.difference else None,
            "perplexity": self.perplexity,
            "perplexity_ratio": self.perplexity_ratio,
            "byte_perplexity": self.byte_perplexity,
            "bytes_per_token": self.bytes_per_token,
            "bytes": self.n_bytes,
            "tokens": self.n_tokens,
            "chunks": self.n_chunks,
            "chunks_not_comparable": self.n_lost,
            "comparable": self.comparable,
            "by_match": parts_to_dict(self.by_match),
            "by_kind": parts_to_dict(self.by_kind),
            "excess": None if self.excess is None else [part.to_dict() for part in self.excess],
            "generation": self.generation.to_dict() if self.generation else None,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> EntryResult:
        """Read what `to_dict` wrote."""

        def parts(name: str) -> dict[str, Part] | None:
            return data[name] and {key: Part(**part) for key, part in data[name].items()}

        difference, excess, generation = (data[k] for k in ("difference", "excess", "generation"))
        return cls(
            **{key: data[key] for key in ("name", *_FIGURES)},
            n_bytes=data["bytes"],
            n_tokens=data["tokens"],
            n_chunks=data["chunks"],
            n_lost=data["chunks_not_comparable"],
            difference=Interval(**difference) if difference else None,
            by_match=parts("by_match"),
            by_kind=parts("by_kind") or {},
            excess=None if excess is None else tuple(map(Excess.from_dict, excess)),
            generation=Generation(**generation) if generation else None,
        )


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
            },
            "seed": self.seed,
            "protocol": PROTOCOLS[self.kind],
        }

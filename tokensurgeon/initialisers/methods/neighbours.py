"""Published methods that weigh anchors by their nearness: settings of `anchors`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from tokensurgeon.initialisers.anchor_spaces import Place, SpaceName
from tokensurgeon.initialisers.contract import InitContext, NewRows
from tokensurgeon.initialisers.methods.anchors import answer, check_neighbours, combiner
from tokensurgeon.initialisers.registry import initialiser


@initialiser("wechsel")
@dataclass(frozen=True)
class Wechsel:
    """The k nearest tokens in static vectors, softmax(cosine / temperature) (Minixhofer, 2022).

    "WECHSEL: Effective initialization of subword embeddings for cross-lingual transfer of
    monolingual language models", arXiv 2112.06598, with its k = 10 and temperature 0.1. A
    variant: the published vectors are fastText's of two languages, aligned by a bilingual
    dictionary, one per token from its n-grams. Here both tokenizers write the same text, and one
    of our spaces stands in.

    Parameters
    ----------
    space, encoder, dim
        As those of `anchors`.
    k : int
        1 or more.
    temperature : float
        Above 0.
    """

    name: ClassVar[str]
    space: SpaceName | None = None
    encoder: str | None = None
    k: int = 10
    temperature: float = 0.1
    dim: int = 128

    def __post_init__(self) -> None:
        """Check the ranges of the settings."""
        check_neighbours(self.name, self.k, self.temperature)
        self.where.check(self.name)

    @property
    def where(self) -> Place:
        """The space and how it is built."""
        return Place(self.space, self.encoder, dim=self.dim)

    def __call__(self, context: InitContext) -> NewRows:
        """Return k weights per token, the same on both sides but in a donor's space."""
        combine = combiner(context, "nearest", self.k, self.temperature, self.name)
        return answer(context, self.where, combine, self.name)

    def resolved(self, context: InitContext) -> Wechsel:
        """Return the method with its space said, for the report."""
        return replace(self, space=self.where.resolved_space(context))


@initialiser("focus")
@dataclass(frozen=True)
class Focus:
    """Sparsemax over the cosines to all shared tokens (Dobler & de Melo, 2023).

    "FOCUS: Effective Embedding Initialization for Monolingual Specialization of Multilingual
    Models", arXiv 2305.14481. A variant: the published vectors are fastText's, trained on a text
    in the target's segmentation; here co-occurrence is counted in the same way where there is a
    text and no donor, and another of our spaces stands in elsewhere.

    Parameters
    ----------
    space, encoder, dim
        As those of `anchors`.
    temperature : float
        Divides the cosines, above 0; 1 as published.
    """

    name: ClassVar[str]
    space: SpaceName | None = None
    encoder: str | None = None
    temperature: float = 1.0
    dim: int = 128

    def __post_init__(self) -> None:
        """Check the ranges of the settings."""
        check_neighbours(self.name, None, self.temperature)
        self.where.check(self.name)

    @property
    def where(self) -> Place:
        """The space and how it is built."""
        return Place(self.space, self.encoder, dim=self.dim, shared_only=True)

    def __call__(self, context: InitContext) -> NewRows:
        """Return few weights per token, or dense rows where they would not fit."""
        combine = combiner(context, "sparsemax", None, self.temperature, self.name)
        return answer(context, self.where, combine, self.name)

    def resolved(self, context: InitContext) -> Focus:
        """Return the method with its space said, for the report."""
        return replace(self, space=self.where.resolved_space(context))


@initialiser("clp")
@dataclass(frozen=True)
class CLP:
    """All shared tokens, weighted by their cosine in a small donor's space (Ostendorff, 2023).

    "Efficient Language Model Training through Cross-Lingual and Progressive Transfer Learning",
    Ostendorff & Rehm, arXiv 2301.09626. Faithful with a donor, but that negative cosines do not
    count, and that each side of an untied model has weights of its own. Without a donor one of our
    spaces stands in: then a variant.

    Parameters
    ----------
    space, encoder, dim
        As those of `anchors`.
    k : int or None
        Only the k nearest count, 1 or more; None is all, as published. With all of them the rows
        are dense, for nearly every weight is above 0.
    """

    name: ClassVar[str]
    space: SpaceName | None = None
    encoder: str | None = None
    k: int | None = None
    dim: int = 128

    def __post_init__(self) -> None:
        """Check the ranges of the settings."""
        check_neighbours(self.name, self.k, 1.0)
        self.where.check(self.name)

    @property
    def where(self) -> Place:
        """The space and how it is built."""
        return Place(self.space, self.encoder, dim=self.dim, shared_only=True)

    def __call__(self, context: InitContext) -> NewRows:
        """Return dense rows, or k weights per token."""
        combine = combiner(context, "cosine", self.k, 1.0, self.name)
        return answer(context, self.where, combine, self.name)

    def resolved(self, context: InitContext) -> CLP:
        """Return the method with its space said, for the report."""
        return replace(self, space=self.where.resolved_space(context))

"""TokenAdapt: a token's own pieces, and the tokens nearest to it, weighed by likeness."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from tokensurgeon.errors import SettingError
from tokensurgeon.initialisers.anchor_spaces import Place, Placed, SpaceName, place
from tokensurgeon.initialisers.contract import InitContext, NewRows, Rows, SideRows
from tokensurgeon.initialisers.methods.anchors import check_neighbours, over_source, widened
from tokensurgeon.initialisers.numerics.combiners import Combined, nearest
from tokensurgeon.initialisers.numerics.piece_weights import side_from_pieces
from tokensurgeon.initialisers.registry import initialiser
from tokensurgeon.spaces import unit


@initialiser("tokenadapt")
@dataclass(frozen=True)
class TokenAdapt:
    """A share of the k nearest tokens, the rest of the own pieces (Sharthak et al., 2025).

    "Achieving Tokenizer Flexibility in Language Models through Heuristic Adaptation and Supertoken
    Learning", arXiv 2505.09738: row = (1 − share)·local + share·global. Local: the pieces' rows,
    w = softmax(((softmax(cos(φ(t), φ(sᵢ))) + len(sᵢ)/len(t))/2)/T). Global: the k nearest source
    tokens, softmax(cos/T). φ is a text encoder. Faithful with `encoder`, but that lengths are
    counted in bytes; without one a space of ours stands in: then a variant. A token that φ does not
    know is local only, and a piece that it does not know has cosine 0.

    Parameters
    ----------
    space, encoder, dim
        As those of `anchors`.
    share : float
        Of the global part, 0 to 1; 0.3 as published.
    k : int
        1 or more; 3 as published.
    temperature : float
        Above 0; 0.3 as published.
    """

    name: ClassVar[str]
    space: SpaceName | None = None
    encoder: str | None = None
    share: float = 0.3
    k: int = 3
    temperature: float = 0.3
    dim: int = 128

    def __post_init__(self) -> None:
        """Check the ranges of the settings."""
        if not 0 <= self.share <= 1:
            raise SettingError(f"{self.name}.share must be 0 to 1; got {self.share}")
        check_neighbours(self.name, self.k, self.temperature)
        self.where.check(self.name)

    @property
    def where(self) -> Place:
        """The space and how it is built."""
        return Place(self.space, self.encoder, dim=self.dim)

    def __call__(self, context: InitContext) -> NewRows:
        """Return weights over the pieces and the nearest tokens."""
        return _both(context, self.where, self.name, self.share, self.k, self.temperature)

    def resolved(self, context: InitContext) -> TokenAdapt:
        """Return the method with its space said, for the report."""
        return replace(self, space=self.where.resolved_space(context))


@initialiser("tokenadapt-local")
@dataclass(frozen=True)
class TokenAdaptLocal:
    """The local part of `tokenadapt`: the own pieces, weighed by likeness and length.

    With a temperature of 0.3 it is near a mean of the pieces weighted by their length.

    Parameters
    ----------
    space, encoder, temperature, dim
        As those of `tokenadapt`.
    """

    name: ClassVar[str]
    space: SpaceName | None = None
    encoder: str | None = None
    temperature: float = 0.3
    dim: int = 128

    def __post_init__(self) -> None:
        """Check the ranges of the settings."""
        check_neighbours(self.name, None, self.temperature)
        self.where.check(self.name)

    @property
    def where(self) -> Place:
        """The space and how it is built."""
        return Place(self.space, self.encoder, dim=self.dim)

    def __call__(self, context: InitContext) -> NewRows:
        """Return weights over the pieces."""
        return _both(context, self.where, self.name, 0.0, 1, self.temperature)

    def resolved(self, context: InitContext) -> TokenAdaptLocal:
        """Return the method with its space said, for the report."""
        return replace(self, space=self.where.resolved_space(context))


@initialiser("tokenadapt-global")
@dataclass(frozen=True)
class TokenAdaptGlobal:
    """The global part of `tokenadapt`: the k nearest source tokens, softmax(cosine / T).

    A token that the space does not know gets the local part.

    Parameters
    ----------
    space, encoder, k, temperature, dim
        As those of `tokenadapt`.
    """

    name: ClassVar[str]
    space: SpaceName | None = None
    encoder: str | None = None
    k: int = 3
    temperature: float = 0.3
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
        """Return k weights per token."""
        return _both(context, self.where, self.name, 1.0, self.k, self.temperature)

    def resolved(self, context: InitContext) -> TokenAdaptGlobal:
        """Return the method with its space said, for the report."""
        return replace(self, space=self.where.resolved_space(context))


def _both(
    context: InitContext, where: Place, name: str, share: float, k: int, temperature: float
) -> NewRows:
    """Return the hybrid of either side; once where the weights are the same."""

    def weights(side: str) -> sp.csr_array:
        placed = place(context, where, side, name)
        local = local_weights(context, placed, temperature)
        if share == 0.0:
            return local
        found: Combined = nearest(
            placed.missing,
            placed.anchors,
            k,
            temperature,
            device=context.device,
            memory_budget=context.memory_budget,
            progress=lambda done, total: context.progress(done, total, f"{name}: nearest tokens"),
        )
        assert found.weights is not None
        shares = np.where(found.answered, share, 0.0)
        mixed = sp.diags_array(1.0 - shares) @ local
        mixed += sp.diags_array(shares) @ over_source(found.weights, placed, context.n_source)
        result = sp.csr_array(mixed)
        result.eliminate_zeros()
        return result

    output = weights("output")
    if context.tied:
        side = _usable(context, context.output_rows, output)
        return NewRows(input=side, output=side)
    donor = where.resolved_space(context) == "donor"
    return NewRows(
        input=_usable(context, context.input_rows, weights("input") if donor else output),
        output=_usable(context, context.output_rows, output),
    )


def local_weights(context: InitContext, placed: Placed, temperature: float) -> sp.csr_array:
    """Return TokenAdapt's weights over each missing token's pieces, CSR (n_missing, n_source)."""
    counts = np.array([len(row) for row in context.pieces], dtype=np.int64)
    shape = (context.n_missing, context.n_source)
    if not len(counts):
        return sp.csr_array(shape, dtype=np.float64)
    flat = np.array([piece for row in context.pieces for piece in row], dtype=np.int64)
    owner = np.repeat(np.arange(len(counts)), counts)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    lengths = np.array([len(context.source.token_bytes[i] or b"") for i in flat], dtype=float)
    lengths /= np.maximum(np.add.reduceat(lengths, starts), 1.0)[owner]
    anchor = placed.anchor_of(context.n_source)[flat]
    queries, anchors = unit(placed.missing), unit(placed.anchors)
    cosines = np.zeros(len(flat))
    known = anchor >= 0
    cosines[known] = np.einsum(
        "ij,ij->i", queries[owner[known]], anchors[anchor[known]], dtype=np.float64
    )
    scores = (_softmax(cosines, starts, owner) + lengths) / 2.0
    data = _softmax(scores / temperature, starts, owner)
    weights = sp.csr_array((data, flat, np.append(starts, len(flat))), shape=shape)
    weights.sum_duplicates()
    return weights


def _softmax(
    values: npt.NDArray[np.float64], starts: npt.NDArray[np.int64], owner: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Return the softmax of each stretch of values."""
    powers = np.exp(values - np.maximum.reduceat(values, starts)[owner])
    return np.asarray(powers / np.add.reduceat(powers, starts)[owner])


def _usable(context: InitContext, rows: Rows, weights: sp.csr_array) -> SideRows:
    """Return the side; where a piece's row is not finite, the token is the mean of its others."""
    finite = np.asarray(np.isfinite(rows).all(axis=1))
    if finite.all():
        return SideRows(weights=weights)
    lost: npt.NDArray[np.float64] = np.asarray(~finite, dtype=np.float64)
    broken = np.asarray(weights @ lost) > 0
    fallback = side_from_pieces(context, rows)
    assert fallback.weights is not None
    kept = sp.csr_array(sp.diags_array((~broken).astype(np.float64)) @ weights)
    other = sp.diags_array(broken.astype(np.float64)) @ fallback.weights
    result = sp.csr_array(widened(kept, fallback.weights) + other)
    result.eliminate_zeros()
    return SideRows(weights=result, virtual=fallback.virtual)

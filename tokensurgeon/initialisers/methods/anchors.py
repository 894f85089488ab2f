"""Missing tokens as sums of anchors that lie near them in a space: one method, many names.

`AnchorMethod` joins a space to a combiner. The methods at the end of this file are settings of it:
each says what it fixes and what a user may set.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import scipy.sparse as sp

from tokensurgeon.arrays import Float32, Float64, Ids
from tokensurgeon.errors import InitialiserError
from tokensurgeon.initialisers.anchor_spaces import AnchorSpace, SpaceName, SpaceSpec, locate
from tokensurgeon.initialisers.contract import InitContext, NewRows, SideRows, require
from tokensurgeon.initialisers.registry import preset
from tokensurgeon.initialisers.sides import or_pieces
from tokensurgeon.spaces import unit

if TYPE_CHECKING:
    from tokensurgeon.initialisers.numerics.combiners import Combined

CombinerName = Literal["nearest", "sparsemax", "cosine", "omp", "ridge"]

_DEFAULT_K = {"nearest": 10, "omp": 16}
"""Anchors where no number is given: WECHSEL's for nearest; omp's coefficients tell more apart."""


class AnchorMethod:
    """A space and a combiner. What a preset leaves open are fields of its class.

    `share` is the part that the anchors have in a row; the rest is the token's own pieces, weighed
    by likeness, which also stand in where the space does not know the token. With None the
    anchors have all of it, and the plain mean of the pieces stands in.
    """

    name: ClassVar[str]
    space: SpaceName | None = None
    combiner: CombinerName = "nearest"
    k: int | None = None
    temperature: float = 1.0
    encoder: str | None = None
    layer: int | None = None
    dim: int = 128
    window: int = 4
    centre: bool = False
    shared_only: bool = False
    share: float | None = None

    def __post_init__(self) -> None:
        """Check the ranges of the settings."""
        require(self, "share", "0 to 1", self.share is None or 0 <= self.share <= 1)
        require(self, "k", "1 or more", self.k is None or self.k >= 1)
        require(self, "temperature", "above 0", 0 < self.temperature < np.inf)
        self.spec.check(self.name)

    @property
    def spec(self) -> SpaceSpec:
        """The space and how it is built."""
        return SpaceSpec(
            self.space, self.encoder, self.layer, self.dim, self.window, self.shared_only
        )

    def resolved(self, context: InitContext) -> Any:
        """Return the method with its space and k said, for the report."""
        k = _DEFAULT_K.get(self.combiner) if self.k is None else self.k
        used = {"space": self.spec.resolved_space(context), "k": k}
        settable = {field.name for field in fields(self)}  # type: ignore[arg-type]
        return replace(self, **{key: used[key] for key in used.keys() & settable})  # type: ignore[type-var]

    def forward_tokens(self, context: InitContext) -> int:
        """Return how many tokens it runs through the source: those of the space."""
        return self.spec.forward_tokens(context)

    def operations(self, context: InitContext) -> float:
        """Return the products of missing tokens with anchors, or of a ridge's dimensions."""
        if self.share == 0.0:
            return 0.0
        donor, in_donor = context.donor, self.spec.resolved_space(context) == "donor"
        dim = donor.output.shape[1] if donor is not None and in_donor else self.dim
        n_anchors = context.alignment.shared.size if in_donor else context.n_source
        sides = 2 if in_donor and donor is not None and not (context.tied or donor.tied) else 1
        with_each = 2.0 * dim if self.combiner == "ridge" else 1.0 * context.n_missing
        return 2.0 * n_anchors * dim * with_each * sides

    def __call__(self, context: InitContext) -> NewRows:
        """Return weights over source rows, or dense rows where nearly all anchors count.

        In a donor's space each side of an untied model has weights of its own; other spaces give
        both sides the same.
        """
        if context.tied:
            (side,) = self._sides(context, "output", context.output_rows)
            return NewRows(input=side, output=side)
        donor = context.donor
        own = self.spec.resolved_space(context) == "donor" and donor is not None and not donor.tied
        if own:
            (first,) = self._sides(context, "input", context.input_rows)
            (second,) = self._sides(context, "output", context.output_rows)
        else:
            first, second = self._sides(context, "output", context.input_rows, context.output_rows)
        return NewRows(input=first, output=second)

    def _sides(self, context: InitContext, side: str, *matrices: Float32) -> list[SideRows]:
        """Return a side for each matrix, all with the weights of one space."""
        space = locate(context, self.spec, side, self.name)
        if self.share is None and not len(space.source_ids) and context.n_missing:
            kind = self.spec.resolved_space(context)
            raise InitialiserError(
                f"'{self.name}' finds 0 anchors in the space '{kind}'. "
                "Choose another space, or use 'subword-mean'."
            )
        if self.centre and len(space.anchors):
            space = space.centred()
        combined = self._combine(context, space, [rows[space.source_ids] for rows in matrices])
        weights, answered = combined.weights, combined.answered
        if weights is not None:
            weights = space.over_source(weights, context.n_source)
            if self.share is not None:
                shares = np.where(answered, self.share, 0.0)
                local = sp.diags_array(1.0 - shares) @ _likeness(context, space, self.temperature)
                weights = sp.csr_array(local + sp.diags_array(shares) @ weights)
                weights.eliminate_zeros()
                answered = np.ones_like(answered)
        dense = combined.dense or (None,) * len(matrices)
        return [
            or_pieces(context, rows, weights, values, answered)
            for rows, values in zip(matrices, dense, strict=True)
        ]

    def _combine(self, context: InitContext, space: AnchorSpace, tables: list[Float32]) -> Combined:
        """Return what the missing tokens are made of; `tables` are the anchors' rows."""
        from tokensurgeon.initialisers.numerics import combiners

        queries, anchors = space.missing, space.anchors
        work = context.work(f"{self.name}: combining")
        k = self.k or _DEFAULT_K.get(self.combiner, 0)
        if self.share == 0.0:
            nothing = np.zeros(len(queries), dtype=bool)
            return combiners.Combined(nothing, sp.csr_array((len(queries), len(anchors))))
        if self.combiner == "nearest":
            return combiners.nearest(queries, anchors, k, self.temperature, work)
        if self.combiner == "sparsemax":
            return combiners.sparsemax(queries, anchors, self.temperature, tables, work)
        if self.combiner == "cosine":
            return combiners.proportional(queries, anchors, tables, self.k, work)
        if self.combiner == "omp":
            return combiners.pursued(queries, anchors, k, work)
        return combiners.mapped(queries, anchors, tables, context.generator(), work)


def _likeness(context: InitContext, space: AnchorSpace, temperature: float) -> sp.csr_array:
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
    anchor = space.anchor_of(context.n_source)[flat]
    queries, anchors = unit(space.missing), unit(space.anchors)
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


def _softmax(values: Float64, starts: Ids, owner: Ids) -> Float64:
    """Return the softmax of each stretch of values."""
    powers = np.exp(values - np.maximum.reduceat(values, starts)[owner])
    return np.asarray(powers / np.add.reduceat(powers, starts)[owner])


_SPACE: dict[str, Any] = {"space": None, "encoder": None}

preset(
    "anchors",
    AnchorMethod,
    """Any space with any combiner; a token that the space does not know gets its pieces.

    Parameters
    ----------
    space : donor, co-occurrence, encoder, hidden-states, ngrams, or None
        None takes the first of these that can be had: the encoder that is named, the donor's rows,
        co-occurrence in the calibration text, n-grams.
    combiner : nearest, sparsemax, cosine, omp or ridge
        nearest: softmax(cosine / temperature) over the k nearest anchors. sparsemax: the
        projection of cosine / temperature onto the simplex, over all anchors. cosine: weights
        in proportion to the cosine, negative ones left out, over all anchors or the k nearest.
        omp: matching pursuit with k anchors. ridge: a linear map from the space to the rows,
        fitted on the anchors.
    k : int or None
        None: 10 for nearest, all for cosine, 16 for omp. The others have none.
    temperature : float
        Of nearest and sparsemax; above 0.
    encoder : str or None
        Folder of a text encoder.
    layer : int or None
        Of hidden-states; None takes two fifths of the depth.
    dim : int
        Most dimensions of co-occurrence and ngrams.
    window : int
        Of co-occurrence, in tokens.
    centre : bool
        Take the anchors' mean out of the space first: what all tokens have in common does not
        count as likeness.
    shared_only : bool
        Only shared tokens are anchors. Otherwise encoder, hidden-states and ngrams take every
        trained source token; donor and co-occurrence know shared ones only.

    Notes
    -----
    Each side of an untied model is combined in the donor's own side; other spaces give both sides
    the same weights, and a tied matrix takes the output side's. Random: the SVD of a space and
    the anchors that ridge holds out, by `context.seed`.
    """,
    settings={
        "space": None,
        "combiner": "ridge",
        "k": None,
        "temperature": 0.1,
        "encoder": None,
        "layer": None,
        "dim": 128,
        "window": 4,
        "centre": True,
        "shared_only": False,
    },
)

preset(
    "wechsel",
    AnchorMethod,
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
    """,
    fixed={"combiner": "nearest"},
    settings={**_SPACE, "k": 10, "temperature": 0.1, "dim": 128},
)

preset(
    "focus",
    AnchorMethod,
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
    """,
    fixed={"combiner": "sparsemax", "shared_only": True},
    settings={**_SPACE, "temperature": 1.0, "dim": 128},
)

preset(
    "clp",
    AnchorMethod,
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
    """,
    fixed={"combiner": "cosine", "shared_only": True},
    settings={**_SPACE, "k": None, "dim": 128},
)

preset(
    "tokenadapt",
    AnchorMethod,
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
    """,
    fixed={"combiner": "nearest"},
    settings={**_SPACE, "share": 0.3, "k": 3, "temperature": 0.3, "dim": 128},
)

preset(
    "tokenadapt-local",
    AnchorMethod,
    """The local part of `tokenadapt`: the own pieces, weighed by likeness and length.

    With a temperature of 0.3 it is near a mean of the pieces weighted by their length.

    Parameters
    ----------
    space, encoder, temperature, dim
        As those of `tokenadapt`.
    """,
    fixed={"share": 0.0},
    settings={**_SPACE, "temperature": 0.3, "dim": 128},
)

preset(
    "tokenadapt-global",
    AnchorMethod,
    """The global part of `tokenadapt`: the k nearest source tokens, softmax(cosine / T).

    A token that the space does not know gets the local part.

    Parameters
    ----------
    space, encoder, k, temperature, dim
        As those of `tokenadapt`.
    """,
    fixed={"combiner": "nearest", "share": 1.0},
    settings={**_SPACE, "k": 3, "temperature": 0.3, "dim": 128},
)

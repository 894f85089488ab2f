"""Write each missing token as a sparse sum of shared tokens, as a donor sees them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import scipy.sparse as sp

from tokensurgeon.arrays import Float32, Ids
from tokensurgeon.errors import InitialiserError
from tokensurgeon.initialisers.anchor_spaces import shared_pairs
from tokensurgeon.initialisers.contract import InitContext, NewRows, SideRows, require
from tokensurgeon.initialisers.numerics.piece_weights import piece_weights
from tokensurgeon.initialisers.registry import initialiser
from tokensurgeon.initialisers.sides import with_mean

_DIMENSIONS_PER_TOKEN, _FEWEST, _MOST = 16, 8, 64
"""k where none is given: one shared token per 16 dimensions of the donor's rows. 64 is as
published; on donors of width 144 and 192, 8 to 16 measured best."""
_SEARCHES = 8
"""Through all shared tokens, of the choice that is not exact, for an estimate."""


@initialiser("omp")
@dataclass(frozen=True)
class OMP:
    """Orthogonal matching pursuit in a donor's rows (Goddard & Fernandes Neto, 2025).

    "Training-Free Tokenizer Transplantation via Orthogonal Matching Pursuit", arXiv 2506.06607.
    A donor that has both the missing token and the shared ones shows how the one is a sparse sum
    of the others; the same coefficients are then applied to the source's rows of the shared
    tokens. Input and output sides are written each from the donor's own side. A missing token
    that the donor lacks gets the mean of its pieces.

    The defaults are those that measured best: the published recipe, with fewer shared tokens
    where the donor is narrow. On two small pairs (donors of width 144 and 192) k = 8 to 16 beat
    64, and each of the options below cost bits; they are there to be tried on other pairs.

    Parameters
    ----------
    k : int or None
        Shared tokens per missing token, 1 or more. None takes one per 16 dimensions of the
        donor's rows, 8 to 64: the published 64 from width 1,024 on.
    centre : bool
        Take the mean row out of both spaces first and put the source's back at the end.
    normalise : bool
        Choose shared tokens by their direction; otherwise long donor rows, mostly those of
        frequent tokens, come first.
    ridge : float
        λ ≥ 0 on the squared coefficients, relative to the mean squared norm of the donor's rows.
    include_pieces : bool
        The token's own pieces take the first slots, where the donor knows them.
    prior : float
        μ ≥ 0: pull the sum of *source* rows towards the mean of the pieces:
        min ‖D_B c − x‖² + λ‖c‖² + μ‖D_A c − p‖², both spaces scaled to mean squared norm 1.
    tolerance : float
        Stop early where the residual is below this share of the token's donor row, 0 to 1.
    exact : bool
        The published greedy choice, with a search through all shared tokens for each one taken.
        Else a few searches, more tokens than asked, and those that matter least dropped: several
        times as fast. Its mean residual was no larger on made-up and real rows, unless k was near
        half the rows' width and `normalise` on.

    Notes
    -----
    Nothing is random. `omp-published` is the method as published: k = 64, exact. Where the two
    tokenizers cut numbers differently (single digits against groups of three) the method is known
    to destroy arithmetic.
    """

    name: ClassVar[str]
    k: int | None = None
    centre: bool = False
    normalise: bool = False
    ridge: float = 0.0
    include_pieces: bool = False
    prior: float = 0.0
    tolerance: float = 0.0
    exact: bool = False

    def __post_init__(self) -> None:
        """Check the ranges of the settings."""
        require(self, "k", "1 or more", self.k is None or self.k >= 1)
        require(self, "ridge", "at least 0", 0 <= self.ridge < np.inf)
        require(self, "prior", "at least 0", 0 <= self.prior < np.inf)
        require(self, "tolerance", "0 to 1 (exclusive)", 0 <= self.tolerance < 1)

    def __call__(self, context: InitContext) -> NewRows:
        """Return sparse weights over the shared tokens' source rows, for both sides."""
        donor = context.donor
        if donor is None:
            raise InitialiserError(
                f"'{self.name}' reads the rows of a model that has the target tokenizer. "
                "Give one with --donor, or use 'subword-mean'."
            )
        finite = np.isfinite(donor.input).all(axis=1) & np.isfinite(donor.output).all(axis=1)
        anchors = shared_pairs(context, donor.known & finite)
        k = self.resolved_k(donor.output.shape[1])
        if len(anchors[0]) < k:
            raise InitialiserError(
                f"OMP needs {k} shared tokens; these vocabularies share {len(anchors[0])}. "
                "Lower k, or use 'subword-mean'."
            )
        output = self._side(context, donor.output, context.output_rows, anchors, "output")
        same_rows = context.input_rows is context.output_rows
        if context.tied or (donor.tied and (same_rows or not (self.centre or self.prior))):
            return NewRows(input=output, output=output)  # the same problem twice
        rows = self._side(context, donor.input, context.input_rows, anchors, "input")
        return NewRows(input=rows, output=output)

    def operations(self, context: InitContext) -> float:
        """Return the products of the searches: each missing token with all shared ones."""
        donor = context.donor
        if donor is None:
            return 0.0
        width = donor.output.shape[1]
        searches = self.resolved_k(width) if self.exact else _SEARCHES
        sides = 1 if context.tied or donor.tied else 2
        products = context.n_missing * context.alignment.shared.size * width
        return 2.0 * float(products) * searches * sides

    def resolved(self, context: InitContext) -> OMP:
        """Return the method with k said, for the report."""
        if context.donor is None:
            return self
        return replace(self, k=self.resolved_k(context.donor.output.shape[1]))

    def resolved_k(self, donor_width: int) -> int:
        """Return k for a donor whose rows have `donor_width` dimensions."""
        if self.k is not None:
            return self.k
        return int(np.clip(donor_width // _DIMENSIONS_PER_TOKEN, _FEWEST, _MOST))

    def _side(
        self,
        context: InitContext,
        donor_rows: Float32,
        rows: Float32,
        anchors: tuple[Ids, Ids],
        side: str,
    ) -> SideRows:
        """Return the weights of one side; `anchors` are target ids and their source ids."""
        from tokensurgeon.initialisers.numerics.pursuit import pursue

        assert context.donor is not None
        k = self.resolved_k(donor_rows.shape[1])
        known = np.flatnonzero(
            context.donor.known[context.missing]
            & np.isfinite(donor_rows[context.missing]).all(axis=1)
        )
        target_ids, source_ids = anchors
        atoms, targets = _scaled(  # indexing by ids copies
            donor_rows[target_ids], donor_rows[context.missing[known]], self.centre
        )
        fallback = piece_weights(context.pieces, context.n_source)
        if self.prior > 0:
            pieces_mean = np.asarray(fallback[known] @ rows, dtype=np.float32)
            extra, wanted = _scaled(rows[source_ids], pieces_mean, self.centre)
            weight = np.float32(np.sqrt(self.prior))
            atoms = np.concatenate([atoms, weight * extra], axis=1)
            targets = np.concatenate([targets, weight * wanted], axis=1)
        pursuit = pursue(
            atoms,
            targets,
            k,
            normalise=self.normalise,
            ridge=self.ridge,
            tolerance=self.tolerance,
            exact=self.exact,
            forced=_forced_pieces(context, known, source_ids, k) if self.include_pieces else None,
            work=context.work(f"omp: {side} rows"),
        )
        slot_used = pursuit.support >= 0
        columns = source_ids[np.maximum(pursuit.support, 0)]
        at = np.repeat(known, k).reshape(columns.shape)
        unknown = np.isin(np.arange(context.n_missing), known, invert=True)
        weights = sp.csr_array(
            (pursuit.coefficients[slot_used], (at[slot_used], columns[slot_used])),
            shape=(context.n_missing, context.n_source),
        )
        weights = sp.csr_array(weights + sp.diags_array(unknown.astype(np.float64)) @ fallback)
        if not self.centre:
            return SideRows(weights=weights)
        rest = np.zeros(context.n_missing)
        rest[known] = 1.0 - pursuit.coefficients.sum(axis=1)
        return with_mean(weights, rest, rows[source_ids].mean(axis=0, dtype=np.float64))


@initialiser("omp-published")
@dataclass(frozen=True)
class PublishedOMP(OMP):
    """`omp` as published (arXiv 2506.06607), to compare against: k = 64, exact greedy choice.

    Raw rows, atoms chosen by the plain dot product, ordinary least squares. The settings are those
    of `omp`.
    """

    name: ClassVar[str]
    k: int | None = 64
    exact: bool = True


def _forced_pieces(context: InitContext, known: Ids, source_ids: Ids, k: int) -> Ids:
    """Return the atoms that are pieces of each known token, int64 (n_known, m ≤ k), -1 padded."""
    atom_of = np.full(context.n_source, -1, dtype=np.int64)
    atom_of[source_ids] = np.arange(len(source_ids))
    lists = [
        list(dict.fromkeys(int(atom_of[p]) for p in context.pieces[i] if atom_of[p] >= 0))
        for i in known
    ]
    width = min(k, max(map(len, lists), default=0))
    table = np.full((len(lists), width), -1, dtype=np.int64)
    for row, atoms in zip(table, lists, strict=True):
        row[: len(atoms)] = atoms[:width]
    return table


def _scaled(atoms: Float32, targets: Float32, centre: bool) -> tuple[Float32, Float32]:
    """Return both, less the atoms' mean if `centre`, over the atoms' root mean squared norm.

    Both are overwritten: a dictionary can be gigabytes.
    """
    if centre:
        mean = atoms.mean(axis=0, dtype=np.float64).astype(np.float32)
        atoms -= mean
        targets -= mean
    square = np.einsum("ij,ij->i", atoms, atoms, dtype=np.float64)
    scale = np.float32(np.sqrt(square.mean()) or 1.0)
    atoms /= scale
    targets /= scale
    return atoms, targets

"""The target's next-token distribution that the source itself implies, at positions of a text.

With P(s|h) the source's next-token distribution at a border and first(s) the first target token of
s's text, the target's next token v has there Q(v) = Σ P(s|h) over the s with first(s) = v. Inside a
source token, after the target tokens w since the border, Q(v) ∝ Σ P(s|h) over the s whose spelling
begins with w and goes on with v. A target token of several source tokens has the product along the
source's chain, which is known where the text runs along it. This is byte-prefix algebra (Phan et
al., 2024, arXiv 2410.09303) on the tokens that the source's tokenizer writes: other spellings of
the same bytes are left out. It needs no labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from tokensurgeon.arrays import Float32, Ids, blocks
from tokensurgeon.calibration.byte_positions import BytePositions, state_at
from tokensurgeon.vocabulary.prefix_table import Continuations
from tokensurgeon.vocabulary.spellings import Spellings

if TYPE_CHECKING:
    import torch

MOST_CELLS = 64
"""Tokens and groups that a distribution names; all others share what is left of the mass. On prose
64 of 49,152 tokens hold over nine tenths of it."""
MOST_BRANCHES = 16
"""Source tokens that are looked at after a border, to see which longer tokens they lead to."""
LEAST_BRANCH = 2e-3
"""Probability from which a branch is followed; what lies below stays with its group."""
MOST_LINKS = 4
"""Source tokens of a longer target token along which the text is followed."""
MOST_CROSSING = 64
"""Source tokens that are looked at where a target token began before the last border."""
LEAST_MASS = 1e-7
"""Probability, by the source, of all that may stand at a place, below which nothing is said of it:
the text is then none that the source would write."""
STATES_AT_ONCE = 256
"""States whose distributions are summed together: 256 MiB at the largest vocabularies."""


@dataclass(frozen=True)
class Implied:
    """Distributions over a partition of the target's vocabulary, one a position.

    A cell is one token, or a group of tokens that the source tells apart only later (see
    `Spellings.group`) less its tokens that have a cell of their own; what no cell names is one cell
    more, with the mass that is left.

    Attributes
    ----------
    positions : int64 (n,)
        Indices of target tokens that are predicted, ascending.
    ids : int64 (n, n_cells)
        A group's token, or the number of rows + a token; -1 where there is none.
    masses : float32 (n, n_cells)
        Their sum is at most 1.
    """

    positions: Ids
    ids: Ids
    masses: Float32

    @classmethod
    def joined(cls, parts: Sequence[Implied]) -> Implied:
        """Return the distributions of several parts of a text, one after another."""
        return cls(
            np.concatenate([part.positions for part in parts]),
            np.concatenate([part.ids for part in parts]),
            np.concatenate([part.masses for part in parts]),
        )


class ImpliedTokens:
    """Works out distributions for one pair of tokenizers.

    Parameters
    ----------
    spellings : Spellings
    n_cells : int
        See `MOST_CELLS`.
    least_branch : float
        See `LEAST_BRANCH`; 0 follows every branch that is looked at.
    n_branches : int
        See `MOST_BRANCHES`.
    """

    def __init__(
        self,
        spellings: Spellings,
        n_cells: int = MOST_CELLS,
        least_branch: float = LEAST_BRANCH,
        n_branches: int = MOST_BRANCHES,
    ) -> None:
        self.spellings = spellings
        self.n_rows = spellings.target.n_rows
        self.n_cells, self.least_branch, self.n_branches = n_cells, least_branch, n_branches

    def of(self, source: BytePositions, target: BytePositions, log_probs: torch.Tensor) -> Implied:
        """Return the distributions at all positions of some chunks that have one.

        Parameters
        ----------
        source, target : BytePositions
            Of the same chunks.
        log_probs : float32 (n_states, n_source)
            Of the source at its states.
        """
        at_border = state_at(source, target.starts)
        known = target.before >= 0
        ids = np.full((len(target.ids), self.n_cells), -1, dtype=np.int64)
        masses = np.zeros(ids.shape, dtype=np.float32)
        borders = np.flatnonzero(known & (at_border >= 0))
        self._at_borders(ids, masses, borders, at_border[borders], log_probs)
        walk = _Walk(source, target, log_probs, self.n_branches)
        if (self.spellings.n_in_group > 1).any():
            for position in borders.tolist():
                self._split_group(ids[position], masses[position], position, walk)
        for position in np.flatnonzero(known & (at_border < 0)).tolist():
            self._inside(ids[position], masses[position], position, walk)
        said = np.flatnonzero((ids >= 0).any(axis=1))
        return Implied(said, ids[said], masses[said])

    def _at_borders(
        self, ids: Ids, masses: Float32, borders: Ids, states: Ids, log_probs: torch.Tensor
    ) -> None:
        """Fill in the groups' masses."""
        import torch

        columns = self._columns
        n_cells = min(self.n_cells, len(columns.groups))
        for part in blocks(len(borders), STATES_AT_ONCE):
            p = log_probs[torch.from_numpy(states[part])].exp()
            sums = p[:, columns.main]
            sums[:, columns.without] = 0
            sums.index_add_(1, columns.of_others, p[:, columns.others])
            largest, which = sums.topk(n_cells, dim=1)
            masses[borders[part], :n_cells] = largest.numpy()
            ids[borders[part], :n_cells] = columns.groups[which].numpy()

    @cached_property
    def _columns(self) -> _Columns:
        """Where the mass of each source token goes at a border."""
        import torch

        spelled = np.flatnonzero(self.spellings.first >= 0)
        of_spelled = self.spellings.group[self.spellings.first[spelled]]
        groups, column = np.unique(of_spelled, return_inverse=True)
        whole = np.array([len(self.spellings.spelled[s]) == 1 for s in spelled.tolist()], bool)
        main = np.full(len(groups), -1)
        main[column[whole]] = spelled[whole]
        other = ~np.isin(spelled, main)
        return _Columns(
            groups=torch.from_numpy(groups),
            main=torch.from_numpy(main.clip(0)),
            without=torch.from_numpy(np.flatnonzero(main < 0)),
            others=torch.from_numpy(spelled[other]),
            of_others=torch.from_numpy(column[other]),
        )

    def _split_group(self, ids: Ids, masses: Float32, position: int, walk: _Walk) -> None:
        """Give tokens of the group that the text goes on with cells of their own."""
        spellings = self.spellings
        number = walk.source_at(position)
        if number is None:
            return
        first = int(spellings.first[walk.ids[number]])
        group = int(spellings.group[first]) if first >= 0 else -1
        cell = np.flatnonzero(ids == group)
        if group < 0 or spellings.n_in_group[group] < 2 or not len(cell):
            return
        # A branch that ends in another group was counted there by its first token.
        found = {
            token: mass
            for token, mass in self._ahead(number, walk).items()
            if token != first and spellings.group[token] == group
        }
        largest = sorted(found.items(), key=lambda pair: -pair[1])[: max(1, self.n_cells // 4)]
        masses[cell[0]] = max(0.0, masses[cell[0]] - sum(mass for _, mass in largest))
        # The smallest cells make room; the group's own stays.
        free = [i for i in range(self.n_cells - 1, -1, -1) if i != cell[0]]
        for i, (token, mass) in zip(free, largest, strict=False):
            ids[i], masses[i] = self.n_rows + token, mass

    def _ahead(self, number: int, walk: _Walk) -> dict[int, float]:
        """Return the masses of first target tokens, along the text from a source token on."""
        spellings, found = self.spellings, dict[int, float]()
        path: tuple[int, ...] = (int(walk.ids[number]),)
        mass = walk.probability(walk.before[number], number)
        spelled = spellings.run(path)
        for _ in range(MOST_LINKS):
            following = number + 1
            if mass < self.least_branch or not walk.goes_on(number):
                break
            observed = int(walk.ids[following])
            for share, token in walk.branches(walk.after[number]):
                if mass * share < self.least_branch:
                    break
                if token != observed and (other := spellings.run((*path, token))):
                    found[other[0]] = found.get(other[0], 0.0) + mass * share
            mass *= walk.probability(walk.after[number], following)
            path, number = (*path, observed), following
            spelled = spellings.run(path)
            if len(spelled) != 1:  # its first token is settled, whatever follows
                break
        if spelled:
            found[spelled[0]] = found.get(spelled[0], 0.0) + mass
        return found

    def _inside(self, ids: Ids, masses: Float32, position: int, walk: _Walk) -> None:
        """Condition on the target tokens since the last border that both tokenizers have."""
        begun, first, last = walk.since_border(position)
        if not begun or walk.before[first] < 0:
            return
        if last == first:
            continued = self.spellings.continued(begun)
            p = walk.probabilities(walk.before[first], continued.tokens)
        else:
            path = tuple(walk.ids[first:last].tolist())
            pairs = []
            for share, token in walk.branches(walk.after[last - 1], MOST_CROSSING):
                spelled = self.spellings.run((*path, token))
                if len(spelled) > len(begun) and spelled[: len(begun)] == begun:
                    pairs.append((share, spelled[len(begun)]))
            p = np.array([share for share, _ in pairs])
            following = np.array([token for _, token in pairs], dtype=np.int64)
            continued = Continuations(np.arange(len(following)), following)
        if p.sum() < LEAST_MASS:
            return
        tokens, q = continued.next_symbols, continued.sums(p) / p.sum()
        largest = np.argsort(-q, kind="stable")[: self.n_cells]
        ids[: len(largest)] = self.n_rows + tokens[largest]
        masses[: len(largest)] = q[largest]


@dataclass(frozen=True)
class _Columns:
    """Which source tokens add up to a group: its main one, and the others."""

    groups: torch.Tensor
    main: torch.Tensor
    without: torch.Tensor
    others: torch.Tensor
    of_others: torch.Tensor


class _Walk:
    """The source's tokens on a text, and what it says at its states."""

    def __init__(
        self,
        source: BytePositions,
        target: BytePositions,
        log_probs: torch.Tensor,
        n_branches: int,
    ) -> None:
        self._source, self._target, self._log_probs = source, target, log_probs
        self.ids, self.before, self.after = source.ids, source.before, source.after
        self._n = n_branches
        self._common = np.intersect1d(source.boundaries, target.boundaries)

    @cached_property
    def _likeliest(self) -> tuple[list[list[float]], list[list[int]]]:
        values, ids = self._log_probs.topk(min(self._n, self._log_probs.shape[1]), dim=1)
        return values.exp().tolist(), ids.tolist()

    def source_at(self, position: int) -> int | None:
        """Return the number of the source token that starts where a target token does."""
        start = self._target.starts[position]
        number = int(np.searchsorted(self._source.starts, start))
        if number < len(self.ids) and self._source.starts[number] == start:
            return number
        return None

    def goes_on(self, number: int) -> bool:
        """Whether another source token of the same chunk follows."""
        return (
            number + 1 < len(self.ids)
            and self._source.starts[number + 1] == self._source.ends[number]
        )

    def probability(self, state: int, number: int) -> float:
        """Return the probability of a token of the text at a state."""
        return float(self._log_probs[state, self.ids[number]].exp())

    def probabilities(self, state: int, tokens: Ids) -> Float32:
        """Return the probabilities of tokens at a state."""
        import torch

        p: Float32 = self._log_probs[state][torch.from_numpy(tokens)].exp().numpy()
        return p

    def branches(self, state: int, n: int | None = None) -> Iterator[tuple[float, int]]:
        """Yield the likeliest tokens at a state, with their probabilities."""
        if n is None:
            values, ids = self._likeliest
            return zip(values[state], ids[state], strict=True)
        top = self._log_probs[state].topk(min(n, self._log_probs.shape[1]))
        return zip(top.values.exp().tolist(), top.indices.tolist(), strict=True)

    def since_border(self, position: int) -> tuple[tuple[int, ...], int, int]:
        """Return what stands between the last common border and a position.

        The target tokens, the number of the first source token after the border, and that of the
        one in which the position lies. No target tokens where there is no such border.
        """
        source, target = self._source, self._target
        start = target.starts[position]
        last = int(np.searchsorted(self._common, start, side="right")) - 1
        if last < 0:
            return (), 0, 0
        border = self._common[last]
        begun = int(np.searchsorted(target.starts, border))
        first = int(np.searchsorted(source.starts, border))
        if begun >= position or first >= len(self.ids):
            return (), 0, 0
        if target.starts[begun] != border or source.starts[first] != border:
            return (), 0, 0
        inside = int(np.searchsorted(source.ends, start, side="right"))
        return tuple(target.ids[begun:position].tolist()), first, max(first, inside)

"""Fit output rows to what the source implies of the target's next token."""

from __future__ import annotations

import numpy as np

from tokensurgeon.arrays import Ids
from tokensurgeon.calibration.contract import Candidates
from tokensurgeon.calibration.data import CalibrationData, TextSizes
from tokensurgeon.calibration.matrices import Matrices
from tokensurgeon.calibration.stages.follows import Follows
from tokensurgeon.calibration.stages.regression import Regression, rows_that_matter
from tokensurgeon.calibration.stages.rounds import RegressionStage
from tokensurgeon.calibration.teacher.implied import Implied
from tokensurgeon.vocabulary.spellings import Spellings

COUNT_OF_MAIN = 4.0
"""Occurrences of the token that leads a group, beside those in the text, when the group's mass is
divided where the text does not go on with it: a member the text never shows gets nothing."""


class Marginal(RegressionStage):
    """U ← argmin of Σ KL(Q ‖ softmax(U·h)) + λ/2·‖U − U₀‖²_G over positions of a text.

    Q is the source's own distribution of the target's next token there
    (`tokensurgeon.calibration.teacher`), h the patched model's state: labels play no part. The
    rounds are those of `refit`, with all that Q says in the place of the token that follows.
    """

    name = "marginal"
    changes_shared = True

    def propose(self, data: CalibrationData, matrices: Matrices) -> Candidates:
        """Yield rounds over all rows for as long as they help."""
        if not data.model.plain_head:
            return "no gain: the model's logits are no plain product"
        follows = follows_of(data.implied, data.target_positions.before, data.spellings)
        if not len(follows.states):
            return "no gain: the source implies nothing on this text"
        states = data.final_states(matrices, data.texts.fit)
        used, index = np.unique(follows.states, return_inverse=True)
        after = Follows(index, follows.tokens, follows.weights)
        active = rows_that_matter(data.head(matrices), states[used], after)
        regression = Regression(
            data.head(matrices),
            matrices,
            states[used],
            after if active is None else after.among(active),
            data.new_and_shared,
            active,
        )
        yield from self.rounds(regression)
        return None

    def read_tokens(self, sizes: TextSizes) -> int:
        """The source's reading of the text, and the patched model's."""
        return 2 * sizes.fit

    def scored_once(self, sizes: TextSizes) -> int:
        """The source's distributions."""
        return sizes.fit


def follows_of(implied: Implied, before: Ids, spellings: Spellings) -> Follows:
    """Return what follows states, by the implied distributions.

    A group's mass is divided among its tokens as the text divides it on average, and the mass that
    no cell names is left out.

    Parameters
    ----------
    implied : Implied
    before : int64 (n_tokens,)
        The state before each target token.
    spellings : Spellings
    """
    n_rows, group = spellings.target.n_rows, spellings.group
    row, cell = np.nonzero((implied.ids >= 0) & (implied.masses > 0))
    ids, masses = implied.ids[row, cell], implied.masses[row, cell].astype(np.float64)
    single = ids >= n_rows
    tokens = np.where(single, ids - n_rows, ids)
    # Where a group was divided: what its members and its leading token got.
    member = single & (group[tokens] != tokens)
    divided = set(zip(row[member].tolist(), group[tokens[member]].tolist(), strict=True))
    led = np.array([pair in divided for pair in zip(row.tolist(), tokens.tolist(), strict=True)])
    led = ~single & led if len(led) else single
    to_members = np.bincount(tokens[member], masses[member], minlength=n_rows)
    members = np.flatnonzero(to_members)
    whole = COUNT_OF_MAIN + np.bincount(tokens[led], masses[led], minlength=n_rows)
    whole += np.bincount(group[members], to_members[members], minlength=n_rows)
    share = to_members / whole[group]
    kept = 1 - np.bincount(group[members], share[members], minlength=n_rows)
    # Elsewhere a group's mass goes to its members by these shares.
    undivided = np.flatnonzero(~single & ~led & (kept[tokens] < 1))
    of_group = {int(g): members[group[members] == g] for g in np.unique(group[members])}
    extra = [(i, token) for i in undivided.tolist() for token in of_group[int(tokens[i])].tolist()]
    at = np.array([i for i, _ in extra], dtype=np.int64)
    more = np.array([token for _, token in extra], dtype=np.int64)
    all_rows = np.concatenate([row, row[at]])
    all_tokens = np.concatenate([tokens, more])
    weights = np.concatenate([masses, masses[at] * share[more]])
    weights[undivided] *= kept[tokens[undivided]]
    order = np.argsort(before[implied.positions[all_rows]], kind="stable")
    states = before[implied.positions[all_rows[order]]]
    weights = weights[order]
    total = np.bincount(states, weights)
    return Follows(states, all_tokens[order], (weights / total[states]).astype(np.float32))

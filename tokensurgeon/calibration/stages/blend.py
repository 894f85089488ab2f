"""Rules of few numbers that write all new rows anew from their pieces."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tokensurgeon.arrays import Float32, Float64, Ids, Mask
from tokensurgeon.calibration.contract import Candidate, Candidates, Cost, Stage
from tokensurgeon.calibration.data import CalibrationData, TextSizes
from tokensurgeon.calibration.matrices import Matrices
from tokensurgeon.calibration.row_rules import RuleData, fit_rule
from tokensurgeon.calibration.stages.directions import even_direction, shifted
from tokensurgeon.initialisers.numerics.piece_weights import piece_weights

MOST_TOKENS = 12_000
"""Of the text that is read: some eight hundred of them are new on the vocabularies measured."""
MOST_PRODUCTS = 1 << 28
"""Logits of new tokens that are kept, in float16: 512 MiB."""
SHARE_NEW = 0.5
"""Of the states kept, those that a new token follows, where there are so many."""
MIXED = ("kept", "first", "last")
"""The rows that are mixed: as they are, and of the first and of the last piece."""
BIASES = (
    "one",
    "rank",
    "pieces",
    "bytes",
    "space",
    "capital",
    "digits",
    "digits_rank",
    "signs",
    "not_ascii",
)
"""What is known of a token besides. `rank` is the log of its id, which in a trained vocabulary
falls with how frequent the token is."""
MIXED_DEVIATION, BIAS_DEVIATION = 0.5, 2.0
"""How far coefficients are expected from leaving the rows as they are, in shares and in nats."""
LAST, OTHERS = 1.3, 0.4
"""Of the last piece's input row, and of the mean of the others."""


class Lean(Stage):
    """e_t ← 1.3·E[s_k] + 0.4·mean(E[s_1] … E[s_{k−1}]) for new tokens of several pieces.

    A state behind a word is, for the most part, the state behind its last piece; and one row that
    stands where several stood must be longer than each.
    """

    name = "lean"
    one_side = True
    validation_passes = 2

    def propose(self, data: CalibrationData, matrices: Matrices) -> Candidates:
        """Yield the new rows, and what is half of the way to them where they do not help."""
        ids, pieces = data.new_pieces
        several = np.array([len(row) > 1 for row in pieces], dtype=np.bool_)
        if not several.any():
            return "no gain: no new token is written with several pieces"
        ids, pieces = ids[several], [row for row in pieces if len(row) > 1]
        rows = data.context.input_rows
        leaning = piece_weights(pieces, len(rows), _leaning) @ rows
        for share in (1.0, 0.5):
            changed = matrices.input.copy()
            changed[ids] += np.float32(share) * (leaning - changed[ids])
            settings = {"last": LAST, "others": OTHERS, "share": share}
            if (yield Candidate.of(settings, matrices.with_input(changed))):
                break
        return None


def _leaning(count: int) -> Float64:
    """Return weights of `count` pieces: of the last, and one that the others share."""
    return np.append(np.full(count - 1, OTHERS / (count - 1)), LAST)


class Blend(Stage):
    """u_t ← a₀·u_t + a₁·U[s_1] + a₂·U[s_k] + (c·f(t))·b for all new rows.

    f says what is known of a token: its id and length, how many pieces it has, what it is written
    with (`BIASES`); b is the direction along which every state reads one. The thirteen numbers make
    a page of the text likeliest, by Newton steps. Where rows are tied, the mixture that is best for
    the output side need not be so for the other: the rule with a = (1, 0, 0) is tried too.
    """

    name = "blend"

    def propose(self, data: CalibrationData, matrices: Matrices) -> Candidates:
        """Yield the rows that the fitted rule writes."""
        if not data.model.plain_head:
            return "no gain: the model's logits are no plain product"
        known = _Known.of(data, matrices)
        states, tokens = data.before_tokens(matrices, data.first(data.texts.fit, MOST_TOKENS))
        new = np.isin(tokens, known.ids)
        if not new.any():
            return "no gain: the text shows no new token"
        direction = even_direction(states)
        kept, weights = _sample(new, len(MIXED) * len(known.ids))
        rule = _read(data, matrices, known, states[kept], tokens[kept], weights, direction)
        start = np.r_[1.0, np.zeros(len(MIXED) - 1 + len(BIASES))]
        for free in (0.0, MIXED_DEVIATION) if matrices.tied else (MIXED_DEVIATION,):
            deviation = np.r_[np.full(len(MIXED), free), np.full(len(BIASES), BIAS_DEVIATION)]
            theta = fit_rule(rule, start, deviation)
            named = zip((*MIXED, *BIASES), theta, strict=True)
            yield Candidate.of(
                {name: round(float(x), 3) for name, x in named},
                known.written(matrices, theta, direction, data.model.logit_scale),
            )
        return None

    def cost(self, sizes: TextSizes) -> Cost:
        """A run over some of the text; its states are scored, and again in a few rounds."""
        few = min(MOST_TOKENS, sizes.fit)
        kept = min(few, MOST_PRODUCTS // (len(MIXED) * max(1, sizes.n_rows)))
        return Cost(few, passes=2, scored=6 * kept)


@dataclass(frozen=True)
class _Known:
    """What the rule knows of the new tokens that it writes.

    `rows` and `biases` are in the order of `MIXED`; without an output bias `biases` is empty.
    """

    ids: Ids
    features: Float32
    rows: list[Float32]
    biases: list[Float32]

    @classmethod
    def of(cls, data: CalibrationData, matrices: Matrices) -> _Known:
        """Read it off the rows as they are, and the source's."""
        ids, pieces = data.new_pieces
        ends = [np.array([row[end] for row in pieces], dtype=np.int64) for end in (0, -1)]
        rows = [matrices.output[ids], *(data.context.output_rows[end] for end in ends)]
        biases, source = [], data.context.output_bias
        if matrices.bias is not None and source is not None:
            biases = [matrices.bias[ids], *(source[end] for end in ends)]
        return cls(ids, _features(data, ids, pieces), rows, biases)

    def written(
        self, matrices: Matrices, theta: Float64, direction: Float64, scale: float
    ) -> Matrices:
        """Return the matrices with the new rows as the rule writes them."""
        mixed = theta[: len(self.rows)]
        output, bias = matrices.output.copy(), None
        output[self.ids] = sum(a * rows for a, rows in zip(mixed, self.rows, strict=True))
        if matrices.bias is not None:
            bias = matrices.bias.copy()
            bias[self.ids] = sum(a * own for a, own in zip(mixed, self.biases, strict=True))
        amounts = self.features.astype(np.float64) @ theta[len(mixed) :]
        mixture = matrices.with_output(output, bias)
        return shifted(mixture, self.ids, amounts, direction, scale)


def _features(data: CalibrationData, ids: Ids, pieces: list[tuple[int, ...]]) -> Float32:
    """Return what biases are made of, in the order of `BIASES`, float32 (n, n_features)."""
    table = np.empty((len(ids), len(BIASES)))
    for row, (token, spelled) in enumerate(zip(ids.tolist(), pieces, strict=True)):
        text = (data.context.target.token_bytes[token] or b"").decode("utf-8", "replace")
        word, rank = text.strip(), math.log(1 + token)
        table[row] = (
            1,
            rank,
            len(spelled) - 2,
            math.log(max(1, len(text))),
            text[:1] == " ",
            word[:1].isupper(),
            word.isdigit(),
            rank * word.isdigit(),
            not any(map(str.isalnum, word)),
            not text.isascii(),
        )
    digits = table[:, BIASES.index("digits")] > 0
    for name, of in (("rank", slice(None)), ("bytes", slice(None)), ("digits_rank", digits)):
        column = table[:, BIASES.index(name)]
        if len(column[of]):
            column[of] -= column[of].mean()
    return table.astype(np.float32)


def _sample(new: Mask, n_products: int) -> tuple[Ids, Float64]:
    """Return which states are kept, ascending, and for how many tokens each stands.

    Of those that a new token follows and of the others, as many as memory and `SHARE_NEW` allow,
    at even distances.
    """
    most = max(2, MOST_PRODUCTS // max(1, n_products))
    parts, weights = [], np.zeros(len(new))
    two, one = np.flatnonzero(~new), np.flatnonzero(new)
    n_one = min(len(one), max(1, int(SHARE_NEW * most)))
    for at, n in ((one, n_one), (two, min(len(two), most - n_one))):
        parts.append(at[np.linspace(0, len(at) - 1, n).astype(np.int64)] if n else at[:0])
        weights[parts[-1]] = len(at) / max(1, n)
    kept = np.sort(np.concatenate(parts))
    return kept, weights[kept]


def _read(
    data: CalibrationData,
    matrices: Matrices,
    known: _Known,
    states: Float32,
    tokens: Ids,
    weights: Float64,
    direction: Float64,
) -> RuleData:
    """Return what the rule reads at some states, and which tokens follow them."""
    import torch

    shape = len(known.rows), len(states), len(known.ids)
    products = torch.empty(shape, dtype=torch.float16, device=data.context.device)
    for k, rows in enumerate(known.rows):
        head = data.source_head.with_rows(rows, known.biases[k] if known.biases else None)
        for part in head.blocks(len(states)):
            products[k, part] = head.logits(states[part]).half()
    even = states @ direction.astype(np.float32)
    if matrices.bias is not None:  # then a shift goes there, and is the same everywhere
        even = np.ones_like(even)
    where = np.full(len(matrices.output), -1)
    where[known.ids] = np.arange(len(known.ids))
    others = np.flatnonzero(where < 0)
    bias = None if matrices.bias is None else matrices.bias[others]
    rest = data.source_head.with_rows(matrices.output[others], bias).logsumexp(states)
    return RuleData(products, known.features, even, rest, where[tokens], weights)

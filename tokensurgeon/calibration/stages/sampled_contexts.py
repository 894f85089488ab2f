"""Contexts for new tokens that a text hardly shows: where the source might have written them.

Windows of the text end at boundaries of both tokenizers. A new token is set behind the windows
after which the source finds its first piece likeliest. The source then reads its pieces there, and
so says what probability the token would have in its own words. No text needs to hold the token.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tokensurgeon.arrays import Float32, Float64, Ids, blocks
from tokensurgeon.calibration.data import CalibrationData

WINDOW = 32
"""Bytes, or the little more to the next boundary: some words, enough for a first piece."""
MOST_WINDOWS = 4_000
"""Among which each token's contexts are chosen: one forward pass over 4,000 short windows costs
little beside the reading of the tokens."""
PER_TOKEN = 16
"""Contexts of one token, fewer where the tokens that may be run do not suffice for all."""
FEWEST = 8
"""Where they do not suffice for these either, the rarest tokens have none."""
AT_ONCE = 1 << 17
"""Tokens run before their states are dropped: half a GiB at a width of 1,024."""


@dataclass(frozen=True)
class SampledContexts:
    """What the source says of new tokens in contexts of its own choice, one entry each.

    Attributes
    ----------
    tokens : int64 (n,)
        Target ids, ascending.
    states : float32 (n, width)
        The source's final state before the token.
    logprob : float64 (n,)
        The source's log-probability of the token's pieces.
    logsumexp : float64 (n,)
        Of the source's logits before the token.
    """

    tokens: Ids
    states: Float32
    logprob: Float64
    logsumexp: Float64


def sample_contexts(data: CalibrationData) -> SampledContexts:
    """Choose the contexts, run the source over them, and return what it says.

    At most `data.context_tokens` tokens are run. Where that is too few for all new tokens, those
    that the text shows most and the source expects most come first.
    """
    context, model = data.context, data.model
    windows = [(*context.prefix, *ids) for ids in _windows(data) if context.prefix or ids]
    of = dict(zip(context.missing.tolist(), context.pieces, strict=True))
    room = np.inf
    if windows and model.max_positions is not None:
        room = model.max_positions - max(map(len, windows))
    new = [int(i) for i in data.new if int(i) in of and len(of[int(i)]) <= room]
    empty = np.zeros((0, model.width), np.float32)
    if not windows or not new:
        return SampledContexts(np.zeros(0, np.int64), empty, np.zeros(0), np.zeros(0))
    first, which = np.unique([of[i][0] for i in new], return_inverse=True)
    scores = _scores(data, windows, first)
    lengths = np.array([len(of[i]) for i in new]) + np.mean([len(w) for w in windows])
    able, n_each = _afforded(data, new, scores.mean(axis=1)[which], lengths, len(windows))
    best = {
        k: np.sort(np.argpartition(-scores[k], n_each - 1)[:n_each]).tolist()
        for k in np.unique(which[able]).tolist()
    }
    pairs = [(w, k) for k in able for w in best[which[k]]]
    parts = []
    size = max(1, int(AT_ONCE / lengths.mean()))
    for part in blocks(len(pairs), size):
        data.context.progress(part.start, len(pairs), "the source reads new tokens")
        parts.append(_read(data, [(windows[w], of[new[k]]) for w, k in pairs[part]]))
    return SampledContexts(
        np.array([new[k] for _, k in pairs], dtype=np.int64),
        *(np.concatenate(column) for column in zip(*parts, strict=True)),
    )


def _scores(data: CalibrationData, windows: list[tuple[int, ...]], first: Ids) -> Float32:
    """Return the log-probability of each piece after each window, float32 (n_first, n_windows)."""
    model = data.model
    states = model.states(windows, model.n_layers)
    data.forward_tokens += sum(map(len, windows))
    scores = np.empty((len(first), len(windows)), np.float32)
    for part in data.source_head.blocks(len(windows)):
        logprob = data.source_head.log_softmax(states[part])
        scores[:, part] = logprob.T[first].cpu().numpy()
    return scores


def _windows(data: CalibrationData) -> list[tuple[int, ...]]:
    """Return the source's ids between two common boundaries, at evenly spaced ones."""
    source, target = data.source_positions, data.target_positions
    common = np.intersect1d(source.boundaries, target.boundaries)
    most = min(MOST_WINDOWS, max(1, data.context_tokens // WINDOW))  # as many tokens, at most
    ends = common[:: max(1, -(-len(common) // most))]
    begins = common[np.searchsorted(common, ends - WINDOW)]
    # There is a gap after each chunk: a window must not reach over it.
    begins = np.maximum(begins, _chunk_starts(data, ends))
    first = np.searchsorted(source.starts, begins)
    last = np.searchsorted(source.ends, ends, side="right")
    return [tuple(source.ids[a:b].tolist()) for a, b in zip(first, last, strict=True)]


def _chunk_starts(data: CalibrationData, offsets: Ids) -> Ids:
    sizes = np.array([chunk.n_bytes + 1 for chunk in data.texts.fit])
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    nearest: Ids = starts[np.searchsorted(starts, offsets, side="right") - 1]
    return nearest


def _afforded(
    data: CalibrationData, new: list[int], expected: Float32, lengths: Float64, most: int
) -> tuple[list[int], int]:
    """Return which tokens of `new` get contexts, by index, ascending, and how many each."""
    whole = lengths.sum()
    n_each = int(np.clip(data.context_tokens / whole, FEWEST, PER_TOKEN))
    shown = np.bincount(data.target_positions.ids, minlength=max(new) + 1)[new]
    order = np.lexsort((-expected, -shown))
    n = int(np.searchsorted(np.cumsum(lengths[order]) * n_each, data.context_tokens)) + 1
    return sorted(order[:n].tolist()), min(n_each, most)


def _read(
    data: CalibrationData, pairs: list[tuple[tuple[int, ...], tuple[int, ...]]]
) -> tuple[Float32, Float64, Float64]:
    """Run windows with the pieces behind them; return states, logprob and logsumexp."""
    model = data.model
    sequences = [(*window, *pieces) for window, pieces in pairs]
    data.forward_tokens += sum(map(len, sequences))
    states = model.every_state([one[:-1] for one in sequences], model.n_layers)
    n_pieces = np.array([len(pieces) for _, pieces in pairs])
    flat = np.concatenate([own[-n:] for own, n in zip(states, n_pieces, strict=True)])
    goals = np.concatenate([pieces for _, pieces in pairs])
    logsumexp, at_goal = np.empty(len(flat)), np.empty(len(flat))
    for part in data.source_head.blocks(len(flat)):
        logits = data.source_head.logits(flat[part])
        logsumexp[part] = logits.logsumexp(1).cpu().numpy()
        at_goal[part] = logits[range(len(logits)), goals[part]].cpu().numpy()
    begin = np.concatenate([[0], np.cumsum(n_pieces)[:-1]])
    return flat[begin], np.add.reduceat(at_goal - logsumexp, begin), logsumexp[begin]

"""How good a draft model is for a big one: what speculative sampling would accept of its tokens.

At a position of a text the big model has the distribution p over the next token and the draft q.
Speculative sampling accepts a token drafted from q with probability Σ min(p, q) (Leviathan et al.,
2023, arXiv 2211.17192); greedy decoding accepts it where both find the same token likeliest. Both
need one vocabulary: the same text per id. What a small model of another vocabulary can do without a
surgery is measured beside (`without_surgery`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tokensurgeon.arrays import Float64
from tokensurgeon.errors import EvaluationError
from tokensurgeon.evaluation.without_surgery import Drafted, WithoutSurgery
from tokensurgeon.models import LanguageModel, load_model
from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.text.corpus import Corpus, read_to_measure
from tokensurgeon.text.encoding import fitting_chunks
from tokensurgeon.text.seen import refuse_seen
from tokensurgeon.vocabulary import Vocabulary, load_vocabulary

DRAFTED = (2, 3, 4, 5, 6, 7, 8)
"""Tokens drafted at once: what engines are set to."""
PLACES = 200
"""At which a small model writes by itself: its accepted share is then known to about 0.03."""
DEFAULT_BYTES = 50_000
"""Of text: some ten thousand positions, each scored by a big model, settle a mean acceptance."""


@dataclass(frozen=True)
class Accepted:
    """What a big model would accept of a draft's tokens on a text.

    Attributes
    ----------
    acceptance : float
        Mean of Σ min(p, q): the chance that a sampled token is accepted.
    agreement : float
        Share of the places where both find the same token likeliest.
    accepted, accepted_greedy : dict of int to float
        By how many tokens are drafted at once, how many are accepted on average, by sampling and
        greedily. One more token comes from the big model itself; without a draft, that is all.
    n_positions : int
    """

    acceptance: float
    agreement: float
    accepted: dict[int, float]
    accepted_greedy: dict[int, float]
    n_positions: int

    @classmethod
    def along(cls, sampled: Sequence[Float64], greedy: Sequence[Float64]) -> Accepted:
        """Return the figures from the chances of the tokens of texts, one array per text."""
        return cls(
            acceptance=float(np.concatenate(sampled).mean()),
            agreement=float(np.concatenate(greedy).mean()),
            accepted={n: expected_accepted(sampled, n) for n in DRAFTED},
            accepted_greedy={n: expected_accepted(greedy, n) for n in DRAFTED},
            n_positions=sum(map(len, sampled)),
        )

    @classmethod
    def of_drafts(cls, drafts: Sequence[Sequence[Drafted]]) -> Accepted:
        """Return the figures from drafts of one, two, … tokens at some places."""

        def accepted(mode: str, n: int) -> float:
            chances = (getattr(of_place[n - 1], mode) for of_place in drafts if len(of_place) >= n)
            return float(sum(np.cumprod(own).sum() for own in chances) / max(1, len(drafts)))

        def first(mode: str) -> float:
            firsts = (getattr(of_place[-1], mode)[:1] for of_place in drafts if of_place)
            return float(sum(own.sum() for own in firsts) / max(1, len(drafts)))

        return cls(
            acceptance=first("sampled"),
            agreement=first("greedy"),
            accepted={n: accepted("sampled", n) for n in DRAFTED},
            accepted_greedy={n: accepted("greedy", n) for n in DRAFTED},
            n_positions=len(drafts),
        )


@dataclass(frozen=True)
class DraftResult(Accepted):
    """What a big model would accept of a draft, and of what needs no surgery.

    Attributes
    ----------
    n_bytes : int
        Of text.
    n_rows : tuple of int
        Of the draft and of the big model; engines may insist that they are equal.
    without_surgery : dict of str to Accepted
        By way, what the big model would accept of an untouched small model: see
        `WithoutSurgery`. Of re-encoding, tokens that are drafted are the small model's.
    """

    n_bytes: int = 0
    n_rows: tuple[int, int] = (0, 0)
    without_surgery: dict[str, Accepted] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the result for JSON."""
        return asdict(self)


def evaluate_draft(
    draft: str | Path,
    big: str | Path,
    texts: Sequence[str | Path] | Corpus,
    *,
    untouched: str | Path | None = None,
    field: str = "text",
    max_bytes: int | None = DEFAULT_BYTES,
    device: str = "cpu",
    dtype: str = "float32",
    trust_remote_code: bool = False,
    allow_seen_text: bool = False,
    allow_invalid_text: bool = False,
    progress: Progress = no_progress,
) -> DraftResult:
    """Measure a draft model for a big model, both at the same places of a text.

    Parameters
    ----------
    draft, big : str or Path
        Checkpoints whose tokenizers give every id the same text.
    texts : sequence of str or Path, or Corpus
    untouched : str, Path or None
        A small model with a tokenizer of its own, mostly the draft's source: what it drafts without
        a surgery is measured beside.
    field, max_bytes, device, dtype, trust_remote_code, allow_seen_text
        As in `evaluate_checkpoint`.
    allow_invalid_text, progress
        The same.

    Raises
    ------
    EvaluationError
        If the vocabularies differ, naming the first id, or no text fits both models.
    """
    corpus = texts
    if not isinstance(corpus, Corpus):
        corpus = read_to_measure(
            corpus, max_bytes=max_bytes, field=field, allow_invalid=allow_invalid_text
        )
    paths = [path for path in (draft, big, untouched) if path is not None]
    vocabularies = [load_vocabulary(path) for path in paths]
    check_same_ids(*vocabularies[:2])
    for vocabulary in vocabularies:
        refuse_seen(vocabulary.folder, corpus.texts, allow_seen_text)
    small, large, *others = (
        load_model(path, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
        for path in paths
    )
    return measure_draft(
        small,
        large,
        vocabularies[1],
        corpus.texts,
        untouched=(others[0], vocabularies[2]) if others else None,
        max_bytes=max_bytes,
        progress=progress,
    )


def check_same_ids(draft: Vocabulary, big: Vocabulary) -> None:
    """Refuse two vocabularies that give an id different texts.

    Raises
    ------
    EvaluationError
    """
    for token in range(max(draft.n_rows, big.n_rows)):
        (own, spelling), (other, other_spelling) = (
            (v.token_bytes[token], v.spellings[token]) if token < v.n_rows else (None, None)
            for v in (draft, big)
        )
        if own != other or (spelling is None) != (other_spelling is None):
            raise EvaluationError(
                f"id {token} is {spelling!r} to the draft and {other_spelling!r} to the big model, "
                "and a draft must share its ids: make one with transplant --for-draft"
            )


def measure_draft(
    draft: LanguageModel,
    big: LanguageModel,
    vocabulary: Vocabulary,
    texts: Sequence[str],
    *,
    untouched: tuple[LanguageModel, Vocabulary] | None = None,
    max_bytes: int | None = DEFAULT_BYTES,
    progress: Progress = no_progress,
) -> DraftResult:
    """Measure two loaded models of one vocabulary; see `evaluate_draft`."""
    from scipy.special import softmax

    limits = [m for m in (draft.max_positions, big.max_positions) if m is not None]
    chunks, encoded, fits = fitting_chunks(
        vocabulary, texts, min(limits, default=None), max_bytes=max_bytes
    )
    chosen = [i for i in np.flatnonzero(fits) if len(encoded.prefix) + len(encoded.ids[i]) > 1]
    if not chosen:
        raise EvaluationError(
            f"none of {len(chunks):,} chunks of text fits both models; give more text"
        )
    first = 0 if encoded.prefix else 1  # a model without a prefix says nothing of the first token
    beside = None
    if untouched is not None:
        n_positions = sum(len(encoded.ids[i]) - first for i in chosen)
        beside = _Beside(WithoutSurgery(untouched[0], big, untouched[1], vocabulary), n_positions)
    overlaps: list[Float64] = []
    agreements: list[Float64] = []
    for done, i in enumerate(chosen):
        (ids,) = encoded.sequences(np.array([i]))
        # From the last id of the prefix on, every state but the last one says what comes next.
        predicting = slice(max(0, len(encoded.prefix) - 1), -1)
        p = softmax(big.logits(ids)[predicting].astype(np.float64), axis=1)
        q = softmax(draft.logits(ids)[predicting].astype(np.float64), axis=1)
        shared = min(p.shape[1], q.shape[1])
        overlaps.append(np.minimum(p[:, :shared], q[:, :shared]).sum(axis=1))
        agreements.append((p.argmax(axis=1) == q.argmax(axis=1)).astype(np.float64))
        if beside is not None:
            starts = [0, *encoded.ends[i].tolist()][first:-1]
            beside.look(chunks[i].text.encode(), starts, ids, p)
        progress(done + 1, len(chosen), "drafting")
    return DraftResult(
        **vars(Accepted.along(overlaps, agreements)),
        n_bytes=sum(chunks[i].n_bytes for i in chosen),
        n_rows=(draft.n_rows, big.n_rows),
        without_surgery={} if beside is None else beside.result(),
    )


class _Beside:
    """What is measured of an untouched small model, chunk by chunk."""

    def __init__(self, ways: WithoutSurgery, n_positions: int) -> None:
        self._ways, self._step = ways, max(1, n_positions // PLACES)
        self._seen = 0
        self._nexts: list[Drafted] = []
        self._drafts: list[list[Drafted]] = []

    def look(self, data: bytes, starts: Sequence[int], ids: Sequence[int], p: Float64) -> None:
        """Measure both ways on a chunk.

        Parameters
        ----------
        data : bytes
        starts : sequence of int
            Where the predicted tokens begin; the last `len(starts)` of `ids` are these.
        ids : sequence of int
        p : float64 (len(starts), n_rows)
            What the big model says there.
        """
        self._nexts.append(self._ways.intersection(data, starts, p))
        for at, start in enumerate(starts):
            if (self._seen + at) % self._step == 0:
                before = ids[: len(ids) - len(starts) + at]
                seed = len(self._drafts)
                self._drafts.append(self._ways.re_encoding(data[:start], before, DRAFTED[-1], seed))
        self._seen += len(starts)

    def result(self) -> dict[str, Accepted]:
        """Return the figures by way."""
        sampled, greedy = [one.sampled for one in self._nexts], [one.greedy for one in self._nexts]
        return {
            "token-level intersection": Accepted.along(sampled, greedy),
            "re-encoding": Accepted.of_drafts(self._drafts),
        }


def expected_accepted(chances: Sequence[Float64], drafted: int) -> float:
    """Return how many of `drafted` tokens are accepted on average, started anywhere.

    A token is accepted only if all before it were: the sum over k of the product of the first k
    chances. Chances are those along the text, so that hard stretches count as they come.

    Parameters
    ----------
    chances : sequence of float64 (n,)
        Of each position of a text, one array per text.
    drafted : int

    Examples
    --------
    >>> expected_accepted([np.array([1.0, 0.5, 0.5])], 2)
    1.125
    """
    accepted = []
    for of_text in chances:
        if len(of_text) >= drafted:
            windows = np.lib.stride_tricks.sliding_window_view(of_text, drafted)
            accepted.append(np.cumprod(windows, axis=1).sum(axis=1))
    return float(np.concatenate(accepted).mean()) if accepted else float("nan")

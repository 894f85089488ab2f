"""How good a draft model is for a big one: what speculative sampling would accept of its tokens.

At a position of a text the big model has the distribution p over the next token and the draft q.
Speculative sampling accepts a token drafted from q with probability Σ min(p, q) (Leviathan et al.,
2023, arXiv 2211.17192); greedy decoding accepts it where both find the same token likeliest. Both
need one vocabulary: the same text per id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tokensurgeon.arrays import Float64
from tokensurgeon.errors import EvaluationError
from tokensurgeon.models import LanguageModel, load_model
from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.text.corpus import Corpus, read_to_measure
from tokensurgeon.text.encoding import fitting_chunks
from tokensurgeon.text.seen import refuse_seen
from tokensurgeon.vocabulary import Vocabulary, load_vocabulary

DRAFTED = (2, 3, 4, 5, 6, 7, 8)
"""Tokens drafted at once: what engines are set to."""
DEFAULT_BYTES = 50_000
"""Of text: some ten thousand positions, each scored by a big model, settle a mean acceptance."""


@dataclass(frozen=True)
class DraftResult:
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
    n_positions, n_bytes : int
    n_rows : tuple of int
        Of the draft and of the big model; engines may insist that they are equal.
    """

    acceptance: float
    agreement: float
    accepted: dict[int, float]
    accepted_greedy: dict[int, float]
    n_positions: int
    n_bytes: int
    n_rows: tuple[int, int]

    def to_dict(self) -> dict[str, Any]:
        """Return the result for JSON."""
        return asdict(self)


def evaluate_draft(
    draft: str | Path,
    big: str | Path,
    texts: Sequence[str | Path] | Corpus,
    *,
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
    vocabularies = [load_vocabulary(model) for model in (draft, big)]
    check_same_ids(*vocabularies)
    for vocabulary in vocabularies:
        refuse_seen(vocabulary.folder, corpus.texts, allow_seen_text)
    small, large = (
        load_model(path, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
        for path in (draft, big)
    )
    return measure_draft(
        small, large, vocabularies[1], corpus.texts, max_bytes=max_bytes, progress=progress
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
    max_bytes: int | None = DEFAULT_BYTES,
    progress: Progress = no_progress,
) -> DraftResult:
    """Measure two loaded models of one vocabulary; see `evaluate_draft`."""
    limits = [m for m in (draft.max_positions, big.max_positions) if m is not None]
    from scipy.special import softmax

    chunks, encoded, fits = fitting_chunks(
        vocabulary, texts, min(limits, default=None), max_bytes=max_bytes
    )
    chosen = np.flatnonzero(fits)
    overlaps: list[Float64] = []
    agreements: list[Float64] = []
    for done, ids in enumerate(encoded.sequences(chosen)):
        if len(ids) < 2:
            continue
        # From the last id of the prefix on, every state but the last one says what comes next.
        predicting = slice(max(0, len(encoded.prefix) - 1), -1)
        q, p = (
            softmax(model.logits(ids)[predicting].astype(np.float64), axis=1)
            for model in (draft, big)
        )
        shared = min(p.shape[1], q.shape[1])
        overlaps.append(np.minimum(p[:, :shared], q[:, :shared]).sum(axis=1))
        agreements.append((p.argmax(axis=1) == q.argmax(axis=1)).astype(np.float64))
        progress(done + 1, len(chosen), "drafting")
    if not overlaps:
        raise EvaluationError(
            f"none of {len(chunks):,} chunks of text fits both models; give more text"
        )
    return DraftResult(
        acceptance=float(np.concatenate(overlaps).mean()),
        agreement=float(np.concatenate(agreements).mean()),
        accepted={n: expected_accepted(overlaps, n) for n in DRAFTED},
        accepted_greedy={n: expected_accepted(agreements, n) for n in DRAFTED},
        n_positions=sum(map(len, overlaps)),
        n_bytes=sum(chunks[i].n_bytes for i in chosen),
        n_rows=(draft.n_rows, big.n_rows),
    )


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

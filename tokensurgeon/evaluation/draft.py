"""How good a draft model is for a big one: what speculative sampling would accept of its tokens.

At a position of a text the big model has the distribution p over the next token and the draft q.
Speculative sampling accepts a token drafted from q with probability Σ min(p, q) (Leviathan et al.,
2023, arXiv 2211.17192); greedy decoding accepts it where both find the same token likeliest. Both
need one vocabulary: the same text per id. What a small model of another vocabulary can do without a
surgery is measured beside (`without_surgery`).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tokensurgeon.arrays import Float32, Float64, Ids
from tokensurgeon.checkpoint.draft_engines import engine_rules
from tokensurgeon.checkpoint.draft_vocabulary import read_kept
from tokensurgeon.checkpoint.files import find_folder
from tokensurgeon.errors import EvaluationError
from tokensurgeon.evaluation.draft_figures import DRAFTED, Accepted, CutHead, DraftResult
from tokensurgeon.evaluation.without_surgery import WithoutSurgery
from tokensurgeon.evaluation.written_drafts import Drafted, softmax, write
from tokensurgeon.models import LanguageModel, load_model
from tokensurgeon.models.along_text import AlongText
from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.text.corpus import Corpus, read_to_measure
from tokensurgeon.text.encoding import fitting_chunks
from tokensurgeon.text.seen import refuse_seen
from tokensurgeon.vocabulary import Vocabulary, load_vocabulary

PLACES = 100
"""At which a small model writes by itself: its accepted share is then known to about 0.04."""
MOST_RUN = 40_000
"""Tokens that a small model runs for its intersection: a place whose text so far it spells in other
tokens than the whole costs a pass of its own, and some thousand places are enough."""
CONTEXT, TIMED = 128, 15
"""Tokens that stand before the token whose time is taken, and how often it is taken."""
DEFAULT_BYTES = 50_000
"""Of text: some ten thousand positions, each scored by a big model, settle a mean acceptance."""


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
    result = measure_draft(
        small,
        large,
        vocabularies[1],
        corpus.texts,
        untouched=(others[0], vocabularies[2]) if others else None,
        kept=read_kept(find_folder(draft), small.n_rows),
        max_bytes=max_bytes,
        progress=progress,
    )
    return replace(result, engines=engine_rules(draft, big, trust_remote_code=trust_remote_code))


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
    kept: Ids | None = None,
    max_bytes: int | None = DEFAULT_BYTES,
    progress: Progress = no_progress,
) -> DraftResult:
    """Measure two loaded models of one vocabulary; see `evaluate_draft`.

    `kept` are the ids, ascending, that a cut head of the draft keeps.
    """
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
        ways = WithoutSurgery(untouched[0], big, untouched[1], vocabulary)
        beside = _Beside(ways, AlongText(draft), AlongText(big), n_positions)
    drafted, cut = _Drafts(), _Drafts()
    for done, i in enumerate(chosen):
        (ids,) = encoded.sequences(np.array([i]))
        # From the last id of the prefix on, every state but the last one says what comes next.
        predicting = slice(max(0, len(encoded.prefix) - 1), -1)
        p, q = (softmax(model.logits(ids)[predicting]) for model in (big, draft))
        drafted.add(p, q)
        if kept is not None:
            only = q[:, kept] / q[:, kept].sum(axis=1, keepdims=True)
            q.fill(0)
            q[:, kept] = only
            cut.add(p, q)
        if beside is not None:
            starts = [0, *encoded.ends[i].tolist()][first:-1]
            beside.look(chunks[i].text.encode(), starts, ids, p)
        progress(done + 1, len(chosen), "drafting")
    return DraftResult(
        **vars(drafted.accepted()),
        n_bytes=sum(chunks[i].n_bytes for i in chosen),
        n_rows=(draft.n_rows, big.n_rows),
        written=None if beside is None else Accepted.of_drafts(beside.own),
        without_surgery={} if beside is None else beside.result(),
        cut_head=None
        if kept is None
        else CutHead(len(kept), cut.accepted(), *_seconds_a_token(draft, kept)),
    )


class _Drafts:
    """Chances of a draft's tokens, text by text."""

    def __init__(self) -> None:
        self._overlaps: list[Float64] = []
        self._agreements: list[Float64] = []

    def add(self, p: Float32, q: Float32) -> None:
        """Add the places of a text, at which the big model says p and the draft q."""
        shared = min(p.shape[1], q.shape[1])
        self._overlaps.append(
            np.minimum(p[:, :shared], q[:, :shared]).sum(axis=1, dtype=np.float64)
        )
        self._agreements.append((p.argmax(axis=1) == q.argmax(axis=1)).astype(np.float64))

    def accepted(self) -> Accepted:
        """Return the figures of all texts."""
        return Accepted.along(self._overlaps, self._agreements)


def _seconds_a_token(draft: LanguageModel, kept: Ids) -> tuple[float, float]:
    """Return the time of a drafted token with all output rows, and with those that are kept."""
    import torch

    head = draft.head
    cut = head.with_rows(head.rows[kept], None if head.bias is None else head.bias[kept])
    state = np.ones((1, draft.width), dtype=np.float32)
    most = draft.max_positions or CONTEXT + TIMED + 2
    ids = torch.zeros((1, max(2, min(CONTEXT, most - TIMED - 1))), dtype=torch.long)
    ids = ids.to(draft.device)
    with torch.inference_mode():
        cache = draft.model(input_ids=ids[:, :-1], use_cache=True).past_key_values

        def step() -> object:  # each leaves a position more in the cache
            return draft.model(input_ids=ids[:, -1:], past_key_values=cache, use_cache=True)

        whole, *products = (
            median_seconds(work)
            for work in (step, lambda: head.logits(state), lambda: cut.logits(state))
        )
    return whole, max(0.0, whole - products[0] + products[1])


def median_seconds(work: Callable[[], object]) -> float:
    """Return the median time of a short piece of work, after a run that is not counted."""
    times = []
    for _ in range(TIMED + 1):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


class _Beside:
    """What is measured of an untouched small model, chunk by chunk, and of the draft beside it."""

    def __init__(
        self, ways: WithoutSurgery, draft: AlongText, big: AlongText, n_positions: int
    ) -> None:
        self._ways, self._draft, self._big = ways, draft, big
        self._step, self._seen = max(1, n_positions // PLACES), 0
        self._nexts: list[Drafted] = []
        self._drafts: list[list[Drafted]] = []
        self.own: list[list[Drafted]] = []

    def look(self, data: bytes, starts: Sequence[int], ids: Sequence[int], p: Float32) -> None:
        """Measure both ways on a chunk, and let the draft write at the same places.

        Parameters
        ----------
        data : bytes
        starts : sequence of int
            Where the predicted tokens begin; the last `len(starts)` of `ids` are these.
        ids : sequence of int
        p : float32 (len(starts), n_rows)
            What the big model says there.
        """
        if self._ways.n_tokens < MOST_RUN:
            self._nexts.append(self._ways.intersection(data, starts, p))
        most = DRAFTED[-1]
        for at, start in enumerate(starts):
            if (self._seen + at) % self._step == 0:
                before = ids[: len(ids) - len(starts) + at]
                seed = len(self._drafts)
                self._drafts.append(self._ways.re_encoding(data[:start], before, most, seed))
                self.own.append(write(self._draft, self._big, before, most, seed))
        self._seen += len(starts)

    def result(self) -> dict[str, Accepted]:
        """Return the figures by way."""
        sampled, greedy = [one.sampled for one in self._nexts], [one.greedy for one in self._nexts]
        return {
            "token-level intersection": Accepted.along(sampled, greedy),
            "re-encoding": Accepted.of_drafts(self._drafts),
        }

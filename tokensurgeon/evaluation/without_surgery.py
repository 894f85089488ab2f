"""What a big model accepts of an untouched small one that has another tokenizer.

Two ways need no surgery. Both re-encode the text so far for the small model, at every place.

Token-level intersection (Timor et al., 2025, arXiv 2502.05202, algorithm 4) keeps of the small
model's distribution the tokens that the big vocabulary has too, made to sum to one; a token is
accepted with probability Σ min(p, q), as of any draft. Re-encoding (algorithm 2 there, string-level
exact match) lets the small model write its own tokens, and encodes their text for the big one: a
token is accepted where it is the one that the big model draws itself, with probability p. That
depends on more than the next token, so the small model is let to write at some places of the text.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from tokensurgeon.alignment import align
from tokensurgeon.arrays import Float32, Float64
from tokensurgeon.errors import EvaluationError
from tokensurgeon.evaluation.written_drafts import Drafted, softmax
from tokensurgeon.models import LanguageModel, OutputHead
from tokensurgeon.models.along_text import AlongText
from tokensurgeon.text.encoding import prefix_of
from tokensurgeon.vocabulary import Vocabulary


class WithoutSurgery:
    """A small model that drafts for a big one as it is.

    Parameters
    ----------
    small, big : LanguageModel
    small_vocabulary, big_vocabulary : Vocabulary

    Attributes
    ----------
    n_tokens : int
        That the small model has run for `intersection` so far.
    """

    def __init__(
        self,
        small: LanguageModel,
        big: LanguageModel,
        small_vocabulary: Vocabulary,
        big_vocabulary: Vocabulary,
    ) -> None:
        self.small, self.n_tokens = small, 0
        self._small, self._big = AlongText(small), AlongText(big)
        self.small_vocabulary, self.big_vocabulary = small_vocabulary, big_vocabulary
        of_big = align(small_vocabulary, big_vocabulary).source_ids
        self._shared = np.flatnonzero((of_big >= 0) & (of_big < small.n_rows))
        self._own = of_big[self._shared]
        if not len(self._own):
            raise EvaluationError(
                "the small model shares no token with the big one; leave --against out"
            )

    def intersection(self, data: bytes, starts: Sequence[int], p: Float32) -> Drafted:
        """Return what is accepted of the next token at some places of a chunk, each for itself.

        Parameters
        ----------
        data : bytes
            The chunk.
        starts : sequence of int
            Where the predicted tokens of the big model begin.
        p : float32 (n, n_big_rows)
            What the big model says there.
        """
        overlap, agreement = np.zeros(len(starts)), np.zeros(len(starts))
        asked: dict[int, list[int]] = {}
        for at, start in enumerate(starts):
            context = self._context(data[:start])
            if context is not None:
                asked[at] = context
        known = self._shared[self._shared < p.shape[1]]
        own = self._own[: len(known)]
        for at, logits in zip(asked, self._next_logits(list(asked.values())), strict=True):
            (q,) = softmax(logits[None, own])
            overlap[at] = np.minimum(p[at, known], q).sum()
            agreement[at] = known[q.argmax()] == p[at].argmax()
        return Drafted(overlap, agreement)

    def re_encoding(self, data: bytes, ids: Sequence[int], most: int, seed: int) -> list[Drafted]:
        """Let the small model write after a text; return what is accepted of it.

        Parameters
        ----------
        data : bytes
            The text so far.
        ids : sequence of int
            The same in the big model's tokens, its prefix first.
        most : int
            Tokens that the small model writes.
        seed : int
            Of the sample.

        Returns
        -------
        list of Drafted
            Where one, two, … of these tokens are drafted; empty where nothing can be.
        """
        context = self._context(data)
        if context is None:
            return []
        by_mode = []
        for temperature in (1.0, 0.0):
            sample = self._small.write(context, most, seed, temperature)
            written = list(itertools.takewhile(self._is_text, sample))
            drafts = [self._for_big(data, ids, written[: n + 1]) for n in range(most)]
            by_mode.append(self._accepted(ids, drafts, greedy=temperature == 0.0))
        return [Drafted(*chances) for chances in zip(*by_mode, strict=True)]

    @cached_property
    def _small_head(self) -> OutputHead:
        return self.small.head

    def _is_text(self, token: int) -> bool:
        table = self.small_vocabulary.token_bytes
        return token < len(table) and table[token] is not None

    def _accepted(
        self, ids: Sequence[int], drafts: Sequence[list[int]], *, greedy: bool
    ) -> list[Float64]:
        """Return the chances of the tokens of each draft; the others begin the longest one."""
        path = max(drafts, key=len, default=[])
        if not path:
            return [np.zeros(0) for _ in drafts]
        path = path[: self._big.room(ids)]
        p = softmax(self._big.logits(ids, path))
        found = []
        for draft in drafts:
            same = 0
            while same < min(len(draft), len(path)) and draft[same] == path[same]:
                same += 1
            judged = draft[: same + 1]  # the next one stands after the same tokens too
            chances = [p[j].argmax() == t if greedy else p[j, t] for j, t in enumerate(judged)]
            found.append(np.array(chances, dtype=np.float64))
        return found

    def _for_big(self, data: bytes, ids: Sequence[int], written: Sequence[int]) -> list[int]:
        """Return the big model's tokens for what was written; none where the border moves."""
        text = (data + self.small_vocabulary.bytes_of(written)).decode(errors="ignore")
        again = [*prefix_of(self.big_vocabulary), *self.big_vocabulary.encode(text)]
        return again[len(ids) :] if again[: len(ids)] == list(ids) else []

    def _context(self, data: bytes) -> list[int] | None:
        """Return the small model's ids for the text so far.

        None where that ends inside a character, is longer than the model takes, or is nothing at
        all: there the small model drafts nothing.
        """
        try:
            text = data.decode()
        except UnicodeDecodeError:
            return None
        ids = [*prefix_of(self.small_vocabulary), *self.small_vocabulary.encode(text)]
        longest = self.small.max_positions
        return ids if ids and (longest is None or len(ids) < longest) else None

    def _next_logits(self, contexts: Sequence[list[int]]) -> list[Float32]:
        """Return the small model's logits after each context, float32 (n_rows,) each.

        Contexts that begin the longest one share its pass; the others end in tokens of their own.
        """
        if not contexts:
            return []
        whole = max(contexts, key=len)
        shared, alone = self.small.logits(whole), [c for c in contexts if whole[: len(c)] != c]
        self.n_tokens += len(whole) + sum(map(len, alone))
        if self.small.plain_head and alone:
            states = self.small.states(alone, self.small.n_layers)
            own = iter(self._small_head.logits(states).cpu().numpy())
        else:
            own = (self.small.logits(context)[-1] for context in alone)
        return [
            shared[len(context) - 1] if whole[: len(context)] == context else next(own)
            for context in contexts
        ]

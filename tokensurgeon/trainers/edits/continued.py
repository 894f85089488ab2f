"""Go on with the merges of a BPE: which tokens a text adds to it, and from which parts.

The text is spelled by the base first, so every new token is a merge of two tokens that are there,
and in the end a sequence of the base's own. Each is made by one merge alone. What a text merges
into it, its own spelling merges into it too, for merges inside a token apply in the same order
whatever surrounds it: no new token is out of reach of the model.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from tokenizers import Tokenizer

from tokensurgeon.arrays import Ids
from tokensurgeon.progress import Progress
from tokensurgeon.trainers.counting.sequences import Sequences
from tokensurgeon.trainers.counting.weighted import WeightedSegments
from tokensurgeon.trainers.edits.base import Base
from tokensurgeon.trainers.edits.leaves import kept_after_pruning, uses_of
from tokensurgeon.trainers.encoders import spell
from tokensurgeon.trainers.learned import Merges
from tokensurgeon.trainers.learners.merging import Merger, Rule

_BYTE = re.compile(rb"<0x[0-9A-F]{2}>")


@dataclass(frozen=True)
class Continued:
    """The new tokens of a BPE.

    Attributes
    ----------
    names : tuple of str
        In the order of their ids.
    pairs : tuple of (str, str)
        The two parts of each.
    steps : int
        How many of them the text never emits: it only passes through them to longer ones.
    """

    names: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]
    steps: int


def continue_merges(
    base: Base,
    pieces: WeightedSegments,
    documents: WeightedSegments | None,
    n: int,
    *,
    spare: float,
    longest: int,
    fits: Callable[[bytes], bool] | None,
    progress: Progress,
) -> Continued:
    """Learn up to `n` tokens on pieces of text.

    Parameters
    ----------
    base : Base
        A BPE.
    pieces : WeightedSegments
        What its pre-tokenizer passes to its model, and how often.
    documents : WeightedSegments or None
        The same pieces, and in how many documents each is; None where pieces count once a document.
    n : int
    spare : float
        Share of tokens that are learned beyond `n`. Then leaves that the fewest documents use are
        dropped.
    longest : int
        Most bytes of a token.
    fits : callable(bytes) -> bool, optional
        Whether a pair may become this token; asked besides.
    progress : callable(done, total, what)

    Returns
    -------
    Continued
        Fewer tokens than `n` where the text has no further pair that occurs twice.
    """
    first = base.vocabulary.n_rows
    # The tokens as they are spelled, without their merges, which apply already. A hole never occurs
    # in text; its name only has to differ from every token.
    spelled = enumerate(base.vocabulary.spellings)
    merges = Merges([b"\xff%d" % i if name is None else name.encode() for i, name in spelled])
    progress(0, 0, "spelling the text")
    sequences, numbers = _spelled(base, pieces)
    merger = Merger(sequences, merges, allow=_rule(base, longest, fits), distinct=True)
    merger.run(first + (n if documents is None else math.ceil(n * (1 + spare))), progress)
    ids, segment = merger.ids()
    n_learned = len(merges.pairs)
    counted = uses_of(ids, sequences.weights[segment], first, n_learned)
    widely = counted
    if documents is not None:
        known = dict(zip(documents.segments, documents.weights.tolist(), strict=True))
        # To bound the memory, one table may have dropped what the other has kept.
        in_documents = np.array([known.get(piece, 1) for piece in pieces.segments], np.int64)
        widely = uses_of(ids, in_documents[numbers][segment], first, n_learned)
    kept = kept_after_pruning(merges.pairs, widely, first, n)
    names = [token.decode("utf-8", "replace") for token in merges.tokens]
    pairs = [merges.pairs[i] for i in kept]
    return Continued(
        names=tuple(names[first + i] for i in kept),
        pairs=tuple((names[left], names[right]) for left, right in pairs),
        steps=sum(not counted[i] for i in kept),
    )


def _spelled(base: Base, pieces: WeightedSegments) -> tuple[Sequences, Ids]:
    """Spell pieces by the base; return with them which pieces they are: one token merges not."""
    numbered = replace(pieces, weights=np.arange(len(pieces.segments), dtype=np.int64))
    sequences = spell(Tokenizer(base.tokenizer.model), numbered, min_ids=2)
    numbers = sequences.weights
    return replace(sequences, weights=pieces.weights[numbers]), numbers


def _rule(base: Base, longest: int, fits: Callable[[bytes], bool] | None) -> Rule:
    """Return what says whether a pair of the base's tokens may become a token."""
    model = base.document["model"]
    falls_back = bool(model.get("byte_fallback"))
    unknown = (model.get("unk_token") or "").encode()
    added = {token["content"] for token in base.document["added_tokens"]}

    def allow(token: bytes) -> bool:
        # Byte-fallback tokens and the unknown token are not text, so they cannot be part of a
        # longer token. What is an added token is cut out of a text before the model reads it.
        if len(token) > longest or (falls_back and _BYTE.search(token)):
            return False
        if (unknown and unknown in token) or token.decode("utf-8", "replace") in added:
            return False
        return fits is None or fits(token)

    return allow

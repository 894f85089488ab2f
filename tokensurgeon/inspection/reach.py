"""Tokens that encoding never emits.

A token is reached if the encoding of some text contains it. Tried is the token's own text, at the
start of a text and between others. For tokens not reached so, the model alone encodes the token's
spelling, without normalizer and pre-tokenizer. If a BPE or Unigram model does not make the token
from that, no text does: merges inside a token apply in the same order whatever surrounds it, and
every part of a best path is a best path. A WordPiece model gives no such proof. A token that the
model makes and that no tried text contained is a suspect: mostly the pre-tokenizer cuts it or the
normalizer rewrites it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tokensurgeon.arrays import blocks
from tokensurgeon.errors import TokenizerError
from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.vocabulary import Kind, Vocabulary
from tokensurgeon.vocabulary.parts import guarded, read_parts

CONTEXTS = (
    ("", ""),
    ("a", ""),
    ("a", " a"),
    ("a ", "a"),
    ("a", "a"),
    (" ", " "),
    (".", "."),
    ("\n", "\n"),
    ("1", "1"),
    ("(", ")"),
    ("\n", "a"),
    (" ", "\n"),
    ("é", "é"),
    ("日", "日"),
)
"""Texts before and after a token. Each reaches tokens that the ones above it miss."""
PREFIXES = (*"qzxbcdefghijklmnoprstuvwy02345-/'", "th", "un", "ж", "ا", "क", "か")
"""Further beginnings of words, for tokens that occur inside words only."""
_BLOCK = 20_000
"""Tokens tried at once; bounds the encodings held in memory."""


@dataclass(frozen=True)
class Reach:
    """Which tokens of text encoding emits.

    Attributes
    ----------
    tried : int
        Number of ordinary tokens, without byte-fallback tokens and controls.
    never : tuple of int
        Tokens that the model does not make from their own spelling: no text reaches them.
    suspects : tuple of int
        Tokens that the model makes, but no tried text reached.
    parts : int
        Number of tokens that are parts of characters. Their bytes are not text, so only the model
        is tried.
    exact : bool
        Whether `never` is a proof: BPE and Unigram.
    """

    tried: int
    never: tuple[int, ...]
    suspects: tuple[int, ...]
    parts: int
    exact: bool

    @property
    def reached(self) -> int:
        """Number of tokens that a text reached, parts of characters included."""
        return self.tried - len(self.never) - len(self.suspects)

    def to_dict(self, vocabulary: Vocabulary) -> dict[str, Any]:
        """Return everything as plain values, with spellings."""

        def listed(ids: Sequence[int]) -> list[dict[str, Any]]:
            return [{"id": i, "spelling": vocabulary.spellings[i]} for i in ids]

        return {
            "tried": self.tried,
            "reached": self.reached,
            "never": listed(self.never),
            "suspects": listed(self.suspects),
            "parts_of_characters": self.parts,
            "exact": self.exact,
        }


def find_unreachable(
    vocabulary: Vocabulary, progress: Progress = no_progress, ids: Collection[int] | None = None
) -> Reach:
    """Try every ordinary token, or those of `ids`, and return those that encoding never emits."""
    ordinary = np.flatnonzero(vocabulary.kinds == Kind.ORDINARY).tolist()
    if ids is not None:
        ordinary = [i for i in ordinary if i in ids]
    texts: dict[int, str] = {}
    for i in ordinary:
        try:
            texts[i] = (vocabulary.token_bytes[i] or b"").decode("utf-8")
        except UnicodeDecodeError:
            continue
    model_type = read_parts(vocabulary.tokenizer).model_type
    contexts = [*CONTEXTS, *((prefix, "") for prefix in PREFIXES)]
    unreached = dict(texts)
    for number, (before, after) in enumerate(contexts):
        progress(number, len(contexts), "trying tokens")
        if number >= len(CONTEXTS) and model_type != "WordPiece":
            break
        unreached = _unreached(vocabulary, unreached, before, after)
    added = set(vocabulary.tokenizer.get_added_tokens_decoder())
    undecided = [i for i in ordinary if (i in unreached or i not in texts) and i not in added]
    never = [i for i in undecided if not _made_by_model(vocabulary, i)]
    return Reach(
        tried=len(ordinary),
        never=tuple(never),
        suspects=tuple(sorted(set(unreached) - set(never))),
        parts=len(ordinary) - len(texts),
        exact=model_type in ("BPE", "Unigram"),
    )


def no_longer_reached(before: Vocabulary, after: Vocabulary) -> tuple[int, ...]:
    """Return the tokens with a digit that `before` emits and `after` does not, ascending.

    The two have the same tokens and cut digits differently.
    """
    texts = (
        (i, (data or b"").decode("utf-8", "ignore")) for i, data in enumerate(after.token_bytes)
    )
    digits = {i for i, text in texts if any(map(str.isnumeric, text))}
    now, then = (find_unreachable(one, ids=digits) for one in (after, before))
    return tuple(sorted({*now.never, *now.suspects} - {*then.never, *then.suspects}))


def _unreached(
    vocabulary: Vocabulary, texts: dict[int, str], before: str, after: str
) -> dict[int, str]:
    """Return the tokens that are not in the encoding of their text in a context."""
    unreached: dict[int, str] = {}
    tokens = list(texts)
    for block in blocks(len(tokens), _BLOCK):
        encodings = vocabulary.encode_many(before + texts[i] + after for i in tokens[block])
        pairs = zip(tokens[block], encodings, strict=True)
        unreached |= {i: texts[i] for i, encoding in pairs if i not in encoding.ids}
    return unreached


def _made_by_model(vocabulary: Vocabulary, token: int) -> bool:
    spelling = vocabulary.spellings[token] or ""
    try:
        tokens = guarded("a token", lambda: vocabulary.tokenizer.model.tokenize(spelling))
    except TokenizerError:  # a Unigram model without unknown token cannot write it
        return False
    return len(tokens) == 1 and tokens[0].id == token

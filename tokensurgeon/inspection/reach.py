"""Tokens that encoding never emits.

A token is reached where some text is encoded to ids that hold it: its own text, at the start of a
text and amid others. For the rest the model is asked alone, without normalizer and pre-tokenizer.
Where a BPE's merges, or a Unigram's best path, do not make a token even of its own spelling, no
text does: merges inside a token happen in the same order whatever stands around it, and a best
path has best parts. A WordPiece model gives no such proof. What the model makes and no tried text
shows is only a suspect: mostly the pre-tokenizer cuts it or the normalizer rewrites it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tokensurgeon.errors import TokenizerError
from tokensurgeon.progress import Progress
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
PREFIXES = (*"qzxbcdefghijklmnoprstuvwy02345-/'", "th", "un", "ж", "ا", "क", "か")
"""Further beginnings of words, for tokens that stand inside words."""
_STEP = 20_000


@dataclass(frozen=True)
class Reach:
    """Which tokens of text encoding emits.

    Attributes
    ----------
    tried : int
        Ordinary tokens; byte-fallback tokens and controls are not among them.
    never : tuple of int
        Tokens that the model does not make of their own spelling: no text reaches them.
    suspects : tuple of int
        Tokens that the model makes, and no tried text showed.
    parts : int
        Tokens of parts of characters: their own bytes are no text, so they are judged by the
        model alone.
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
        """Tokens that a text was seen to reach, parts of characters included."""
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
    vocabulary: Vocabulary, progress: Progress = lambda done, total, what: None
) -> Reach:
    """Try every ordinary token and return those that encoding never emits."""
    ordinary = np.flatnonzero(vocabulary.kinds == Kind.ORDINARY).tolist()
    texts: dict[int, str] = {}
    for i in ordinary:
        try:
            texts[i] = (vocabulary.token_bytes[i] or b"").decode("utf-8")
        except UnicodeDecodeError:
            continue
    model_type = read_parts(vocabulary.tokenizer).model_type
    contexts = [*CONTEXTS, *((prefix, "") for prefix in PREFIXES)]
    left = dict(texts)
    for number, (before, after) in enumerate(contexts):
        progress(number, len(contexts), "trying tokens")
        if number >= len(CONTEXTS) and model_type != "WordPiece":
            break
        left = _unseen(vocabulary, left, before, after)
    added = set(vocabulary.tokenizer.get_added_tokens_decoder())
    undecided = [i for i in ordinary if (i in left or i not in texts) and i not in added]
    never = [i for i in undecided if not _made_by_model(vocabulary, i)]
    return Reach(
        tried=len(ordinary),
        never=tuple(never),
        suspects=tuple(sorted(set(left) - set(never))),
        parts=len(ordinary) - len(texts),
        exact=model_type in ("BPE", "Unigram"),
    )


def _unseen(
    vocabulary: Vocabulary, texts: dict[int, str], before: str, after: str
) -> dict[int, str]:
    """Return the tokens that do not stand in the encoding of their text in a context."""
    left: dict[int, str] = {}
    waiting = list(texts.items())
    for start in range(0, len(waiting), _STEP):
        batch = waiting[start : start + _STEP]
        encodings = vocabulary.encode_many(before + text + after for _, text in batch)
        for (token, text), encoding in zip(batch, encodings, strict=True):
            if token not in encoding.ids:
                left[token] = text
    return left


def _made_by_model(vocabulary: Vocabulary, token: int) -> bool:
    spelling = vocabulary.spellings[token] or ""
    try:
        made = guarded("a token", lambda: vocabulary.tokenizer.model.tokenize(spelling))
    except TokenizerError:  # a Unigram model without unknown token has no way to write it
        return False
    return len(made) == 1 and made[0].id == token

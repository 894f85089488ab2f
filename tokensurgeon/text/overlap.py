"""Find documents that share thirteen words in a row with another text.

A figure on text that was also calibrated or trained on is flattered. Whole documents are seldom
copied as they are: what is looked for is any run of 13 words, whatever stands around it.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tokensurgeon.errors import UsageError
from tokensurgeon.text.seen import Seen

N_WORDS = 13
"""As in Brown et al. 2020 (GPT-3), appendix C."""

Hashes = npt.NDArray[np.uint64]

# Scripts without spaces: a run of their letters is cut into pairs, which stand for words.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(rf"[{_UNSPACED}]{{1,2}}|[^\W_{_UNSPACED}]+")
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


MOST_SEEN = 0.1
"""Share of a text's lines that a vocabulary may have been trained on: boilerplate is everywhere."""


def refuse_seen(folder: Path | None, texts: Iterable[str], allow: bool) -> None:
    """Refuse text that a vocabulary was trained on, as far as its folder says (`Seen`).

    Raises
    ------
    UsageError
        If more than `MOST_SEEN` of the lines were, unless that is allowed.
    """
    seen = Seen.load(folder) if folder is not None and not allow else None
    share = seen.share(texts) if seen is not None else 0.0
    if share > MOST_SEEN:
        raise UsageError(
            f"{share:.0%} of the lines of this text were in the text that the vocabulary of "
            f"{folder} was trained on: give other text, or --allow-seen-text"
        )


def gram_hashes(text: str, n: int = N_WORDS) -> Hashes:
    """Return a 64-bit hash of every run of `n` words, case and punctuation aside, uint64.

    A text of fewer words gives one hash of all of them; a text without words none.

    Examples
    --------
    >>> once = gram_hashes("A b c d.", n=3)
    >>> once.size, np.isin(gram_hashes("x, B C D", n=3), once).tolist()
    (2, [False, True])
    """
    words = _WORD.findall(text.lower())
    if not words:
        return np.zeros(0, dtype=np.uint64)
    n = min(n, len(words))
    # Two checksums a word: one of 32 bits would take different words for the same too often.
    codes = np.array([_code(word.encode("utf-8")) for word in words], dtype=np.uint64)
    hashes = np.zeros(len(words) - n + 1, dtype=np.uint64)
    for i in range(n):
        # Multiplication and addition modulo 2^64: overflow is meant.
        hashes = hashes * _FACTOR + codes[i : i + hashes.size]
    return hashes ^ (hashes >> np.uint64(29))


def _code(word: bytes) -> int:
    return zlib.crc32(word) << 32 | zlib.adler32(word)


def overlapping(texts: Sequence[str], other: Iterable[str], n: int = N_WORDS) -> list[int]:
    """Return which of the texts share a run of `n` words with the other ones.

    Memory holds eight bytes for each word of `texts`, and one document of `other` at a time.

    Parameters
    ----------
    texts : sequence of str
    other : iterable of str
        May be long; read once.
    n : int

    Returns
    -------
    list of int
        Indices into `texts`, ascending.
    """
    grams = [gram_hashes(text, n) for text in texts]
    if not grams:
        return []
    owner = np.repeat(np.arange(len(grams)), [one.size for one in grams])
    known, place = np.unique(np.concatenate(grams), return_inverse=True)
    found = np.zeros(known.size, dtype=np.bool_)
    for text in other:
        hashes = gram_hashes(text, n)
        if not (hashes.size and known.size):
            continue
        at = np.minimum(np.searchsorted(known, hashes), known.size - 1)
        found[at[known[at] == hashes]] = True
    return sorted({int(i) for i in owner[found[place]]})

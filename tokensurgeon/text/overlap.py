"""Find documents that share thirteen words in a row with another text.

A model looks better than it is on text that it was calibrated or trained on. Documents are seldom
copied as a whole, so any common run of 13 words counts.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Sequence

import numpy as np

from tokensurgeon.arrays import Hashes

N_WORDS = 13
"""As in Brown et al. 2020 (GPT-3), appendix C."""

# Scripts without spaces: a run of their letters is cut into pairs, which count as words.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(rf"[{_UNSPACED}]{{1,2}}|[^\W_{_UNSPACED}]+")
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
"""2^64 over the golden ratio, an odd number: multiplication by it spreads hashes evenly (Knuth)."""


def gram_hashes(text: str, n: int = N_WORDS) -> Hashes:
    """Return a 64-bit hash of every run of `n` words, case and punctuation aside, uint64.

    A text of fewer words gives one hash of all its words; a text without words gives none.

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
    # Two checksums a word: with one of 32 bits, different words would be equal too often.
    data = [word.encode("utf-8") for word in words]
    codes = np.array([zlib.crc32(w) << 32 | zlib.adler32(w) for w in data], dtype=np.uint64)
    hashes = np.zeros(len(words) - n + 1, dtype=np.uint64)
    for i in range(n):
        # Multiplication and addition modulo 2^64: overflow is intended.
        hashes = hashes * _FACTOR + codes[i : i + hashes.size]
    return hashes ^ (hashes >> np.uint64(29))


def overlapping(texts: Sequence[str], other: Iterable[str], n: int = N_WORDS) -> list[int]:
    """Return which of the texts share a run of `n` words with one of the others.

    Takes eight bytes of memory for each word of `texts`, and holds one text of `other` at a time.

    Parameters
    ----------
    texts : sequence of str
    other : iterable of str
        Read once.
    n : int

    Returns
    -------
    list of int
        Indices into `texts`, ascending.
    """
    grams = [gram_hashes(text, n) for text in texts]
    if not grams:
        return []
    text_of_gram = np.repeat(np.arange(len(grams)), [hashes.size for hashes in grams])
    known, index = np.unique(np.concatenate(grams), return_inverse=True)
    shared = np.zeros(known.size, dtype=np.bool_)
    for text in other:
        hashes = gram_hashes(text, n)
        if not (hashes.size and known.size):
            continue
        at = np.minimum(np.searchsorted(known, hashes), known.size - 1)
        shared[at[known[at] == hashes]] = True
    return sorted(set(text_of_gram[shared[index]].tolist()))

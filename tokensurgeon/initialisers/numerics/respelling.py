"""Spell trained tokens with other tokens, as missing tokens must be spelled.

A token that the source has is never written with pieces, so what pieces make of it has to be
seen elsewhere: it is forbidden in its own spelling. One spelling is the tokenizer's own (the
fewest ids that do); others cut the bytes at random places and let the tokenizer spell each part,
as if merges had been undone.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from tokensurgeon.initialisers.contract import Ids
from tokensurgeon.vocabulary import Vocabulary

Pieces = tuple[int, ...]


def forbidden_self(
    vocabulary: Vocabulary,
    ids: Ids,
    n_rows: int,
    *,
    cuts: int,
    parts: Sequence[int],
    generator: np.random.Generator,
) -> tuple[Ids, list[Pieces]]:
    """Return spellings of tokens by other tokens.

    Parameters
    ----------
    vocabulary : Vocabulary
    ids : int64
        Tokens to spell; those of a single byte have no other spelling and are left out.
    n_rows : int
        Ids from here on have no row and are not used.
    cuts : int
        Random spellings per token beside the tokenizer's own, at most; repeats are left out.
    parts : sequence of int
        How many parts to cut a token in is drawn from these.
    generator : numpy.random.Generator

    Returns
    -------
    owners : int64 (n,)
        The token that each spelling is of, ascending.
    spellings : list of tuples of ids, len n
        Two or more ids each, whose bytes are the token's; never an id with the token's bytes.
    """
    rowless = range(n_rows, vocabulary.n_rows)
    owners: list[int] = []
    spellings: list[Pieces] = []
    choices = [part for part in parts if part > 1] or [2]
    for token in ids.tolist():
        data = vocabulary.token_bytes[token]
        if not data or len(data) < 2:
            continue
        banned = {*vocabulary.ids_of_bytes(data), *rowless}
        found = [vocabulary.pieces_of(data, forbid=banned)]
        places = _boundaries(data)
        for _ in range(cuts):
            count = choices[int(generator.integers(len(choices)))] - 1
            at = sorted({places[i] for i in generator.integers(len(places), size=count).tolist()})
            edges = [0, *at, len(data)]
            spelled = [
                vocabulary.pieces_of(data[start:end], forbid=banned)
                for start, end in pairwise(edges)
            ]
            if all(spelled):
                found.append(tuple(piece for each in spelled for piece in each or ()))
        for pieces in dict.fromkeys(each for each in found if each):
            owners.append(token)
            spellings.append(pieces)
    return np.array(owners, dtype=np.int64), spellings


def _boundaries(data: bytes) -> list[int]:
    """Return where bytes can be cut between characters; anywhere, if they hold less than two."""
    inside = [i for i in range(1, len(data)) if data[i] & 0xC0 != 0x80]
    return inside or list(range(1, len(data)))

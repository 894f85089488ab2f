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

from tokensurgeon.arrays import Ids
from tokensurgeon.errors import InitialiserError
from tokensurgeon.initialisers.contract import InitContext
from tokensurgeon.initialisers.numerics.composer import MOST_ROWS
from tokensurgeon.vocabulary import Vocabulary

Pieces = tuple[int, ...]


def spell_trained(
    context: InitContext, cuts: int, parts: Sequence[int], name: str
) -> tuple[Ids, list[Pieces]]:
    """Spell a seeded sample of the trained tokens with other tokens, as `forbidden_self`.

    Raises
    ------
    InitialiserError
        If fewer than two spellings are found.
    """
    generator = context.generator()
    ids = np.flatnonzero(context.anchors).astype(np.int64)
    if len(ids) > MOST_ROWS:
        ids = np.sort(generator.choice(ids, MOST_ROWS, replace=False))
    context.progress(0, 1, f"{name}: spelling")
    owners, spellings = forbidden_self(
        context.source, ids, context.n_source, cuts=cuts, parts=parts, generator=generator
    )
    context.progress(1, 1, f"{name}: spelling")
    if len(owners) < 2:
        raise InitialiserError(
            f"'{name}' can spell {len(owners)} of {len(ids)} trained tokens with other "
            "tokens, and learns from them. Use 'subword-mean'."
        )
    return owners, spellings


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
        candidates = [vocabulary.pieces_of(data, forbid=banned)]
        # Cuts are between characters; anywhere, if the bytes hold fewer than two.
        inside = [i for i in range(1, len(data)) if data[i] & 0xC0 != 0x80]
        inside = inside or list(range(1, len(data)))
        for _ in range(cuts):
            count = choices[int(generator.integers(len(choices)))] - 1
            at = sorted({inside[i] for i in generator.integers(len(inside), size=count).tolist()})
            spelled = [
                vocabulary.pieces_of(data[start:end], forbid=banned)
                for start, end in pairwise([0, *at, len(data)])
            ]
            if all(spelled):
                candidates.append(tuple(piece for part in spelled for piece in part or ()))
        for pieces in dict.fromkeys(pieces for pieces in candidates if pieces):
            owners.append(token)
            spellings.append(pieces)
    return np.array(owners, dtype=np.int64), spellings

"""Anchor spaces: places where tokens of two vocabularies can be compared.

A space is a vector per token and says which tokens it knows. The builders take plain arguments
(bytes, texts, ids, rows, a forward pass) and know nothing of surgeries; `initialisers` maps a
surgery to a space and combines rows in it.
"""

from tokensurgeon.spaces.cooccurrence import co_occurrence_space
from tokensurgeon.spaces.encoder import encoder_space
from tokensurgeon.spaces.ngrams import ngram_space
from tokensurgeon.spaces.space import Space, row_space, unit
from tokensurgeon.spaces.states import state_space

__all__ = [
    "Space",
    "co_occurrence_space",
    "encoder_space",
    "ngram_space",
    "row_space",
    "state_space",
    "unit",
]

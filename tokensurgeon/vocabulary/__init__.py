"""A tokenizer seen as exact bytes: id → bytes, kind and role; bytes → pieces.

Everything is derived from the tokenizer's own decoder, pre-tokenizer and normalizer, never from
the name of a class. Matching one vocabulary with another is `tokensurgeon.alignment`.
"""

from __future__ import annotations

from tokensurgeon.vocabulary.encode import Encoding
from tokensurgeon.vocabulary.kinds import Kind
from tokensurgeon.vocabulary.load import load_vocabulary, vocabulary_from_tokenizer
from tokensurgeon.vocabulary.vocabulary import Vocabulary

__all__ = ["Encoding", "Kind", "Vocabulary", "load_vocabulary", "vocabulary_from_tokenizer"]

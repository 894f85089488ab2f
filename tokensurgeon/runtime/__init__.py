"""Vocabularies that move while a model runs: byte views, hypertokens, merged batches."""

from tokensurgeon.runtime.byte_view import byte_view, next_tokens
from tokensurgeon.runtime.generate import Written, write_all, write_on

__all__ = ["Written", "byte_view", "next_tokens", "write_all", "write_on"]

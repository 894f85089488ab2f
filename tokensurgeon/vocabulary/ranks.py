"""tiktoken's tables of ranks, and the tokens that a configuration adds to them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from tokensurgeon.errors import TokenizerError
from tokensurgeon.vocabulary.reading import read_bytes
from tokensurgeon.vocabulary.vocabulary import MAX_ROWS, most_rows

LONGEST = 1024
"""Bytes of a token in a table whose merges are sought: every cut of it is. Published ones have up
to 128, all spaces."""
MOST_RESERVED = 10_000
"""Ids before an added token that are filled: vocabularies reserve some hundreds, and a mistaken id
would make millions."""


def read_ranks(file: Path) -> dict[bytes, int]:
    """Return the rank of each token, from a table that has it in base64 on a line.

    Raises
    ------
    TokenizerError
        If a line is something else, or the ranks cannot be ids.
    """
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(read_bytes(file).splitlines()):
        if not line.strip():
            continue
        try:
            token, rank = line.split()
            data = base64.b64decode(token, validate=True)
            repeated = data in ranks
            ranks[data] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise TokenizerError(
                f"{file}: line {number + 1} is no token and rank; restore the file"
            ) from error
        if repeated or not data:
            what = "repeats a token" if repeated else "has an empty token"
            raise TokenizerError(f"{file}: line {number + 1} {what}; restore the file")
    check_lengths(file, ranks)
    if not ranks or min(ranks.values()) < 0 or max(ranks.values()) >= most_rows(len(ranks)):
        raise TokenizerError(f"{file} has ranks that cannot be ids; restore the file")
    if len(set(ranks.values())) < len(ranks):
        raise TokenizerError(f"{file} gives one rank to two tokens; restore the file")
    return ranks


def check_lengths(file: Path, tokens: Iterable[bytes]) -> None:
    """Refuse a file with a token so long that its cuts cannot be gone through."""
    longest = max(map(len, tokens), default=0)
    if longest > LONGEST:
        raise TokenizerError(
            f"{file} has a token of {longest:,} bytes, and at most {LONGEST} are read; restore "
            "the file"
        )


def add_tokens(tokenizer: Tokenizer, folder: Path, added: Any) -> list[str]:
    """Add the tokens that tokenizer_config.json names to a tokenizer; fill the ids between them."""
    reserved: list[int] = []
    for i, entry in sorted((added if isinstance(added, dict) else {}).items(), key=_number):
        content = entry.get("content") if isinstance(entry, dict) else None
        if not isinstance(content, str) or not content:
            raise TokenizerError(f"the added token {i} of {folder} has no content; remove it")
        free = range(tokenizer.get_vocab_size(), min(int(i), MAX_ROWS))
        if len(free) > MOST_RESERVED:
            raise TokenizerError(
                f"the added token {content[:40]!r} of {folder} has the id {i}, and the ids before "
                f"it end at {free.start - 1}; correct its id"
            )
        tokenizer.add_special_tokens([f"<|reserved_token_{hole}|>" for hole in free])
        reserved += free
        special = entry.get("special") is not False
        tokenizer.add_tokens([AddedToken(content, special=special, normalized=False)])
        if tokenizer.token_to_id(content) != int(i):
            raise TokenizerError(
                f"the added token {content[:40]!r} of {folder} has the id {i}, and "
                f"{tokenizer.token_to_id(content)} once loaded; correct its id"
            )
    if not reserved:
        return []
    return [
        f"{len(reserved)} ids between the added tokens have none, from {reserved[0]} on: they are "
        f"filled with tokens such as {tokenizer.id_to_token(reserved[0])}, which nothing emits"
    ]


def _number(entry: tuple[str, Any]) -> int:
    try:
        return int(entry[0])
    except ValueError as error:
        raise TokenizerError(
            f"the added token id {entry[0][:40]!r} is no number; correct tokenizer_config.json"
        ) from error

"""Conversations: what a chat template renders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokensurgeon.errors import CorpusError
from tokensurgeon.text.corpus import find_files
from tokensurgeon.text.formats import json_values, without_surrogates

Chat = list[dict[str, str]]
"""Messages in turn, each with ``role`` and ``content``."""
KEYS = ("messages", "conversation", "conversations")
"""Under which an object holds its messages; a list is the messages themselves."""


def read_chats(patterns: Sequence[str | Path]) -> list[Chat]:
    """Return the conversations of JSON files, in the order of the files.

    Parameters
    ----------
    patterns : sequence of str or Path
        Files, folders or globs, of JSON lines or JSON. Each value is a list of messages, or an
        object with one under ``messages``; each message has a ``role`` and a ``content``.

    Raises
    ------
    CorpusError
        If a file cannot be read, or a value is no conversation.
    """
    return [
        _chat(value, where)
        for path in find_files(patterns)
        for value, where, _ in json_values(path)
    ]


def _chat(value: Any, where: str) -> Chat:
    if isinstance(value, dict):
        value = next((value[key] for key in KEYS if key in value), None)
    if not isinstance(value, list) or not value:
        raise CorpusError(
            f"{where}: a conversation is a list of messages, or an object with one under "
            f"'{KEYS[0]}'; leave it out"
        )
    return [_message(one, where) for one in value]


def _message(one: Any, where: str) -> dict[str, str]:
    fields = {key: one.get(key) for key in ("role", "content")} if isinstance(one, dict) else {}
    if not all(isinstance(fields.get(key), str) for key in ("role", "content")):
        raise CorpusError(
            f"{where}: a message is an object with a 'role' and a 'content', both strings; leave "
            "the conversation out"
        )
    return {key: without_surrogates(str(text))[0] for key, text in fields.items()}

"""Conversations: what is one, and what is said of what is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tokensurgeon.errors import CorpusError
from tokensurgeon.text.chats import read_chats

TALK = [{"role": "user", "content": "How many?"}, {"role": "assistant", "content": "12."}]


def written(folder: Path, *values: Any, name: str = "chats.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(value) + "\n" for value in values), "utf-8")
    return path


def test_lists_and_objects_are_read_in_their_order(tmp_path: Path) -> None:
    more = {**TALK[0], "name": "left out"}
    path = written(tmp_path, TALK, {"id": 7, "messages": TALK[:1]}, {"conversation": [more]})
    assert read_chats([path]) == [TALK, TALK[:1], TALK[:1]]
    whole = tmp_path / "chats.json"
    whole.write_text(json.dumps([{"messages": TALK}, TALK]))
    assert read_chats([whole]) == [TALK, TALK]


def test_lone_surrogates_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    path.write_text('[{"role": "user", "content": "a\\ud800b"}]\n')
    assert read_chats([path]) == [[{"role": "user", "content": "a\ufffdb"}]]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("text", "a conversation is a list of messages"),
        ({"text": "a"}, "a conversation is a list of messages"),
        ({"messages": []}, "a conversation is a list of messages"),
        ([{"role": "user"}], "a message is an object with a 'role' and a 'content'"),
        ([{"role": "user", "content": [{"type": "image"}]}], "a 'role' and a 'content'"),
        (["hello"], "a 'role' and a 'content'"),
    ],
)
def test_what_is_no_conversation_is_named_by_its_line(
    tmp_path: Path, value: Any, message: str
) -> None:
    path = written(tmp_path, TALK, value)
    with pytest.raises(CorpusError, match=message) as raised:
        read_chats([path])
    assert "line 2" in str(raised.value)

"""Conversations as a model reads them: its chat template, rendered in a bounded process."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tokensurgeon.checkpoint.template_child import render
from tokensurgeon.errors import TokenizerError
from tokensurgeon.text.chats import Chat

CLOCK = 300
"""Seconds of processor time for all conversations; a thousand long ones take two."""

_CHILD = """
tokenizer = load(sys.argv[3])
for line in sys.stdin:
    text = tokenizer.apply_chat_template(json.loads(line), tokenize=False)
    ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    print(json.dumps(ids), flush=True)
"""


def chat_ids(folder: Path, chats: Sequence[Chat]) -> list[tuple[int, ...]]:
    """Return the ids of each conversation under the chat template of a folder, controls parsed.

    No code of the folder is run.

    Raises
    ------
    TokenizerError
        If the folder has no template, or it fails, or takes too long.
    """
    lines = "".join(json.dumps(chat) + "\n" for chat in chats)
    rendered = render(_CHILD, CLOCK, str(folder), given=lines)
    if len(rendered.lines) < len(chats):
        raise TokenizerError(
            f"the chat template of {folder} fails on conversation {len(rendered.lines) + 1}: "
            f"{rendered.why}; leave it out, or mend it"
        )
    return [tuple(json.loads(line)) for line in rendered.lines]

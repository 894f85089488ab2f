"""Conversations as a model reads them: its chat template, rendered in a bounded process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tokensurgeon.checkpoint.chat_template import MEMORY, WAIT
from tokensurgeon.errors import TokenizerError
from tokensurgeon.text.chats import Chat

CLOCK = 300
"""Seconds of processor time for all conversations; a thousand long ones take two."""

_CHILD = """
import json, resource, sys
clock, memory = int(sys.argv[1]), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_CPU, (clock, clock + 1))
resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(
    sys.argv[3], local_files_only=True, trust_remote_code=False
)
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
    command = [sys.executable, "-P", "-c", _CHILD, str(CLOCK), str(MEMORY), str(folder)]
    lines = "".join(json.dumps(chat) + "\n" for chat in chats)
    try:
        child = subprocess.run(
            command, input=lines.encode(), capture_output=True, timeout=WAIT, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise TokenizerError(
            f"the chat template of {folder} took more than {WAIT} seconds; give fewer conversations"
        ) from error
    rendered = child.stdout.decode("utf-8", "replace").splitlines()
    if len(rendered) < len(chats):
        said = child.stderr.decode("utf-8", "replace").strip().splitlines()
        slow = f"it took more than {CLOCK} seconds of processor time, or {MEMORY >> 30} GiB"
        why = said[-1][:150] if said and child.returncode > 0 else slow
        raise TokenizerError(
            f"the chat template of {folder} fails on conversation {len(rendered) + 1}: {why}; "
            "leave it out, or mend it"
        )
    return [tuple(json.loads(line)) for line in rendered]

"""What the commands that write on after prompts share: how the text is shown, and what of it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from tokensurgeon.cli import console

if TYPE_CHECKING:
    from tokensurgeon.runtime import Written
    from tokensurgeon.runtime.hypertokens.zip_generation import Continuation

prompts_argument = click.argument("prompt", nargs=-1, required=True)


class Streamed:
    """Writes a prompt and what follows it to stdout, as it comes.

    The prompt waits for the first part, so that one which is refused leaves nothing on stdout.
    """

    def __init__(self, prompt: str) -> None:
        self._waits = prompt

    def __call__(self, text: str) -> None:
        """Write a part of the text."""
        click.echo(self._waits + text, nl=False)
        sys.stdout.flush()
        self._waits = ""


def facts_of(prompt: str, one: Written | Continuation, positions: int | None) -> dict[str, Any]:
    """Return what both commands say of what was written after a prompt."""
    return {
        "prompt": prompt,
        "text": one.text,
        "prompt_tokens": one.n_prompt_ids,
        "tokens": one.n_new_ids,
        "bytes": one.n_bytes,
        "stopped": one.stopped,
        "positions": positions,
    }


def write_written(
    written: Sequence[Mapping[str, Any]], as_json: bool, streamed: Streamed | None
) -> None:
    """Write prompts with what follows them to stdout, and how long that is to stderr.

    Parameters
    ----------
    written : sequence of mapping
        `facts_of` each, and what is the command's own.
    as_json : bool
    streamed : Streamed or None
        What has written the text of the only prompt.
    """
    from tokensurgeon.report import writing_words

    if as_json:
        console.write_json(list(written))
    for one in written:
        if streamed is not None:
            streamed("\n")
        elif not as_json:
            click.echo(one["prompt"] + one["text"])
        if not as_json:
            console.say_beside(writing_words.lengths(one))
        console.say_beside(writing_words.early_end(one))

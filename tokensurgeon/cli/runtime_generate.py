"""``tokensurgeon runtime generate``: write on after prompts."""

from __future__ import annotations

import codecs
from typing import Any

import click

from tokensurgeon.cli import console, writing


@click.command(name="generate", short_help="Write on after prompts.")
@click.argument("checkpoint")
@writing.prompts_argument
@console.option(
    "--heal-prompt",
    "Complete a token that the prompt's end cuts off, such as a superword.",
    "heal",
)
@console.option("--max-new-tokens N", "Most tokens.", type=console.COUNT, default=128)
@console.option(
    "--temperature T",
    "Of the draws; 0 takes the likeliest token.",
    type=click.FloatRange(min=0),
    default=1.0,
)
@console.device_option
@console.dtype_option
@console.seed_option
@console.trust_option
@console.json_option
def command(
    checkpoint: str,
    prompt: tuple[str, ...],
    device: str,
    dtype: str,
    trust_remote_code: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Write on after each PROMPT with CHECKPOINT; after a single one, as it is drawn.

    PROMPT is read as the tokenizer cuts it. Where it ends inside a word, or inside a token of
    several words, that is a cut the model has not seen: --heal-prompt then draws, of all tokens
    that the prompt's last bytes may begin, one by its probability.
    """
    from tokensurgeon.models import load_model
    from tokensurgeon.runtime import write_all, write_on
    from tokensurgeon.vocabulary import load_vocabulary

    vocabulary = load_vocabulary(checkpoint)
    model = load_model(checkpoint, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
    streamed = writing.Streamed(prompt[0]) if len(prompt) == 1 and not as_json else None
    if streamed is not None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")

        def show(data: bytes) -> None:
            streamed(decoder.decode(data))

        found = [write_on(model, vocabulary, prompt[0], each=show, **settings)]
        streamed(decoder.decode(b"", final=True))
    else:
        found = write_all(model, vocabulary, prompt, **settings)
    facts = [
        {
            **writing.facts_of(one.prompt, one, model.max_positions),
            "ids": list(one.ids),
            "taken_back": one.taken_back.decode("utf-8", "replace"),
        }
        for one in found
    ]
    writing.write_written(facts, as_json, streamed)

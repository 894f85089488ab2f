"""``tokensurgeon runtime zip-generate``: text written with hypertokens."""

from __future__ import annotations

from typing import Any

import click

from tokensurgeon.cli import console, writing
from tokensurgeon.cli.runtime_compress import bias_option, composer_option, limit_options


@click.command(name="zip-generate", short_help="Write text with hypertokens.")
@click.argument("checkpoint")
@writing.prompts_argument
@composer_option
@bias_option
@limit_options
@console.option(
    "--max-new-codes N",
    "Steps of the model; a code may stand for several tokens.",
    type=console.AT_LEAST_1,
    default=128,
)
@console.option(
    "--temperature T", "0 takes the likeliest.", type=click.FloatRange(min=0), default=0.0
)
@console.option("--top-k N", "Draw from the likeliest N only.", type=console.AT_LEAST_1)
@console.device_option
@console.dtype_option
@console.seed_option
@console.trust_option
@console.json_option
def command(
    checkpoint: str,
    prompt: tuple[str, ...],
    max_new_codes: int,
    temperature: float,
    top_k: int | None,
    seed: int,
    as_json: bool,
    **settings: Any,
) -> None:
    """Compress each PROMPT, and let CHECKPOINT go on with tokens and hypertokens.

    Several prompts are one batch; after a single one the text is shown as it comes.
    """
    from tokensurgeon.runtime.hypertokens.zip_model import load_zip

    streamed = writing.Streamed(prompt[0]) if len(prompt) == 1 and not as_json else None
    zipped = load_zip(checkpoint, **settings)
    found = zipped.generate(
        prompt,
        max_new_codes=max_new_codes,
        temperature=temperature,
        top_k=top_k,
        seed=seed,
        seen=None if streamed is None else lambda number, text: streamed(text),
    )
    facts = [
        {
            **writing.facts_of(own, one, zipped.hyper.model.max_positions),
            "prompt_codes": one.n_prompt_codes,
            "codes": len(one.codes),
        }
        for own, one in zip(prompt, found, strict=True)
    ]
    writing.write_written(facts, as_json, streamed)

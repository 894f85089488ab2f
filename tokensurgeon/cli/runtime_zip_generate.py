"""``tokensurgeon runtime zip-generate``: text written with hypertokens."""

from __future__ import annotations

import sys
from typing import Any

import click

from tokensurgeon.cli import console
from tokensurgeon.cli.runtime_compress import bias_option, composer_option, limit_options


@click.command(name="zip-generate", short_help="Write text with hypertokens.")
@click.argument("checkpoint")
@click.argument("prompt", nargs=-1, required=True)
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
@console.option("--stream", "Write the text of one prompt as it comes.")
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
    stream: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Compress each PROMPT, and let CHECKPOINT go on with tokens and hypertokens.

    Several prompts are one batch.
    """
    if stream and (as_json or len(prompt) > 1):
        raise click.UsageError(
            "--stream writes the text of one prompt: leave out --json and others"
        )

    from tokensurgeon.report.hypertoken_tables import print_continuations
    from tokensurgeon.runtime.hypertokens.zip_model import load_zip

    def write(number: int, text: str) -> None:
        click.echo(text, nl=False)
        sys.stdout.flush()

    zipped = load_zip(checkpoint, **settings)
    if stream:
        click.echo(prompt[0], nl=False)
    found = zipped.generate(
        prompt,
        max_new_codes=max_new_codes,
        temperature=temperature,
        top_k=top_k,
        seed=seed,
        seen=write if stream else None,
    )
    if stream:
        click.echo()
        return
    facts = [
        {
            "prompt": own,
            "text": one.text,
            "prompt_tokens": one.n_prompt_ids,
            "prompt_codes": one.n_prompt_codes,
            "tokens": len(one.ids),
            "codes": len(one.codes),
            "bytes": one.n_bytes,
        }
        for own, one in zip(prompt, found, strict=True)
    ]
    console.write_result(as_json, facts, print_continuations)

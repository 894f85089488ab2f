"""``tokensurgeon runtime generate``: write on after a prompt."""

from __future__ import annotations

import codecs

import click

from tokensurgeon.cli import console


@click.command(name="generate", short_help="Write on after a prompt.")
@click.argument("checkpoint")
@click.argument("prompt")
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
    prompt: str,
    heal: bool,
    max_new_tokens: int,
    temperature: float,
    device: str,
    dtype: str,
    seed: int,
    trust_remote_code: bool,
    as_json: bool,
) -> None:
    """Write on after PROMPT with CHECKPOINT, to stdout as it is drawn.

    PROMPT is read as the tokenizer cuts it. Where it ends inside a word, or inside a token of
    several words, that is a cut the model has not seen: --heal-prompt then draws, of all tokens
    that the prompt's last bytes may begin, one by its probability.
    """
    from tokensurgeon.models import load_model
    from tokensurgeon.runtime import write_on
    from tokensurgeon.vocabulary import load_vocabulary

    vocabulary = load_vocabulary(checkpoint)
    model = load_model(checkpoint, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def show(data: bytes) -> None:
        click.echo(decoder.decode(data), nl=False)

    written = write_on(
        model,
        vocabulary,
        prompt,
        heal=heal,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
        each=None if as_json else show,
    )
    if as_json:
        console.write_json(
            {
                "prompt": prompt,
                "continuation": written.text,
                "ids": list(written.ids),
                "taken_back": written.taken_back.decode("utf-8", "replace"),
            }
        )
    else:
        click.echo(decoder.decode(b"", final=True))

"""``tokensurgeon inspect``: what a tokenizer does to text, and what it tells of its training."""

from __future__ import annotations

from typing import Any

import click

from tokensurgeon.cli import console


def _mixture(values: tuple[str, ...]) -> dict[str, list[str]] | None:
    """Return the files of each category; None where none is given."""
    samples: dict[str, list[str]] = {}
    for value in values:
        name, equals, pattern = value.partition("=")
        if not (name and equals and pattern):
            raise click.BadParameter(
                f"{value!r} is not NAME=FILE; give a category and its text, such as en=en.txt",
                param_hint="--mixture",
            )
        samples.setdefault(name, []).append(pattern)
    return samples or None


@click.command(short_help="What a tokenizer does to text, and how it came about.")
@click.argument("tokenizer")
@click.argument("text", metavar="[TEXT]...", nargs=-1)
@console.option("--against OTHER", "A tokenizer to put beside; may be repeated.", multiple=True)
@console.option(
    "--checkpoint MODEL", "The model that has TOKENIZER: list its under-trained tokens."
)
@console.option(
    "--mixture NAME=FILE",
    "Text of a category that a BPE may have been trained on: infer the shares; repeated for "
    "each category, and for each file or glob of it.",
    parse=_mixture,
    multiple=True,
)
@console.option(
    "--merges N", "Merges that the mixture is read off.", type=console.AT_LEAST_1, default=3000
)
@console.option(
    "--sample-bytes N",
    "How much is read of each file, and of each category.",
    type=console.AT_LEAST_1,
    default=1_000_000,
)
@console.option(
    "--show N",
    "How many bytes of a file are shown token by token.",
    "shown_bytes",
    type=console.COUNT,
    default=240,
)
@console.option("--html FILE", "Write everything as one page, too.")
@console.field_option
@console.force_option
@console.trust_option
@console.json_option
def command(
    tokenizer: str,
    text: tuple[str, ...],
    html: str | None,
    force: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Inspect TOKENIZER, on TEXT where it is given.

    TOKENIZER is a folder with a tokenizer, its file, or a model on the hub; TEXT is files,
    folders or globs, each file a line of the table. Always: size and kinds, tokens that encoding
    never emits, whether it gives hard texts back. On TEXT: bytes per token, Rényi efficiency,
    tokens per word, parity over the files, unused tokens, boilerplate, speed.
    """
    page = console.check_writable(html, force)

    from tokensurgeon.inspection import inspect_tokenizer
    from tokensurgeon.report.inspection_views import print_inspection, write_page

    settings["text_field"] = settings.pop("field")
    with console.progress() as progress:
        inspection = inspect_tokenizer(tokenizer, text, progress=progress, **settings)
    if page is not None:
        write_page(page, inspection)
    console.write_result(as_json, inspection.to_dict(), print_inspection, inspection)

"""``tokensurgeon inspect``: what a tokenizer does to text, and what it tells of its training."""

from __future__ import annotations

from pathlib import Path

import click

from tokensurgeon.cli import console


@click.command(short_help="What a tokenizer does to text, and how it came about.")
@click.argument("tokenizer")
@click.argument("text", metavar="[TEXT]...", nargs=-1)
@click.option(
    "--against",
    multiple=True,
    metavar="OTHER",
    help="A tokenizer to put beside; may be repeated.",
)
@click.option(
    "--checkpoint",
    metavar="MODEL",
    help="The model that has TOKENIZER: list its under-trained tokens.",
)
@click.option(
    "--mixture",
    multiple=True,
    metavar="NAME=FILE",
    help="Text of a category that a BPE may have been trained on: infer the shares; repeated for "
    "each category, and for each file or glob of it.",
)
@click.option(
    "--merges",
    type=click.IntRange(min=1),
    default=3000,
    show_default=True,
    metavar="N",
    help="Merges that the mixture is read off.",
)
@click.option(
    "--sample-bytes",
    type=click.IntRange(min=1),
    default=1_000_000,
    show_default=True,
    metavar="N",
    help="How much is read of each file, and of each category.",
)
@click.option(
    "--show",
    type=click.IntRange(min=0),
    default=240,
    show_default=True,
    metavar="N",
    help="How many bytes of a file are shown token by token.",
)
@click.option("--html", metavar="FILE", help="Write everything as one page, too.")
@click.option(
    "--field",
    default="text",
    show_default=True,
    help="The key that holds the text in JSON objects.",
)
@console.force_option
@console.trust_option
@console.json_option
def command(
    tokenizer: str,
    text: tuple[str, ...],
    against: tuple[str, ...],
    checkpoint: str | None,
    mixture: tuple[str, ...],
    merges: int,
    sample_bytes: int,
    show: int,
    html: str | None,
    field: str,
    force: bool,
    trust_remote_code: bool,
    as_json: bool,
) -> None:
    """Inspect TOKENIZER, on TEXT where it is given.

    TOKENIZER is a folder with a tokenizer, its file, or a model on the hub; TEXT is files,
    folders or globs, each file a line of the table. Always: size and kinds, tokens that encoding
    never emits, whether it gives hard texts back. On TEXT: bytes per token, Rényi efficiency,
    tokens per word, parity over the files, unused tokens, boilerplate, speed.
    """
    samples = parse_mixture(mixture)
    _check_page(html, force)

    from tokensurgeon.inspection import inspect_tokenizer
    from tokensurgeon.report.inspection_views import print_inspection, write_page

    with console.progress() as progress:
        inspection = inspect_tokenizer(
            tokenizer,
            text,
            against=against,
            checkpoint=checkpoint,
            mixture=samples or None,
            merges=merges,
            sample_bytes=sample_bytes,
            shown_bytes=show,
            text_field=field,
            trust_remote_code=trust_remote_code,
            progress=progress,
        )
    if html is not None:
        write_page(html, inspection)
    if as_json:
        console.write_json(inspection.to_dict())
    else:
        print_inspection(console.stdout(), inspection)


def parse_mixture(values: tuple[str, ...]) -> dict[str, list[str]]:
    """Return the files of each category."""
    samples: dict[str, list[str]] = {}
    for value in values:
        name, equals, pattern = value.partition("=")
        if not (name and equals and pattern):
            raise click.BadParameter(
                f"{value!r} is not NAME=FILE; give a category and its text, such as en=en.txt",
                param_hint="--mixture",
            )
        samples.setdefault(name, []).append(pattern)
    return samples


def _check_page(file: str | None, force: bool) -> None:
    """Refuse a page that cannot be written, before anything is measured."""
    if file is None:
        return
    path = Path(file)
    if not path.parent.is_dir():
        raise click.UsageError(f"no folder {path.parent}: make it first")
    if path.is_dir():
        raise click.UsageError(f"{file} is a folder: name a file in it for --html")
    if path.exists() and not force:
        raise click.UsageError(f"{file} exists already: choose another or add --force")

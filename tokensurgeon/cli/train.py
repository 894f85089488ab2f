"""``tokensurgeon train``: a new vocabulary from text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tokensurgeon.cli import console
from tokensurgeon.training.pretokenizers import DIGITS, PRETOKENIZERS
from tokensurgeon.training.trainers import METHODS

if TYPE_CHECKING:
    from tokensurgeon.training import TrainedVocabulary


@click.command(short_help="Train a new vocabulary.")
@click.argument("method", metavar=f"[{'|'.join(METHODS)}]", type=click.Choice(METHODS))
@click.argument("corpus", metavar="CORPUS...", nargs=-1, required=True)
@click.option(
    "--size",
    type=click.IntRange(min=258),
    required=True,
    metavar="N",
    help="Number of ids; control tokens and the 256 bytes count.",
)
@click.option("-o", "--output", required=True, metavar="DIR", help="The folder to write.")
@click.option(
    "--pretokenizer",
    type=click.Choice(PRETOKENIZERS),
    default="cl100k",
    show_default=True,
    help="How text is cut first; no token crosses a cut.",
)
@click.option(
    "--digits",
    type=click.Choice(DIGITS),
    default="left-3",
    show_default=True,
    help="How runs of digits are cut.",
)
@click.option("--bos", metavar="TOKEN", help="Starts a text.  [default: as --eos]")
@click.option(
    "--eos", metavar="TOKEN", default="<|endoftext|>", show_default=True, help="Ends a text."
)
@click.option("--pad", metavar="TOKEN", help="Fills up a batch.  [default: none]")
@click.option(
    "--control",
    "controls",
    multiple=True,
    metavar="TOKEN",
    help="A further control token, such as a chat marker; may be repeated.",
)
@click.option(
    "--field",
    default="text",
    show_default=True,
    help="The key that holds the text in JSON objects.",
)
@console.force_option
@console.json_option
def command(
    method: str,
    corpus: tuple[str, ...],
    size: int,
    output: str,
    pretokenizer: str,
    digits: str,
    bos: str | None,
    eos: str,
    pad: str | None,
    controls: tuple[str, ...],
    field: str,
    force: bool,
    as_json: bool,
) -> None:
    """Train a vocabulary on text, and write it as a folder that transformers can load.

    METHOD is bpe, unigram, or superbpe, whose tokens may span several words; all are over bytes
    and so lossless. CORPUS is files, folders or globs:
    .txt, .md and source code, .json and .jsonl, packed with .gz or not. A twentieth of the text
    is held out to measure bytes per token, beside a plain BPE of equal size.
    """
    from tokensurgeon.training import train_vocabulary

    with console.progress() as progress:
        trained = train_vocabulary(
            corpus,
            method=method,
            size=size,
            pretokenizer=pretokenizer,
            digits=digits,
            output=output,
            bos=bos,
            eos=eos,
            pad=pad,
            extra_controls=controls,
            field=field,
            force=force,
            progress=progress,
        )
    if as_json:
        console.write_json({"path": str(trained.path), **trained.to_dict()})
    else:
        _print(trained)


def _print(trained: TrainedVocabulary) -> None:
    from rich.table import Table

    figures, corpus = trained.figures, trained.corpus
    stock = figures["stock_bpe_bytes_per_token"]
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("tokens", f"{trained.size:,}")
    table.add_row("bytes per token, held out", f"{figures['bytes_per_token']:.3f}")
    table.add_row("plain BPE of equal size", "–" if stock is None else f"{stock:.3f}")
    table.add_row("held out", f"{figures['held_out_bytes']:,} bytes")
    table.add_row("not used there", f"{figures['unused']:.1%} of the tokens")
    table.add_row("longest token", f"{figures['longest_token']} bytes")
    table.add_row("round trip", f"{figures['hard_texts']} of {figures['hard_texts']} hard texts")
    table.add_row("text", f"{corpus['documents']:,} documents, {corpus['bytes']:,} bytes")
    if corpus["replaced_characters"]:
        table.add_row("not UTF-8", f"{corpus['replaced_characters']:,} characters replaced")
    table.add_row("written to", str(trained.path))
    console.stdout().print(table)

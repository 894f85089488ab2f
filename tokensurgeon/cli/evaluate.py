"""``tokensurgeon evaluate``: bits per byte of checkpoints on a text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tokensurgeon.cli import console
from tokensurgeon.errors import BoundExceededError

if TYPE_CHECKING:
    from tokensurgeon.evaluation import Evaluation

DRAFT_BYTES = 50_000
"""Most text that a draft is measured on: it takes two whole distributions at every token."""


@click.command(short_help="Bits per byte of checkpoints on a text.")
@click.argument("checkpoint")
@click.argument("text", metavar="TEXT...", nargs=-1, required=True)
@click.option("--against", metavar="CHECKPOINT", help="Measure this one beside: mostly the source.")
@click.option(
    "--max-rise",
    type=float,
    metavar="BITS",
    help="End with code 3 if CHECKPOINT needs more bits per byte above --against than this.",
)
@click.option(
    "--max-bytes",
    type=click.IntRange(min=1),
    default=500_000,
    show_default=True,
    metavar="N",
    help="Take whole documents while they fit into this many bytes.",
)
@click.option(
    "--chunk-bytes",
    type=click.IntRange(min=1),
    metavar="N",
    help="Longest chunk.  [default: 1024, or as fits the models]",
)
@click.option(
    "--generate",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Let each model write N samples, and measure bytes per token on them.",
)
@console.field_option
@click.option(
    "--draft-for",
    metavar="MODEL",
    help="Measure how much of what CHECKPOINT drafts MODEL would accept, by speculative decoding.",
)
@console.seen_option
@console.device_option
@console.dtype_option
@console.seed_option
@console.trust_option
@console.json_option
def command(
    checkpoint: str,
    text: tuple[str, ...],
    against: str | None,
    max_rise: float | None,
    max_bytes: int,
    draft_for: str | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Measure CHECKPOINT on TEXT in bits per byte, with its own tokenizer.

    Bits per byte compare models with different tokenizers; perplexity per token does not. TEXT is
    files, folders or globs. With --against the other checkpoint is measured on the same bytes, and
    the difference comes with a 95 % interval (paired bootstrap over documents).
    """
    if max_rise is not None and against is None:
        raise click.UsageError("--max-rise needs --against: a rise above what?")
    if draft_for is not None and (against is not None or settings["generate"]):
        raise click.UsageError(
            "--draft-for is a measure of its own: leave out --against, --generate"
        )

    from tokensurgeon.evaluation import evaluate_checkpoint, evaluate_draft
    from tokensurgeon.report.evaluation_tables import print_draft, print_evaluation

    with console.progress() as progress:
        settings |= {"max_bytes": max_bytes, "progress": progress}
        if draft_for is not None:
            settings["max_bytes"] = min(max_bytes, DRAFT_BYTES)
            for name in ("chunk_bytes", "generate", "seed"):
                del settings[name]
            draft = evaluate_draft(checkpoint, draft_for, text, **settings)
        else:
            evaluation = evaluate_checkpoint(checkpoint, text, against, **settings)
    if as_json:
        console.write_json((evaluation if draft_for is None else draft).to_dict())
    elif draft_for is not None:
        print_draft(console.stdout(), draft)
    else:
        print_evaluation(console.stdout(), evaluation)
    if max_rise is not None:
        _check_rise(evaluation, max_rise)


def _check_rise(evaluation: Evaluation, max_rise: float) -> None:
    first, measured = evaluation.entries
    if measured.difference is None:
        raise BoundExceededError(
            f"{measured.name} and {first.name} have no comparable text, so no rise is within "
            f"{max_rise:g} bits per byte; give text that both tokenizers can spell"
        )
    rise = measured.difference.estimate
    if rise > max_rise:
        raise BoundExceededError(
            f"{measured.name} needs {rise:.4f} bits per byte more than {first.name}; "
            f"--max-rise allows {max_rise:g}"
        )

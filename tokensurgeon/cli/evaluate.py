"""``tokensurgeon evaluate``: bits per byte of checkpoints on a text."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING

import click

from tokensurgeon.cli import console
from tokensurgeon.errors import BoundExceededError

if TYPE_CHECKING:
    from rich.table import Table

    from tokensurgeon.evaluation import DraftResult, EntryResult, Evaluation, Part

DRAFT_BYTES = 50_000
"""Text that a draft is measured on, at most: two whole distributions at every place."""


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
@click.option(
    "--field",
    default="text",
    show_default=True,
    help="The key that holds the text in JSON objects.",
)
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
    chunk_bytes: int | None,
    generate: int,
    field: str,
    draft_for: str | None,
    allow_seen_text: bool,
    device: str | None,
    dtype: str | None,
    seed: int | None,
    trust_remote_code: bool,
    as_json: bool,
) -> None:
    """Measure CHECKPOINT on TEXT in bits per byte, with its own tokenizer.

    Bits per byte compare models with different tokenizers; perplexity per token does not. TEXT is
    files, folders or globs. With --against the other checkpoint is measured on the same bytes, and
    the difference comes with a 95 % interval (paired bootstrap over documents).
    """
    if max_rise is not None and against is None:
        raise click.UsageError("--max-rise needs --against: a rise above what?")
    if draft_for is not None and (against is not None or generate):
        raise click.UsageError(
            "--draft-for is a measure of its own: leave out --against, --generate"
        )

    from tokensurgeon.evaluation import evaluate_checkpoint, evaluate_draft

    if draft_for is not None:
        with console.progress() as progress:
            result = evaluate_draft(
                checkpoint,
                draft_for,
                text,
                field=field,
                max_bytes=min(max_bytes, DRAFT_BYTES),
                device=device or "cpu",
                dtype=dtype or "float32",
                trust_remote_code=trust_remote_code,
                allow_seen_text=allow_seen_text,
                progress=progress,
            )
        if as_json:
            console.write_json(result.to_dict())
        else:
            _print_draft(result)
        return
    with console.progress() as progress:
        evaluation = evaluate_checkpoint(
            checkpoint,
            text,
            against,
            field=field,
            max_bytes=max_bytes,
            chunk_bytes=chunk_bytes,
            device=device or "cpu",
            dtype=dtype or "float32",
            seed=seed or 0,
            generate=generate,
            trust_remote_code=trust_remote_code,
            allow_seen_text=allow_seen_text,
            progress=progress,
        )
    if as_json:
        console.write_json(evaluation.to_dict())
    else:
        _print(evaluation)
    if max_rise is not None:
        _check_rise(evaluation, max_rise)


def _print_draft(result: DraftResult) -> None:
    """Say what is accepted, beside doing without a draft."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("drafted at once", "accepted, sampling", "accepted, greedy", "tokens a pass"):
        table.add_column(heading, justify="right")
    table.add_row("0", "", "", "1.00 … 1.00")
    for n, accepted in result.accepted.items():
        greedy = result.accepted_greedy[n]
        table.add_row(
            str(n), f"{accepted:.2f}", f"{greedy:.2f}", f"{1 + accepted:.2f} … {1 + greedy:.2f}"
        )
    screen = console.stdout()
    screen.print(table)
    screen.print(
        f"acceptance {result.acceptance:.1%} by sampling, {result.agreement:.1%} greedy, at "
        f"{result.n_positions:,} places of {result.n_bytes:,} bytes"
    )
    if result.n_rows[0] != result.n_rows[1]:
        screen.print(
            f"the draft has {result.n_rows[0]:,} rows and the big model {result.n_rows[1]:,}; "
            "some engines want them equal: transplant --for-draft pads"
        )


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


def _print(evaluation: Evaluation) -> None:
    out = console.stdout()
    out.print(_figures(evaluation))
    entry = evaluation.entries[-1]
    if entry.by_match:
        out.print(_parts("tokens that the first has, or lacks", entry.by_match))
    if entry.by_kind:
        out.print(_parts("by kind of token", entry.by_kind))
    for note in _notes(evaluation):
        out.print(note, markup=False)


def _figures(evaluation: Evaluation) -> Table:
    from rich.table import Table
    from rich.text import Text

    entries = evaluation.entries
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    short = [PurePath(entry.name).name or entry.name for entry in entries]
    for entry, name in zip(entries, short, strict=True):
        shown = name if short.count(name) == 1 else entry.name
        table.add_column(Text(shown, overflow="fold"), justify="right")
    rows = [
        ("bits per byte", [_number(entry.bits_per_byte, 4) for entry in entries]),
        ("above the first", [_gap(entry) for entry in entries]),
        ("perplexity per token", [_number(entry.perplexity, 2) for entry in entries]),
        ("perplexity ratio", [_number(entry.perplexity_ratio, 3) for entry in entries]),
        ("bytes per token", [_number(entry.bytes_per_token, 3) for entry in entries]),
        ("bytes", [f"{entry.n_bytes:,}" for entry in entries]),
    ]
    if any(entry.n_lost for entry in entries):
        rows.append(("chunks not comparable", [f"{entry.n_lost:,}" for entry in entries]))
    written = [entry.generation for entry in entries]
    if any(written):
        rows += [
            (
                "bytes per token, generated",
                [_number(one.bytes_per_token if one else None, 3) for one in written],
            ),
            (
                "tokens not canonical",
                [f"{one.non_canonical_tokens:.1%}" if one else "–" for one in written],
            ),
        ]
    for name, cells in rows:
        if any(cell != "–" for cell in cells):
            table.add_row(name, *cells)
    return table


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _gap(entry: EntryResult) -> str:
    gap = entry.difference
    if gap is None:
        return "–"
    return f"{gap.estimate:+.4f} ({gap.low:+.4f} to {gap.high:+.4f})"


def _parts(title: str, parts: dict[str, Part]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column(title, min_width=20)
    for name in ("bits per byte", "tokens", "nats per token"):
        table.add_column(name, justify="right")
    for name, part in parts.items():
        table.add_row(
            name, f"{part.bits_per_byte:.4f}", f"{part.tokens:,}", f"{part.mean_nats:.3f}"
        )
    return table


def _notes(evaluation: Evaluation) -> list[str]:
    from tokensurgeon.checkpoint.embeddings import CAUSAL
    from tokensurgeon.evaluation.model_kinds import PROTOCOLS

    notes = [
        f"{evaluation.n_documents:,} documents, {evaluation.n_chunks:,} chunks of at most "
        f"{evaluation.chunk_bytes:,} bytes, {evaluation.n_bytes:,} bytes"
    ]
    if evaluation.n_too_long:
        notes.append(
            f"{evaluation.n_too_long:,} chunks have too many tokens for a model and are left out "
            "for all"
        )
    if evaluation.kind != CAUSAL:
        notes.append(PROTOCOLS[evaluation.kind])
    elif evaluation.n_left_out_bytes:
        notes.append(
            f"{evaluation.n_left_out_bytes:,} bytes at the start of chunks are left out for all: "
            "a model has neither BOS nor EOS"
        )
    for entry in evaluation.entries:
        if entry.n_lost:
            notes.append(
                f"{entry.name} loses text on {entry.n_lost:,} chunks: not comparable there, "
                "and not to be ranked"
            )
    return notes

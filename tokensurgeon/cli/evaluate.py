"""``tokensurgeon evaluate``: bits per byte of checkpoints on a text, and tasks."""

from __future__ import annotations

from typing import Any

import click

from tokensurgeon.cli import console
from tokensurgeon.errors import BoundExceededError

DRAFT_BYTES = 50_000
"""Most text that a draft is measured on: it takes two whole distributions at every token."""
OF_TEXT = {"generate": "--generate", "n_exact_bytes": "--exact-bytes", "by": "--by"}
"""Settings that measure a text, and their options."""


@click.command(short_help="Bits per byte of checkpoints on a text.")
@click.argument("checkpoint")
@click.argument("text", metavar="[TEXT...]", nargs=-1)
@console.option("--against CHECKPOINT", "Measure this one beside: mostly the source.")
@console.option(
    "--max-rise BITS",
    "End with code 3 if CHECKPOINT needs more bits per byte above --against than this.",
    type=float,
)
@console.option(
    "--max-bytes N",
    "Take whole documents while they fit into this many bytes.",
    type=console.AT_LEAST_1,
    default=500_000,
)
@console.option(
    "--chunk-bytes N",
    "Longest chunk.  [default: 1024, or as fits the models]",
    type=console.AT_LEAST_1,
)
@console.option(
    "--generate N",
    "Let each model write N samples, and measure bytes per token on them.",
    type=console.COUNT,
    default=0,
)
@console.option(
    "--exact-bytes N",
    "Score N bytes of the text by exact probabilities of bytes too: the sum over all spellings.",
    "n_exact_bytes",
    type=console.COUNT,
    default=0,
)
@console.field_option
@console.by_option
@console.language_field_option
@console.option(
    "--plot FILE",
    "Write the gaps to --against as a picture (.png, .svg) or a page with it (.html).",
)
@console.option(
    "--draft-for MODEL",
    "Measure how much of what CHECKPOINT drafts MODEL would accept, by speculative decoding.",
)
@console.option(
    "--tasks NAME,...|FOLDER",
    "Tasks of lm-evaluation-harness, by name or all of a folder (needs lm-eval); may be repeated.",
    multiple=True,
)
@console.option(
    "--tasks-folder DIR", "Where the files of tasks are that the harness does not have."
)
@console.option("--limit N", "Items of each task at most.", type=console.AT_LEAST_1)
@console.option(
    "--num-fewshot N", "Examples before each item.  [default: as the task]", type=console.COUNT
)
@console.option("--batch-size N", "Items of a task at once.", type=console.AT_LEAST_1, default=1)
@console.seen_option
@console.invalid_option
@console.device_option
@console.dtype_option
@console.seed_option
@console.trust_option
@console.force_option
@console.json_option
def command(
    checkpoint: str,
    text: tuple[str, ...],
    against: str | None,
    max_rise: float | None,
    draft_for: str | None,
    tasks: tuple[str, ...],
    tasks_folder: str | None,
    plot: str | None,
    force: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Measure CHECKPOINT on TEXT in bits per byte, with its own tokenizer, or on tasks.

    Bits per byte compare models with different tokenizers; perplexity per token does not. TEXT is
    files, folders or globs. With --against the other checkpoint is measured on the same bytes, and
    the difference comes with a 95 % interval (paired bootstrap over documents). With --draft-for,
    --against names a small model of another tokenizer, and what it drafts as it is stands beside.

    With --tasks lm-evaluation-harness measures the checkpoints too, and TEXT may be left out. The
    difference on a task comes with its standard error over the items, which both models answer.
    """
    by_tasks = bool(tasks or tasks_folder)
    if not (text or by_tasks):
        raise click.UsageError("nothing to measure on; give TEXT, --tasks or both")
    of_text = "--max-rise" if max_rise is not None else "--plot" if plot is not None else ""
    for name in ("generate", "n_exact_bytes", "by"):
        of_text = of_text or (OF_TEXT[name] if settings[name] else "")
    if of_text and not text:
        raise click.UsageError(f"{of_text} is about a text, and none is given; give TEXT")
    of_tasks = {name: settings.pop(name) for name in ("limit", "num_fewshot", "batch_size")}
    if not by_tasks and (of_tasks["limit"] or of_tasks["num_fewshot"] is not None):
        raise click.UsageError("--limit and --num-fewshot are about tasks; give --tasks")
    if draft_for is not None and by_tasks:
        raise click.UsageError("--draft-for is a measure of its own: leave out --tasks")
    if max_rise is not None and against is None:
        raise click.UsageError("--max-rise needs --against: name the checkpoint to rise above")
    if draft_for is not None and of_text:
        raise click.UsageError(f"--draft-for is a measure of its own: leave out {of_text}")
    if plot is not None and against is None:
        raise click.UsageError("--plot draws gaps to another checkpoint: give --against")
    picture = console.check_writable(plot, force)

    from tokensurgeon.evaluation import evaluate_checkpoint, evaluate_draft, evaluate_tasks
    from tokensurgeon.report.checkpoint_tables import as_comparison
    from tokensurgeon.report.evaluation_tables import print_draft
    from tokensurgeon.report.plot import check_path, write_plot
    from tokensurgeon.report.task_tables import print_measured

    if picture is not None:
        check_path(picture)

    if draft_for is not None:
        settings["max_bytes"] = min(settings["max_bytes"], DRAFT_BYTES)
        for name in ("chunk_bytes", "generate", "n_exact_bytes", "seed", "by", "language_field"):
            del settings[name]
        with console.progress() as progress:
            draft = evaluate_draft(
                checkpoint, draft_for, text, untouched=against, progress=progress, **settings
            )
        console.write_result(as_json, draft.to_dict(), print_draft, draft)
        return
    evaluation = table = None
    with console.progress() as progress:
        if by_tasks:
            # First: a task that is not there is said before minutes of measuring.
            common = {name: settings[name] for name in ("device", "dtype", "trust_remote_code")}
            wanted = [name for word in tasks for name in word.split(",") if name]
            table = evaluate_tasks(
                checkpoint,
                wanted,
                against,
                folder=tasks_folder,
                progress=progress,
                **of_tasks,
                **common,
            )
        if text:
            evaluation = evaluate_checkpoint(
                checkpoint, text, against, progress=progress, **settings
            )
    if picture is not None and evaluation is not None:
        write_plot(picture, as_comparison(evaluation, settings["by"]))
    data = {} if evaluation is None else evaluation.to_dict()
    data |= {} if table is None else {"tasks": table.to_dict()}
    console.write_result(as_json, data, print_measured, evaluation, table, settings["by"])
    if max_rise is None or evaluation is None:
        return
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

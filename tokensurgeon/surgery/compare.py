"""Several initialisers on one pair, under one protocol, in one table."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokensurgeon.errors import SettingError, TokensurgeonError, UsageError
from tokensurgeon.evaluation import Evaluation
from tokensurgeon.initialisers import load_plugin
from tokensurgeon.recipe import Recipe
from tokensurgeon.surgery.measure import evaluation_texts, measure
from tokensurgeon.surgery.prepare import Operation, prepare
from tokensurgeon.surgery.rows import (
    PatchedRows,
    chosen_methods,
    default_methods,
    patch_rows,
)
from tokensurgeon.training.train import Progress, no_progress

METHODS = ("mean", "subword-mean", "subword-ends", "subword-shrunk", "hidden-residual", "omp")
"""What is compared where nobody says: floors, the plain family, and what learns from the pair."""


@dataclass(frozen=True)
class Comparison:
    """One table.

    Attributes
    ----------
    rows : tuple of dict
        The source first, then by bits per byte; methods that could not work come last with their
        reason under ``error``. Keys: method, bits_per_byte, gap (to the source), interval (95 %,
        of the gap), perplexity_ratio, bytes_per_token, seconds, donor, text_bytes,
        forward_tokens, error.
    evaluation : Evaluation
        All of the figures, with their breakdown.
    facts : dict
        Source, target and donor, for a heading.
    """

    rows: tuple[dict[str, Any], ...]
    evaluation: Evaluation
    facts: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison for JSON."""
        evaluation = self.evaluation.to_dict()
        return {"facts": self.facts, "rows": list(self.rows), "evaluation": evaluation}

    def to_csv(self) -> str:
        """Return the rows as CSV with a header."""
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, fieldnames=list(self.rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return buffer.getvalue()


def compare(
    recipe: Recipe,
    methods: Sequence[str] = (),
    *,
    plugins: Sequence[str | Path] = (),
    progress: Progress | None = None,
) -> Comparison:
    """Measure several initialisers on one pair; nothing is written.

    Parameters
    ----------
    recipe : Recipe
        Its `text.evaluation` is needed; its `output` and `baselines` are not used.
    methods : sequence of str
        ``NAME`` for both sides, or ``INPUT/OUTPUT``. Default: a sensible few, and the default of
        the pair. When the matrices are tied, a pair of different names is an error of its row.
    plugins : sequence of path
        Python files that register initialisers. Their code runs.
    progress : callable(done, total, what), optional

    Raises
    ------
    UsageError
        Without a text, or if a method is named twice.
    """
    if not recipe.text.evaluation:
        raise UsageError("a comparison needs a text: give --text FILE")
    if len(set(methods)) < len(methods):
        raise SettingError("a method is named twice: name each once")
    for plugin in plugins:
        load_plugin(plugin)
    operation = prepare(recipe.model_copy(update={"output": None}), progress or no_progress)
    texts = evaluation_texts(operation)
    names = list(methods) or _suggested(operation)
    rows: list[dict[str, Any]] = []
    patched: list[tuple[str, PatchedRows]] = []
    for done, name in enumerate(names):
        operation.progress(done, len(names), f"initialising: {name}")
        row, made = _one(operation, name)
        rows.append(row)
        if made is not None:
            patched.append((name, made))
    evaluation = measure(operation, patched, texts)
    _fill(rows, evaluation)
    rows.sort(key=lambda row: (row["error"] is not None, row["bits_per_byte"] or 0.0))
    source = _row("source")
    _fill([source], evaluation)
    layout = operation.checkpoint.layout
    facts = {
        "source": recipe.source,
        "target": recipe.tokenizer if isinstance(recipe.tokenizer, str) else "trained",
        "donor": recipe.donor,
        "tied": operation.tied,
        "untied": layout.tied and recipe.untie,
        "missing": int(operation.alignment.missing.size),
        "n_target": operation.alignment.target.n_rows,
    }
    return Comparison((source, *rows), evaluation, facts)


def _suggested(operation: Operation) -> list[str]:
    """Return the methods to compare where none is named, the pair's default among them."""
    names = [name for name in METHODS if name != "omp" or operation.donor is not None]
    if operation.tied:
        names = [name for name in names if name != "subword-ends"]
    default = default_methods(operation)
    label = default[0] if default[0] == default[1] else "/".join(default)
    return names if label in names else [*names, label]


def _row(name: str) -> dict[str, Any]:
    return {
        "method": name,
        "bits_per_byte": None,
        "gap": None,
        "interval": None,
        "perplexity_ratio": None,
        "bytes_per_token": None,
        "seconds": None,
        "donor": False,
        "text_bytes": 0,
        "forward_tokens": 0,
        "error": None,
    }


def _one(operation: Operation, name: str) -> tuple[dict[str, Any], PatchedRows | None]:
    """Compute one method's rows; a method that cannot work says why in its line of the table."""
    row = _row(name)
    input_name, _, output_name = name.partition("/")
    spec = operation.recipe.init.model_copy(
        update={"input": input_name, "output": output_name or input_name}
    )
    try:
        patched = patch_rows(operation, chosen_methods(operation, spec), spec)
        row["forward_tokens"] = patched.forward_tokens
        row["seconds"] = round(patched.seconds, 3)
        row["donor"] = patched.used_donor
        if patched.used_text:
            row["text_bytes"] = sum(len(text.encode()) for text in operation.calibration_texts)
    except TokensurgeonError as error:
        row["error"] = str(error)
        return row, None
    return row, patched


def _fill(rows: list[dict[str, Any]], evaluation: Evaluation) -> None:
    """Take the figures of each row from the evaluation."""
    for row in rows:
        if row["error"] is not None:
            continue
        entry = evaluation[row["method"]]
        row["bits_per_byte"] = entry.bits_per_byte
        row["perplexity_ratio"] = entry.perplexity_ratio
        row["bytes_per_token"] = entry.bytes_per_token
        if entry.difference is not None:
            row["gap"] = entry.difference.estimate
            row["interval"] = (entry.difference.low, entry.difference.high)

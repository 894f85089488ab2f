"""What a surgery would take: time and memory, before any row is computed."""

from __future__ import annotations

import time

from tokensurgeon.calibration.calibration_texts import GENERATED
from tokensurgeon.calibration.data import MORE_BYTES, MOST_BYTES, MOST_PLACE_TOKENS, PASSES
from tokensurgeon.surgery.chosen_methods import wants_auto
from tokensurgeon.surgery.prepare import Operation
from tokensurgeon.surgery.untying import untied

BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}

PROBE_TOKENS = 2_048
"""Tokens of the forward pass that is timed."""

BYTES_PER_TOKEN = 3
"""Of text; so few err towards more tokens."""


def estimate(operation: Operation, methods: tuple[str, str]) -> dict[str, float]:
    """Return ``seconds``, ``memory_bytes`` and ``output_bytes`` of the surgery.

    The forward passes dominate, so their rate is measured on a few sequences of the source and
    scaled to the tokens that the methods, the calibration and the evaluation will run; calibration
    ends with its budget, and healing takes the minutes it is given. Rows are counted from their
    shapes. Work on the donor's rows is counted at a modest 2 GFLOP/s, so that the answer errs
    towards too long.
    """
    layout = operation.checkpoint.layout
    sides = 1 if operation.tied else 2
    row_bytes = 4 * layout.width
    memory = 1.0 * sides * row_bytes * (layout.n_rows + 2 * operation.n_rows)
    if operation.donor is not None:
        memory += operation.donor.input.nbytes + operation.donor.output.nbytes
    value = BYTES[operation.checkpoint.dtype]
    model_bytes = operation.checkpoint.n_bytes * 4 / value
    seconds = sum(operation.timings.values())
    recipe = operation.recipe
    tokens, calibration = _forward_tokens(operation, methods), _calibration_tokens(operation)
    if tokens or calibration:
        memory += model_bytes
        rate = _tokens_per_second(operation)
        seconds += tokens / rate + min(calibration / rate, 60 * recipe.budget)
    if recipe.heal:
        # The rows, their gradients and two moments of each.
        memory += model_bytes + 4.0 * sides * row_bytes * operation.n_rows
        seconds += 60 * recipe.heal
    if {"omp", "auto"} & set(methods) and operation.donor is not None:
        n_shared = int(operation.alignment.shared.size)
        width = operation.donor.input.shape[1]
        flops = 2.0 * len(operation.pieces) * n_shared * width * 8 * sides
        seconds += flops / 2e9
    output = operation.checkpoint.n_bytes
    before = layout.n_rows * (1 if layout.tied else 2)
    output += (operation.n_rows * sides - before) * layout.width * value
    return {
        "seconds": seconds,
        "memory_bytes": memory,
        "output_bytes": float(output),
    }


def _forward_tokens(operation: Operation, methods: tuple[str, str]) -> int:
    """Count the tokens that will be run through the source or its patched forms."""
    tokens = 0
    if {"hidden-residual", "auto"} & set(methods):
        tokens += sum(2 * (len(pieces) + 1) for pieces in operation.pieces.values())
    patterns = operation.recipe.text.evaluation
    if patterns:
        # Source, patched and baselines, and the tied twin of what is untied.
        models = 2 + len(operation.recipe.baselines) + untied(operation)
        tokens += models * operation.recipe.text.max_bytes // BYTES_PER_TOKEN
    return tokens


def _calibration_tokens(operation: Operation) -> int:
    """Count the tokens that calibration will run, were there no budget."""
    recipe = operation.recipe
    stages = recipe.calibrate
    if not recipe.budget or not (wants_auto(recipe.init) if stages is None else stages):
        return 0
    given = sum(len(text.encode()) for text in operation.calibration_texts)
    read = min(given or GENERATED, MOST_BYTES)
    more = min(max(0, given - MOST_BYTES), MORE_BYTES)
    return (PASSES * read + more) // BYTES_PER_TOKEN + MOST_PLACE_TOKENS


def _tokens_per_second(operation: Operation) -> float:
    model = operation.model
    length = min(128, (operation.checkpoint.max_positions or 128) - 1)
    token = int(operation.context.anchors.argmax())
    sequences = [[token] * length for _ in range(max(1, PROBE_TOKENS // length))]
    model.states(sequences[:1], model.n_layers)  # the first pass also allocates
    start = time.perf_counter()
    model.states(sequences, model.n_layers)
    return len(sequences) * length / (time.perf_counter() - start)

"""What a surgery would take: time and memory, before any row is computed."""

from __future__ import annotations

import time
from collections.abc import Sequence

from tokensurgeon.arrays import ITEM_BYTES
from tokensurgeon.calibration import TextSizes, find_stages
from tokensurgeon.calibration.calibration_texts import GENERATED, MOST_OTHER, MOST_SELECTION
from tokensurgeon.calibration.data import MORE_BYTES, MOST_BYTES
from tokensurgeon.initialisers.contract import Initialiser, RunsSource, TakesTime
from tokensurgeon.initialisers.hidden_tokens import MOST_HIDDEN
from tokensurgeon.surgery.choose import candidates, most_measured
from tokensurgeon.surgery.chosen_methods import Methods, build_initialiser
from tokensurgeon.surgery.session import Session

PROBE_TOKENS = 2_048
"""Of the forward pass that is timed: some seconds at most, even for a model of billions."""
BYTES_PER_TOKEN = 3
"""Of text; so few err towards more tokens."""
FLOPS = 2e9
"""A second, on the donor's rows: modest, so that the answer errs towards too long."""
FLOPS_PER_PRODUCT = 2.0 * 8
"""Of matching pursuit, for each donor number and missing token: a product, some eight times."""


def estimate(session: Session, methods: Methods) -> dict[str, float]:
    """Return ``seconds``, ``memory_bytes`` and ``output_bytes`` of the surgery.

    The forward passes dominate, so their rate is measured on a few sequences of the source and
    scaled to the tokens that the methods, the calibration and the evaluation say they will run;
    calibration ends with its budget, and healing takes the minutes it is given. Rows are counted
    from their shapes.
    """
    inputs, recipe = session.inputs, session.recipe
    checkpoint, donor = inputs.checkpoint, inputs.donor
    layout = checkpoint.layout
    sides = 1 if inputs.tied else 2
    row_bytes = 4 * layout.width
    memory = 1.0 * sides * row_bytes * (layout.n_rows + 2 * inputs.n_rows)
    if donor is not None:
        memory += donor.input.nbytes + donor.output.nbytes
    value = ITEM_BYTES[checkpoint.dtype]
    model_bytes = checkpoint.n_bytes * 4 / value
    seconds = sum(session.timings.seconds.values())
    initialisers = _initialisers(session, methods)
    tokens = _method_tokens(session, initialisers, methods.automatic) + _evaluation_tokens(session)
    calibration = _calibration_tokens(session, methods)
    if tokens or calibration:
        memory += model_bytes
        rate = _tokens_per_second(session)
        seconds += tokens / rate + min(calibration / rate, 60 * recipe.budget)
    seconds += sum(
        one.seconds(session.context) for one in initialisers if isinstance(one, TakesTime)
    )
    if recipe.heal:
        # The rows, their gradients and two moments of each.
        memory += model_bytes + 4.0 * sides * row_bytes * inputs.n_rows
        seconds += 60 * recipe.heal
    if donor is not None and any(one.name == "omp" for one in initialisers):
        products = len(inputs.pieces) * inputs.alignment.shared.size * donor.input.shape[1]
        seconds += FLOPS_PER_PRODUCT * products * sides / FLOPS
    before = layout.n_rows * (1 if layout.tied else 2)
    output = checkpoint.n_bytes + (inputs.n_rows * sides - before) * layout.width * value
    return {"seconds": seconds, "memory_bytes": memory, "output_bytes": float(output)}


def _initialisers(session: Session, methods: Methods) -> list[Initialiser]:
    """Return what will make rows, each once; the baselines only where they are measured."""
    spec, inputs = session.recipe.init, session.inputs
    if methods.automatic:
        chosen = list(candidates(inputs, spec).values()) if session.recipe.budget else []
    elif methods.initialiser is not None:
        chosen = [methods.initialiser]
    else:
        names = dict.fromkeys(methods.names)
        chosen = [build_initialiser(name, spec, methods.names) for name in names]
    if session.recipe.text.evaluation:
        chosen += [build_initialiser(name, spec, ()) for name in session.recipe.baselines]
    return chosen


def _method_tokens(session: Session, initialisers: Sequence[Initialiser], automatic: bool) -> float:
    """Count the tokens that methods run; where they are chosen, hidden tokens are rebuilt too."""
    tokens = sum(
        one.forward_tokens(session.context) for one in initialisers if isinstance(one, RunsSource)
    )
    n_missing = len(session.inputs.pieces)
    return tokens * (1 + MOST_HIDDEN / n_missing) if automatic and n_missing else tokens


def _evaluation_tokens(session: Session) -> int:
    """Count the tokens of measuring: source, result, baselines, and the tied twin of an untied."""
    recipe = session.recipe
    if not recipe.text.evaluation:
        return 0
    models = 2 + len(recipe.baselines) + session.inputs.untied
    return models * recipe.text.max_bytes // BYTES_PER_TOKEN


def _calibration_tokens(session: Session, methods: Methods) -> int:
    """Count the tokens that choice and calibration will run, were there no budget."""
    recipe = session.recipe
    names = recipe.calibrate if recipe.calibrate or methods.automatic else ()
    stages = find_stages(names, session.inputs.tied)
    if not recipe.budget or not (stages or methods.automatic):
        return 0
    given = sum(len(text.encode()) for text in session.calibration_texts)
    written = (0 if given else GENERATED) + (0 if recipe.text.other else MOST_OTHER)
    sizes = TextSizes(
        fit=min(given or GENERATED, MOST_BYTES) // BYTES_PER_TOKEN,
        more=min(max(0, given - MOST_BYTES), MORE_BYTES) // BYTES_PER_TOKEN,
        selection=MOST_SELECTION // BYTES_PER_TOKEN,
        other=MOST_OTHER // BYTES_PER_TOKEN,
    )
    tokens = written // BYTES_PER_TOKEN
    tokens += sum(stage.cost(sizes).total_tokens(sizes) for stage in stages)
    if methods.automatic:
        tokens += sizes.fit + most_measured(session.inputs) * sizes.selection
    return tokens


def _tokens_per_second(session: Session) -> float:
    model = session.model
    length = min(128, (session.inputs.checkpoint.max_positions or 128) - 1)
    token = int(session.context.anchors.argmax())
    sequences = [[token] * length for _ in range(max(1, PROBE_TOKENS // length))]
    model.states(sequences[:1], model.n_layers)  # the first pass also allocates
    start = time.perf_counter()
    model.states(sequences, model.n_layers)
    return len(sequences) * length / (time.perf_counter() - start)

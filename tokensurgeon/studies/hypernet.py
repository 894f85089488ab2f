"""Train a hypernetwork for a source, and keep it in a file."""

from __future__ import annotations

from pathlib import Path

from tokensurgeon.errors import UsageError
from tokensurgeon.initialisers.hypernetwork.network_file import FORMAT, Hypernet
from tokensurgeon.outputs import check_file
from tokensurgeon.outputs.paths import check_apart, safetensors_with
from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.recipe import Recipe
from tokensurgeon.surgery.prepare import prepare

IS_NETWORK = safetensors_with("format", FORMAT)


def train_hypernet(
    recipe: Recipe,
    path: str | Path,
    *,
    minutes: float = 10.0,
    size: int = 256,
    layers: int = 1,
    steps: tuple[int, int] | None = None,
    force: bool = False,
    progress: Progress = no_progress,
) -> Hypernet:
    """Train a network that makes rows for any target tokenizer of a source.

    A run that was broken off is gone on with: its state lies beside the file, as ``FILE.partial``.

    Parameters
    ----------
    recipe : Recipe
        Its source, `text.calibration` (none trains on rows alone), device, dtype and seed count;
        a target does not.
    path : str or Path
        The safetensors file to write.
    minutes : float
        Of training; fitting the ridge composer comes on top.
    size, layers : int
        Width (a multiple of 4) and blocks of the network.
    steps : tuple of two int, optional
        Steps on rows and through the model, in the place of minutes: the same on every machine.
    force : bool
        Write over a hypernetwork; another file is never replaced.
    progress : callable(done, total, what)

    Returns
    -------
    Hypernet
        What was written; its `card` has the figures of every stage of the fit.

    Raises
    ------
    UsageError, InitialiserError, CheckpointError
        On a path that is taken or cannot be written, a source that teaches nothing, a checkpoint
        that cannot be read.
    """
    from tokensurgeon.initialisers.hypernetwork.staged_fit import StagedFit

    path = check_file(path, force=force, what="a hypernetwork", is_ours=IS_NETWORK)
    partial = path.with_name(path.name + ".partial")
    check_file(partial, force=True, what="a training's state", is_ours=IS_NETWORK)
    check_apart(path, str(recipe.source))
    if size < 4 or size % 4 or layers < 1:
        raise UsageError(
            f"a network of width {size} and {layers} blocks cannot be built; give a width that is "
            "a multiple of 4, and 1 block or more"
        )
    # The source's own tokenizer: nothing is missing, and all that is wanted is read and checked.
    session = prepare(
        recipe.model_copy(update={"tokenizer": recipe.source, "donor": None, "map": {}}), progress
    )
    context = session.context
    texts = session.calibration_texts
    if texts:
        session.require_forward("--train-text", trains=True)
    fit = StagedFit(
        context,
        60 * minutes,
        size=size,
        layers=layers,
        steps=steps,
        model=session.model if texts else None,
        partial=partial,
        card={"source": Path(str(recipe.source)).name, "text_bytes": sum(map(_n_bytes, texts))},
    )
    network = fit.run()
    network.save(path)
    return network


def _n_bytes(text: str) -> int:
    return len(text.encode("utf-8"))

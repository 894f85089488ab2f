"""What cannot be asked of a source: because of its kind, or because it is larger than memory."""

from __future__ import annotations

from tokensurgeon.checkpoint import Checkpoint
from tokensurgeon.checkpoint.embeddings import CAUSAL, HEADLESS, KIND_WORDS, MASKED
from tokensurgeon.errors import UnsupportedCheckpointError, UsageError
from tokensurgeon.models.device_map import AUTO_DEVICE_MAP
from tokensurgeon.models.memory import available_memory, fits, needed_memory
from tokensurgeon.recipe import Recipe
from tokensurgeon.report import words
from tokensurgeon.vocabulary import Vocabulary


def check_kind(checkpoint: Checkpoint, target: Vocabulary, recipe: Recipe) -> list[str]:
    """Check what depends on the kind of the source and on the target's roles.

    Returns
    -------
    list of str
        Warnings.

    Raises
    ------
    UsageError
        If a model without output rows is to be untied, or to be measured.
    UnsupportedCheckpointError
        If the source counts positions from the id of a token that the target has elsewhere.
    """
    layout = checkpoint.layout
    offset, pad = layout.position_offset, target.roles.get("pad")
    if offset and pad != offset - 1:
        raise UnsupportedCheckpointError(
            f"{layout.family} counts positions from the id of its pad token, {offset - 1}, and the "
            f"target has {'no pad token' if pad is None else f'its pad token at {pad}'}: train one "
            f"with --controls-of {recipe.source} (in a recipe, 'controls: source'), or give one "
            f"whose pad token is id {offset - 1}"
        )
    if layout.kind == HEADLESS:
        if recipe.untie:
            raise UsageError(
                "--untie parts two matrices, and this model has input rows only; leave it out"
            )
        if recipe.text.evaluation:
            raise UsageError("a model without output rows has no loss on a text: leave out --text")
    notes = []
    if layout.unused:
        notes.append(
            f"beside its model the source holds {words.count(len(layout.unused), 'tensor')} that "
            f"it does not use, such as {layout.unused[0]}: kept as it is"
        )
    if layout.kind == MASKED and "mask" not in target.roles:
        notes.append(
            "the target has no mask token, so the encoder can neither fill gaps nor be trained to"
        )
    return notes


def can_run(checkpoint: Checkpoint, recipe: Recipe) -> bool:
    """Say whether a model fits into memory as the recipe has it, or may be spread."""
    return recipe.device == AUTO_DEVICE_MAP or fits(checkpoint, recipe.dtype)


def check_forward(
    checkpoint: Checkpoint,
    recipe: Recipe,
    runs_here: bool,
    name: str,
    *,
    causal: bool = True,
    trains: bool = False,
) -> None:
    """Refuse what runs the source where it cannot be run so.

    Parameters
    ----------
    checkpoint : Checkpoint
        The source.
    recipe : Recipe
    runs_here : bool
        See `can_run`.
    name : str
        What runs it, in the message.
    causal : bool
        Whether only a causal language model can do it.
    trains : bool
        Whether it trains through the model, which one that is spread over devices cannot.

    Raises
    ------
    UsageError
        Saying what, and why not.
    """
    kind = checkpoint.layout.kind
    if causal and kind != CAUSAL:
        raise UsageError(
            f"{name} works on causal language models, and the source is {KIND_WORDS[kind]}: "
            "leave it out"
        )
    if trains and recipe.device == AUTO_DEVICE_MAP:
        raise UsageError(
            f"{name} trains through the model, which --device auto does not allow; name one device"
        )
    if runs_here:
        return
    needed = needed_memory(checkpoint, recipe.dtype) / 2**30
    free = (available_memory() or 0) / 2**30
    raise UsageError(
        f"{name} runs the source, which takes {needed:.1f} GiB as {recipe.dtype}, and "
        f"{free:.1f} GiB are free: leave it out, or give a smaller --dtype"
    )

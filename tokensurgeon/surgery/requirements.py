"""What cannot be asked of a source: because of its kind, or because it is larger than memory."""

from __future__ import annotations

from tokensurgeon.alignment import Alignment
from tokensurgeon.checkpoint import Checkpoint
from tokensurgeon.checkpoint.embeddings import CAUSAL, HEADLESS, KIND_WORDS, MASKED
from tokensurgeon.checkpoint.ids import id_map
from tokensurgeon.errors import UnsupportedCheckpointError, UsageError
from tokensurgeon.handover.facts import check_trainable
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
        If it cannot be handed over to a trainer that the recipe names.
    """
    layout = checkpoint.layout
    check_trainable(checkpoint, recipe.hand_over)
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


def check_pad(checkpoint: Checkpoint, alignment: Alignment, recipe: Recipe) -> None:
    """Check that the pad token stays where the source's positions need it.

    Raises
    ------
    UnsupportedCheckpointError
        If it would move, saying where it has to be.
    """
    layout, target = checkpoint.layout, alignment.target
    if layout.pad_ids is None:
        return
    old = alignment.source.roles.get("pad", layout.pad_ids[0])
    new = target.roles.get("pad", id_map(alignment).get(-1 if old is None else old))
    if new in layout.pad_ids:
        return
    allowed = [i for i in layout.pad_ids if i is not None]
    where, has, remedy = " or ".join(map(str, allowed)), f"its pad token at {new}", ""
    why = f"counts positions from the id of its pad token, {where}"
    if len(layout.pad_ids) > 1:
        why = f"blanks the position whose number is its pad token's id, unless that is {where}"
    if new is None:
        has = "no pad token"
        if old is not None and allowed[0] < len(target.spellings):
            stand_in = f"{target.spellings[allowed[0]]}={alignment.source.spellings[old]}"
            remedy = f", or take another for it: --map '{stand_in}'"
    raise UnsupportedCheckpointError(
        f"{layout.family} {why}, and the target has {has}: train one with --controls-of "
        f"{recipe.source} (in a recipe, 'controls: source'), or give one whose pad token is id "
        f"{where}{remedy}"
    )


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

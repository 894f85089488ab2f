"""What a transformers model says of its vocabulary: its kind, its matrices and all their names.

Parameters are found by identity: an encoder–decoder calls one matrix by three names, an encoder
its output bias by two, and the file may hold any of them. The model may be without memory.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tokensurgeon.checkpoint import transformers_internals as internals
from tokensurgeon.errors import UnsupportedCheckpointError

CAUSAL, MASKED, ENCODER_DECODER, HEADLESS = "causal", "masked", "encoder-decoder", "headless"
KIND_WORDS = {
    CAUSAL: "a causal language model",
    MASKED: "an encoder",
    ENCODER_DECODER: "an encoder–decoder",
    HEADLESS: "a model without output rows",
}
"""The kinds of models, and how a message says them."""

FINAL_BIAS = "final_logits_bias"
"""A buffer of shape (1, n_rows) that BART and its kin add to their logits."""


@dataclass(frozen=True)
class Embeddings:
    """Names in memory of what is vocabulary-shaped.

    Attributes
    ----------
    input, output : str
        The first name of each matrix; one name where the model has no output rows.
    inputs, outputs : tuple of str
        All names.
    biases : mapping of str to int
        Names of output biases, with the axis that counts tokens.
    tied : bool
        Whether the model takes both from one matrix, or has no output rows.
    """

    input: str
    output: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    biases: Mapping[str, int]
    tied: bool


def find_embeddings(model: Any) -> Embeddings:
    """Find the matrices and biases of a model.

    Raises
    ------
    UnsupportedCheckpointError
        If it does not say which its embeddings are, or they are no plain matrices.
    """
    name = type(model).__name__
    try:
        inner, outer = model.get_input_embeddings(), model.get_output_embeddings()
    except (AttributeError, NotImplementedError) as error:
        raise UnsupportedCheckpointError(
            f"{name} does not say which its embeddings are; it is refused rather than guessed"
        ) from error
    sides = [inner] if outer is None else [inner, outer]
    weights = [getattr(side, "weight", None) for side in sides]
    names = [_names(model, weight) for weight in weights]
    if not all(names) or any(weight is None or weight.dim() != 2 for weight in weights):
        raise UnsupportedCheckpointError(
            f"the embeddings of {name} are no plain matrices; it is refused rather than guessed"
        )
    modules = list(model.named_modules(remove_duplicate=False))
    paths = [
        f"{next((path for path, module in modules if module is side), None)}.weight"
        for side in sides
    ]
    tied = weights[0] is weights[-1]
    outputs: tuple[str, ...] = (paths[-1],) if tied else tuple(names[-1])
    if outer is None:
        outputs = ()
    bias = getattr(outer, "bias", None)
    biases = {} if bias is None else dict.fromkeys(_names(model, bias), 0)
    if outer is not None and hasattr(model, FINAL_BIAS):
        biases[FINAL_BIAS] = 1
    inputs = tuple(name for name in names[0] if name not in outputs)
    return Embeddings(paths[0], paths[-1], inputs, outputs, biases, tied)


def _names(model: Any, parameter: Any) -> list[str]:
    """Return every name of a parameter."""
    named = model.named_parameters(remove_duplicate=False)
    return [name for name, other in named if other is parameter]


def kind_of(config: Any, model: Any) -> str:
    """Return the kind of a model, as `Layout.kind` has it."""
    if model.get_output_embeddings() is None:
        return HEADLESS
    if getattr(config, "is_encoder_decoder", False):
        return ENCODER_DECODER
    if type(model).__name__.endswith(("ForMaskedLM", "ForPreTraining")):
        return MASKED
    return CAUSAL


def position_offset(model: Any) -> int:
    """Return how many first positions no token gets: in RoBERTa, those up to the pad id."""
    tables = (module for module in _with_pad(model) if _is_position_table(model, module))
    return next((int(module.padding_idx) + 1 for module in tables), 0)


def pad_ids(model: Any) -> tuple[int | None, ...] | None:
    """Return the ids at which the pad token may be, or None where it may be anywhere.

    RoBERTa, M2M100 and others count positions from the pad id, so that it has to stay. In XGLM the
    fixed position of that number is zero, which is harmless for the first few, which no token gets.
    """
    allowed: tuple[int | None, ...] | None = None
    for module in _with_pad(model):
        counts = _COUNTING & {*dir(type(module)), *vars(sys.modules[type(module).__module__])}
        has_table = hasattr(module, "get_embedding") or hasattr(module, "position_embeddings")
        if (counts and has_table) or _is_position_table(model, module):
            return (int(module.padding_idx),)
        if hasattr(module, "get_embedding") and isinstance(getattr(module, "offset", None), int):
            allowed = (None, *range(module.offset))
    return allowed


_COUNTING = {"create_position_ids_from_input_ids", "make_positions"}
"""How transformers calls what counts positions from the pad id, in a class or beside it."""


def _with_pad(model: Any) -> Iterator[Any]:
    """Yield the modules that know the pad id, but for the input embeddings."""
    inner = model.get_input_embeddings()
    for module in model.modules():
        is_input = module is inner or getattr(module, "weight", inner) is inner.weight
        if not is_input and isinstance(getattr(module, "padding_idx", None), int):
            yield module


def _is_position_table(model: Any, module: Any) -> bool:
    """Tell a learned table of positions; one that knows the pad id counts from it."""
    from torch import nn

    size = getattr(model.config, "max_position_embeddings", None)
    return isinstance(module, nn.Embedding) and module.num_embeddings == size


def check_architecture(config: Any, model: Any) -> None:
    """Refuse a checkpoint of a class that transformers does not have.

    Raises
    ------
    UnsupportedCheckpointError
    """
    name = internals.declared(config)
    if name and type(model).__name__ != name and not name.endswith(internals.CAUSAL_SUFFIXES):
        raise UnsupportedCheckpointError(
            f"the architecture {name[:80]} is not one that transformers has, and no causal "
            "language model; it is refused"
        )

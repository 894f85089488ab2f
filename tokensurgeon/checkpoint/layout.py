"""Which tensors of a checkpoint are vocabulary-shaped, proven rather than guessed.

The model is built without memory from its configuration; its input and output embeddings are found
by identity, and the file's keys are mapped to them. Every other tensor that has a dimension of the
same size must be shown to be something else, or the checkpoint is refused by the tensor's name.
Whether the two sides are tied is read from the tensors, not from the flag.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tokensurgeon.checkpoint import transformers_internals as internals
from tokensurgeon.checkpoint.embeddings import (
    CAUSAL,
    Embeddings,
    check_architecture,
    find_embeddings,
    kind_of,
    pad_ids,
    position_offset,
)
from tokensurgeon.checkpoint.files import TensorFolder
from tokensurgeon.checkpoint.fit import GIVE_OTHER, check_fit
from tokensurgeon.checkpoint.ids import VOCABULARY_SIZES
from tokensurgeon.checkpoint.tensor_file import FLOAT_DTYPES
from tokensurgeon.errors import CheckpointError, UnsupportedCheckpointError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Layout:
    """Which tensors are vocabulary-shaped.

    Attributes
    ----------
    input_names, output_names : tuple of str
        File keys of the input and output rows. While tied, one of the two may be empty.
    bias_names : tuple of (str, int)
        File keys of output biases, with the axis that counts tokens.
    n_rows, width : int
        Shape of the rows.
    tied : bool
        Whether both sides are one matrix, by its bytes.
    tied_flag : bool
        What the configuration says of it.
    input_key, head_key : str
        The file keys that separate input and output matrices have, or would have.
    embedding_multiplier, logit_scale : float
        Constants that the model applies to its input rows and to its logits.
    softcap : float or None
        Final logits pass through softcap * tanh(logits / softcap).
    family : str
        The configuration's model type.
    kind : str
        ``"causal"``, ``"masked"`` (an encoder that fills gaps), ``"encoder-decoder"``, or
        ``"headless"`` (no output rows: a body, or a classifier).
    flag_scales : bool
        Whether the flag of tying also scales the logits, as in T5: it is never turned then.
    untied_inputs, untied_biases : tuple of str
        File keys of the input matrix and of the bias, where the model takes them from one place
        only while it is tied.
    position_offset : int
        Positions that no token gets because the model counts from its pad id, itself the last.
    unused : tuple of str
        File keys of what stands beside the model: it has no use for them, and computes the same.
    pad_ids : tuple of int or None, or None
        Where the pad token may be without a change of the positions; None for anywhere.
    """

    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    bias_names: tuple[tuple[str, int], ...]
    n_rows: int
    width: int
    tied: bool
    embedding_multiplier: float
    softcap: float | None
    family: str
    tied_flag: bool = False
    input_key: str = "model.embed_tokens.weight"
    head_key: str = "lm_head.weight"
    logit_scale: float = 1.0
    kind: str = CAUSAL
    position_offset: int = 0
    pad_ids: tuple[int | None, ...] | None = None
    flag_scales: bool = False
    untied_inputs: tuple[str, ...] = ()
    untied_biases: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()

    @property
    def rows_key(self) -> str:
        """A file key that holds the input rows."""
        return (self.input_names or self.output_names)[0]

    @property
    def names(self) -> tuple[str, ...]:
        """Every vocabulary-shaped file key."""
        return (*self.input_names, *self.output_names, *(name for name, _ in self.bias_names))


def find_layout(
    config: Any, tensors: TensorFolder, *, trust_remote_code: bool = False, partial: bool = False
) -> Layout:
    """Find the vocabulary-shaped tensors of a checkpoint.

    Parameters
    ----------
    config
        transformers' configuration object.
    tensors : TensorFolder
        Headers of the checkpoint's files.
    trust_remote_code : bool
    partial : bool
        Whether the rest of the model may be absent (a donor of rows only).

    Raises
    ------
    UnsupportedCheckpointError
        Naming a tensor that has the vocabulary's size and is not understood, or an architecture
        that transformers does not have.
    CheckpointError
        Where rows are missing or contradict the configuration, or where the rest of the files does
        (see `fit.check_fit`).
    """
    model = internals.skeleton(config, trust_remote_code=trust_remote_code)
    check_architecture(config, model)
    sides = find_embeddings(model)
    names = internals.loaded_names(model, tensors.where)
    mapped = names.one
    input_names = [key for key, name in mapped.items() if name in sides.inputs]
    output_names = [key for key, name in mapped.items() if name in sides.outputs]
    bias_names = [key for key, name in mapped.items() if name in sides.biases]
    if not input_names and not (sides.tied and output_names):
        raise CheckpointError(
            f"the files lack the input rows ({sides.input}); download them again, or give the "
            "config.json that was saved with them"
        )
    if not output_names and not sides.tied:
        raise CheckpointError(
            f"the files lack the output rows ({sides.output}), and config.json says that they are "
            "not tied to the input rows; download the files again, or set tie_word_embeddings to "
            "true if they are tied"
        )
    if sides.biases and not bias_names and not partial:
        raise CheckpointError(
            f"the files lack the output bias ({next(iter(sides.biases))}); download them again, or "
            "give the config.json that was saved with them"
        )
    tied = _tied(tensors, input_names, output_names)
    axes = {key: sides.biases[mapped[key]] for key in bias_names}
    n_rows, width = _shape(config, tensors, (*input_names, *output_names), axes)
    _refuse_tables(mapped, {*input_names, *output_names})
    claimed = {*input_names, *output_names, *axes}
    for key in _unclaimed(config, model, tensors, mapped, claimed, n_rows, trust_remote_code):
        _claim_copy(tensors, key, input_names, output_names, axes, n_rows)
    claimed = {*input_names, *output_names, *axes}
    unused = () if partial else check_fit(model, tensors, names, claimed)
    text = config.get_text_config()
    parted = _parted(config, model, sides, trust_remote_code)
    return Layout(
        input_names=tuple(input_names),
        output_names=tuple(output_names),
        bias_names=tuple(axes.items()),
        n_rows=n_rows,
        width=width,
        tied=tied,
        tied_flag=sides.tied,
        input_key=input_names[0] if input_names else internals.file_key(model, sides.input),
        head_key=output_names[0] if output_names else internals.file_key(model, sides.output),
        embedding_multiplier=_embedding_multiplier(text, model),
        logit_scale=_logit_scale(text),
        softcap=_positive(text, "final_logit_softcapping"),
        family=str(config.model_type),
        kind=kind_of(config, model),
        position_offset=position_offset(model),
        pad_ids=pad_ids(model),
        flag_scales=hasattr(config, "scale_decoder_outputs"),
        untied_inputs=tuple(parted[0]),
        untied_biases=tuple(parted[1]),
        unused=unused,
    )


def _parted(config: Any, model: nn.Module, sides: Embeddings, trusted: bool) -> list[list[str]]:
    """Return the file keys of input rows, and of biases, that are one tensor only while tied."""
    groups = [tuple(sides.inputs), tuple(sides.biases)]
    if not sides.tied or max(map(len, groups)) < 2:
        return [[], []]
    other = copy.deepcopy(config)
    other.tie_word_embeddings = other.get_text_config().tie_word_embeddings = False
    untied = find_embeddings(internals.skeleton(other, trust_remote_code=trusted))
    return [
        [] if set(group) <= set(still) else [internals.file_key(model, name) for name in group]
        for group, still in zip(groups, (untied.inputs, untied.biases), strict=True)
    ]


def _tied(tensors: TensorFolder, inputs: Sequence[str], outputs: Sequence[str]) -> bool:
    """Decide from the bytes; several keys of one side must be copies of each other."""
    for names in (inputs, outputs):
        for other in names[1:]:
            if not tensors.same(names[0], other):
                raise UnsupportedCheckpointError(
                    f"{names[0]} and {other} are one tensor to the model and differ in the file; "
                    "save the model again with transformers"
                )
    return not inputs or not outputs or tensors.same(inputs[0], outputs[0])


def _shape(
    config: Any, tensors: TensorFolder, names: tuple[str, ...], biases: Mapping[str, int]
) -> tuple[int, int]:
    shape = tensors.info(names[0]).shape
    for name in (*names, *biases):
        info = tensors.info(name)
        if info.dtype not in FLOAT_DTYPES:
            raise UnsupportedCheckpointError(
                f"{name} has the dtype {info.dtype}, and only plain float rows can be patched; "
                "give the unquantised checkpoint"
            )
        # Counted along the second axis, the first has one entry.
        expected = (1,) * biases[name] + shape[:1] if name in biases else shape
        if len(shape) != 2 or info.shape != expected or 0 in shape:
            raise UnsupportedCheckpointError(
                f"{name} has the shape {list(info.shape)} where {list(expected)} was expected; "
                "it is refused rather than guessed"
            )
    said = getattr(config.get_text_config(), "vocab_size", None)
    if said != shape[0]:
        raise CheckpointError(
            f"{names[0]} has {shape[0]} rows, but config.json says vocab_size {said}; "
            f"set vocab_size to {shape[0]}, or {GIVE_OTHER}"
        )
    return shape[0], shape[1]


def _refuse_tables(mapped: Mapping[str, str], claimed: set[str]) -> None:
    """Refuse further tables that are read by token id, whatever their size."""
    for key, name in mapped.items():
        if key not in claimed and re.search(_PER_LAYER_TABLE, name):
            raise UnsupportedCheckpointError(
                f"the tensor {key} has rows of its own for every token, besides the input rows; "
                "this checkpoint is refused, for new tokens would have none"
            )


def _unclaimed(
    config: Any,
    model: nn.Module,
    tensors: TensorFolder,
    mapped: Mapping[str, str],
    claimed: set[str],
    n_rows: int,
    trust_remote_code: bool,
) -> list[str]:
    """Return the tensors of the vocabulary's size that nothing shows to be something else.

    A dimension may equal the number of rows by chance (positions, a wide layer). So the model is
    built once more with one row more: what keeps its shape is not vocabulary-shaped.
    """
    suspects = [
        key for key in tensors.where if key not in claimed and n_rows in tensors.info(key).shape
    ]
    if not suspects:
        return []
    grown = copy.deepcopy(config)
    for name in VOCABULARY_SIZES:
        if getattr(grown.get_text_config(), name, None) == n_rows:
            setattr(grown.get_text_config(), name, n_rows + 1)
    old = model.state_dict()
    new = internals.skeleton(grown, trust_remote_code=trust_remote_code).state_dict()

    def stays(name: str) -> bool:
        return name in old and name in new and old[name].shape == new[name].shape

    return [key for key in suspects if not stays(mapped[key])]


def _claim_copy(
    tensors: TensorFolder,
    key: str,
    inputs: list[str],
    outputs: list[str],
    biases: dict[str, int],
    n_rows: int,
) -> None:
    """Count a tensor among the sides that it is a copy of, to the byte, or refuse it.

    Files of models that predict several tokens hold such copies beside what the model loads, and
    encoders a second bias.
    """
    if biases and key.endswith(".bias") and tensors.info(key).shape == (n_rows,):
        biases[key] = 0
        return
    for names in (inputs, outputs):
        if names and tensors.same(names[0], key):
            names.append(key)
            return
    raise UnsupportedCheckpointError(
        f"the tensor {key} of shape {list(tensors.info(key).shape)} has the vocabulary's "
        f"{n_rows} rows and is not understood; this checkpoint is refused rather than guessed"
    )


_PER_LAYER_TABLE = r"embed_tokens_per_layer\.weight$"
"""Gemma 3n and 4 read a second table by token id, which may have a size of its own."""


def _embedding_multiplier(text: Any, model: Any) -> float:
    """Return what the model multiplies its input rows by (Gemma, Granite, MiniCPM, …)."""
    module = model.get_input_embeddings()
    values = [getattr(module, name, None) for name in ("scalar_embed_scale", "embed_scale")]
    values += [getattr(text, name, None) for name in ("embedding_multiplier", "scale_emb")]
    return next((float(value) for value in values if isinstance(value, (int, float))), 1.0)


def _logit_scale(text: Any) -> float:
    """Return what the model multiplies its logits by, where its configuration says so."""
    divisor = _positive(text, "logits_scaling")
    if divisor is not None:
        return 1.0 / divisor
    return _positive(text, "logit_scale") or _positive(text, "lm_head_multiplier") or 1.0


def _positive(text: Any, name: str) -> float | None:
    value = getattr(text, name, None)
    return float(value) if isinstance(value, (int, float)) and value > 0 else None

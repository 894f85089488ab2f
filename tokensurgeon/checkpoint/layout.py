"""Which tensors of a checkpoint are vocabulary-shaped, proven rather than guessed.

The model is built without memory from its configuration; its input and output embeddings are found
by identity, and the file's keys are mapped to them. Every other tensor that has a dimension of the
same size must be shown to be something else, or the checkpoint is refused by the tensor's name.
Whether the two sides are tied is read from the tensors, not from the flag.
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tokensurgeon.checkpoint import transformers_internals as internals
from tokensurgeon.checkpoint.files import TensorFolder
from tokensurgeon.checkpoint.tensor_file import FLOATS, same_bytes
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
    partial : bool
        Whether the rest of the model may be absent (a donor of rows only).

    Raises
    ------
    UnsupportedCheckpointError
        Naming a tensor that has the vocabulary's size and is not understood, or an architecture
        that is no causal language model.
    CheckpointError
        Where rows are missing or contradict the configuration.
    """
    model = internals.skeleton(config, trust_remote_code=trust_remote_code)
    _check_architecture(config, model)
    input_name, output_name, bias_name = _embedding_names(model)
    mapped = internals.module_names(model, tensors.where)
    input_names = tuple(key for key, name in mapped.items() if name == input_name)
    output_names = tuple(key for key, name in mapped.items() if name == output_name)
    bias_names = tuple(key for key, name in mapped.items() if name == bias_name and bias_name)
    tied_flag = _parameter(model, output_name) is _parameter(model, input_name)
    if not input_names and not (tied_flag and output_names):
        raise CheckpointError(f"the checkpoint lacks its input rows ({input_name})")
    if not output_names and not tied_flag:
        raise CheckpointError(
            f"the checkpoint lacks its output rows ({output_name}), and its configuration says "
            "that they are not tied to the input rows"
        )
    if bias_name and not bias_names and not partial:
        raise CheckpointError(f"the checkpoint lacks its output bias ({bias_name})")
    tied = _tied(tensors, input_names, output_names)
    n_rows, width = _shape(config, tensors, (*input_names, *output_names), bias_names)
    claimed = {*input_names, *output_names, *bias_names}
    _refuse_unclaimed(config, model, tensors, mapped, claimed, n_rows, trust_remote_code)
    text = config.get_text_config()
    return Layout(
        input_names=input_names,
        output_names=output_names,
        bias_names=tuple((name, 0) for name in bias_names),
        n_rows=n_rows,
        width=width,
        tied=tied,
        tied_flag=tied_flag,
        input_key=input_names[0] if input_names else internals.file_key(model, input_name),
        head_key=output_names[0] if output_names else internals.file_key(model, output_name),
        embedding_multiplier=_embedding_multiplier(text, model),
        logit_scale=_logit_scale(text),
        softcap=_positive(getattr(text, "final_logit_softcapping", None)),
        family=str(config.model_type),
    )


def _check_architecture(config: Any, model: nn.Module) -> None:
    told = getattr(config, "architectures", None)
    named = told if isinstance(told, list) else [told] if told else []
    allowed = ("ForCausalLM", "LMHeadModel")
    if named and type(model).__name__ not in named and not str(named[0]).endswith(allowed):
        raise UnsupportedCheckpointError(
            f"the architecture {str(named[0])[:80]} is not a causal language model; "
            "only causal language models can be patched"
        )
    if getattr(config, "is_encoder_decoder", False):
        raise UnsupportedCheckpointError(
            f"{type(model).__name__} is an encoder-decoder; only causal language models are patched"
        )


def _parameter(model: nn.Module, name: str) -> Any:
    module, _, leaf = name.rpartition(".")
    return getattr(model.get_submodule(module), leaf)


def _path_of(model: nn.Module, wanted: Any) -> str | None:
    return next(
        (path for path, m in model.named_modules(remove_duplicate=False) if m is wanted), None
    )


def _embedding_names(model: nn.Module) -> tuple[str, str, str | None]:
    """Return the names in memory of input rows, output rows, and output bias or None."""
    source: Any = model
    try:
        inner, outer = source.get_input_embeddings(), source.get_output_embeddings()
    except (AttributeError, NotImplementedError) as error:
        raise UnsupportedCheckpointError(
            f"{type(model).__name__} does not say which its embeddings are"
        ) from error
    paths = (_path_of(model, inner), _path_of(model, outer))
    weights = (getattr(inner, "weight", None), getattr(outer, "weight", None))
    if None in paths or any(weight is None or weight.dim() != 2 for weight in weights):
        raise UnsupportedCheckpointError(
            f"the embeddings of {type(model).__name__} are no plain matrices"
        )
    bias = f"{paths[1]}.bias" if getattr(outer, "bias", None) is not None else None
    return f"{paths[0]}.weight", f"{paths[1]}.weight", bias


def _tied(tensors: TensorFolder, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> bool:
    """Decide from the bytes; several keys of one side must be copies of each other."""

    def equal(a: str, b: str) -> bool:
        return same_bytes(tensors.file_of(a), a, tensors.file_of(b), b)

    for names in (inputs, outputs):
        for other in names[1:]:
            if not equal(names[0], other):
                raise UnsupportedCheckpointError(
                    f"{names[0]} and {other} are one tensor to the model but differ in the file"
                )
    return not inputs or not outputs or equal(inputs[0], outputs[0])


def _shape(
    config: Any, tensors: TensorFolder, names: tuple[str, ...], biases: tuple[str, ...]
) -> tuple[int, int]:
    shape = tensors.info(names[0]).shape
    for name in (*names, *biases):
        info = tensors.info(name)
        if info.dtype not in FLOATS:
            raise UnsupportedCheckpointError(
                f"{name} has the dtype {info.dtype}; only plain float rows can be patched"
            )
        expected = shape[:1] if name in biases else shape
        if len(shape) != 2 or info.shape != expected or 0 in shape:
            raise UnsupportedCheckpointError(
                f"{name} has the shape {list(info.shape)} where {list(expected)} was expected"
            )
    said = getattr(config.get_text_config(), "vocab_size", None)
    if said != shape[0]:
        raise CheckpointError(
            f"{names[0]} has {shape[0]} rows, but config.json says vocab_size {said}; "
            "correct the configuration"
        )
    return shape[0], shape[1]


def _refuse_unclaimed(
    config: Any,
    model: nn.Module,
    tensors: TensorFolder,
    mapped: dict[str, str],
    claimed: set[str],
    n_rows: int,
    trust_remote_code: bool,
) -> None:
    """Refuse tensors of the vocabulary's size, unless the model shows that they are not its rows.

    Further tables that are read by token id are refused whatever their size.

    A dimension may equal the number of rows by chance (positions, a wide layer). So the model is
    built once more with one row more: what keeps its shape is not vocabulary-shaped.
    """
    for key, name in mapped.items():
        if key not in claimed and re.search(_PER_LAYER_TABLE, name):
            raise UnsupportedCheckpointError(
                f"the tensor {key} has rows of its own for every token, besides the input rows; "
                "this checkpoint is refused, for new tokens would have none"
            )
    suspects = [
        key for key in tensors.where if key not in claimed and n_rows in tensors.info(key).shape
    ]
    if not suspects:
        return
    grown = copy.deepcopy(config)
    grown.get_text_config().vocab_size = n_rows + 1
    other = internals.skeleton(grown, trust_remote_code=trust_remote_code).state_dict()
    here = model.state_dict()
    ignored = internals.ignored_patterns(model)
    for key in suspects:
        name = mapped[key]
        if name in here and name in other and here[name].shape == other[name].shape:
            continue
        if name not in here and any(re.search(pattern, key) for pattern in ignored):
            continue
        raise UnsupportedCheckpointError(
            f"the tensor {key} of shape {list(tensors.info(key).shape)} has the vocabulary's "
            f"{n_rows} rows and is not understood; this checkpoint is refused rather than guessed"
        )


_PER_LAYER_TABLE = r"embed_tokens_per_layer\.weight$"
"""Gemma 3n and 4 read a second table by token id, which may have a size of its own."""


def _embedding_multiplier(text: Any, model: nn.Module) -> float:
    """Return what the model multiplies its input rows by (Gemma, Granite, MiniCPM, …)."""
    source: Any = model
    module = source.get_input_embeddings()
    for name in ("scalar_embed_scale", "embed_scale"):
        value = getattr(module, name, None)
        if isinstance(value, (int, float)):
            return float(value)
    for name in ("embedding_multiplier", "scale_emb"):
        value = getattr(text, name, None)
        if isinstance(value, (int, float)):
            return float(value)
    return 1.0


def _logit_scale(text: Any) -> float:
    """Return what the model multiplies its logits by, where its configuration says so."""
    divisor = _positive(getattr(text, "logits_scaling", None))
    if divisor is not None:
        return 1.0 / divisor
    for name in ("logit_scale", "lm_head_multiplier"):
        value = _positive(getattr(text, name, None))
        if value is not None:
            return value
    return 1.0


def _positive(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and value > 0 else None

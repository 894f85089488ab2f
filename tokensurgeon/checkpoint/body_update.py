"""A low-rank change of the body that is merged into its weights: the result has no adapter.

An update is data. Which weights of a checkpoint can take one is read from its model and its files:
linear weights that are stored as the model holds them. What transformers transposes, fuses or
splits while it loads a file cannot be merged into that file, and is left alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tokensurgeon.arrays import Float32
from tokensurgeon.checkpoint import transformers_internals as internals
from tokensurgeon.checkpoint.checkpoint import Checkpoint, round_rows
from tokensurgeon.checkpoint.tensor_file import FLOAT_DTYPES
from tokensurgeon.errors import CheckpointError

Factors = tuple[Float32, Float32]


@dataclass(frozen=True, eq=False)
class BodyUpdate:
    """What is added to some linear weights of the body: W becomes W + A·B.

    Two updates are equal where they are one object; no array is ever changed in place.

    Attributes
    ----------
    factors : mapping of str to (float32 (out, rank), float32 (rank, in))
        A and B by the name of the weight, as in `model.named_parameters()`.
    dtypes : mapping of str to str
        What the merged weights are rounded to, as torch names it: the dtypes of the files, see
        `as_stored`. Other weights stay float32.

    Examples
    --------
    >>> a, b = np.ones((2, 1), np.float32), np.array([[1, 2, 3]], np.float32)
    >>> update = BodyUpdate({"proj.weight": (a, b)})
    >>> update.merged("proj.weight", np.zeros((2, 3), np.float32)).tolist()
    [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]
    >>> update.rank, update.n_numbers
    (1, 5)
    """

    factors: Mapping[str, Factors]
    dtypes: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """The weights that change."""
        return tuple(self.factors)

    @property
    def rank(self) -> int:
        """The largest rank of any of its products."""
        return max((a.shape[1] for a, _ in self.factors.values()), default=0)

    @property
    def n_numbers(self) -> int:
        """Numbers of all factors."""
        return sum(a.size + b.size for a, b in self.factors.values())

    def scaled(self, share: float) -> BodyUpdate:
        """Return the update that goes `share` of the way."""
        return replace(
            self,
            factors={name: (np.float32(share) * a, b) for name, (a, b) in self.factors.items()},
        )

    def plus(self, other: BodyUpdate) -> BodyUpdate:
        """Return the update that does both; where both change a weight, its ranks add up."""
        factors = dict(self.factors)
        for name, (a, b) in other.factors.items():
            if name in factors:
                first, second = factors[name]
                a, b = np.concatenate([first, a], axis=1), np.concatenate([second, b])
            factors[name] = a, b
        return BodyUpdate(factors, {**self.dtypes, **other.dtypes})

    def merged(self, name: str, weight: Float32) -> Float32:
        """Return a weight with its change, in float32 arithmetic, then rounded.

        Parameters
        ----------
        name : str
            One of `names`.
        weight : float32 (out, in)
            Not changed.

        Raises
        ------
        CheckpointError
            If the shapes do not fit.
        """
        a, b = self.factors[name]
        if a.shape[1] != b.shape[0] or weight.shape != (a.shape[0], b.shape[1]):
            raise CheckpointError(
                f"the update of {name} is {a.shape} times {b.shape}, and the weight has the shape "
                f"{weight.shape}: it is of another model"
            )
        new: Float32 = weight + a @ b
        return round_rows(new, self.dtypes[name]) if name in self.dtypes else new

    def to_arrays(self) -> dict[str, Float32]:
        """Return the factors as a file names them: ``A:`` or ``B:`` and the weight's name."""
        return {
            f"{side}:{name}": np.ascontiguousarray(factor)
            for name, factors in self.factors.items()
            for side, factor in zip("AB", factors, strict=True)
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> BodyUpdate:
        """Return the update whose `to_arrays` are given."""
        names = [key.removeprefix("A:") for key in arrays if key.startswith("A:")]
        return cls({name: (arrays[f"A:{name}"], arrays[f"B:{name}"]) for name in names})


def changeable_weights(checkpoint: Checkpoint) -> dict[str, str]:
    """Return the weights that an update can be merged into: parameter name to file key.

    They are the weights of linear layers that are in the files under one key, in the shape that
    the model has, and hold no vocabulary rows. The model is built without memory.
    """
    from torch import nn

    trusted = checkpoint.trust_remote_code
    config = internals.load_config(checkpoint.path, trust_remote_code=trusted)
    model = internals.skeleton(config, trust_remote_code=trusted)
    parameters = dict(model.named_parameters())
    modules = model.named_modules()
    linear = {f"{name}.weight" for name, one in modules if isinstance(one, nn.Linear)}
    keys: dict[str, list[str]] = {}
    for key, name in internals.unconverted_names(model, checkpoint.tensors.where).items():
        keys.setdefault(name, []).append(key)
    found = {}
    for name, stored in keys.items():
        info = checkpoint.tensors.info(stored[0])
        if (
            name in linear
            and name in parameters
            and len(stored) == 1
            and stored[0] not in checkpoint.layout.names
            and info.dtype in FLOAT_DTYPES
            and info.shape == tuple(parameters[name].shape)
        ):
            found[name] = stored[0]
    return found


def stored_keys(checkpoint: Checkpoint, update: BodyUpdate) -> dict[str, str]:
    """Return the file key of each weight of an update, by its parameter name.

    Raises
    ------
    CheckpointError
        If the checkpoint has no such weight that can be changed, or one of another shape.
    """
    known = changeable_weights(checkpoint)
    for name, (a, b) in update.factors.items():
        if name not in known:
            raise CheckpointError(
                f"the update changes {name}, which {checkpoint.path} does not store as a linear "
                f"weight of that name; {len(known)} of its weights can be changed"
            )
        shape = checkpoint.tensors.info(known[name]).shape
        if shape != (a.shape[0], b.shape[1]):
            raise CheckpointError(
                f"the update of {name} has the shape {(a.shape[0], b.shape[1])}, and "
                f"{checkpoint.path} has it as {shape}: it is of another model"
            )
    return {name: known[name] for name in update.names}


def as_stored(checkpoint: Checkpoint, update: BodyUpdate) -> BodyUpdate:
    """Return the update whose merged weights are rounded to the dtypes of a checkpoint's files.

    Raises
    ------
    CheckpointError
        As `stored_keys`.
    """
    keys = stored_keys(checkpoint, update)
    dtypes = {name: FLOAT_DTYPES[checkpoint.tensors.info(key).dtype] for name, key in keys.items()}
    return replace(update, dtypes=dtypes)

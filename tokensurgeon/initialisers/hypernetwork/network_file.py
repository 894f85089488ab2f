"""A trained network in one safetensors file, and what may use it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tokensurgeon.arrays import Float32, Ids
from tokensurgeon.errors import InitialiserError, reading
from tokensurgeon.initialisers.contract import InitContext
from tokensurgeon.initialisers.numerics.composer import FittedComposer, Whitening, finite
from tokensurgeon.initialisers.numerics.regression import Ridge
from tokensurgeon.outputs import write_whole
from tokensurgeon.outputs.own_tensors import read_own_tensors

FORMAT = "tokensurgeon-hypernetwork-1"
AGAIN = "train it again with tokensurgeon hypernet train"
"""What helps where a file is damaged."""
SKETCHED = 256
"""Rows that are kept to know the source by: enough for a correlation, too few to weigh."""
LEAST_LIKENESS = 0.5
"""Correlation of these rows below which a model is no variant of the source: unrelated rows do not
correlate, and fine-tuning moves rows little."""

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Hypernet:
    """What was trained for a source.

    Attributes
    ----------
    sides : tuple of FittedComposer
        One where the source has one matrix.
    network : dict of str to float32 arrays, or None
        None where the ridge composer was the better stage of the fit.
    size, layers : int
        Of the network.
    vocabulary : str
        Fingerprint of the source's vocabulary.
    sketch_ids : int64 (≤ 256,)
    sketches : tuple of float32 (≤ 256, width)
        Some of the source's own rows, of each matrix.
    card : dict
        What it was trained on, and its figures; ``rungs`` are the stages of the fit.
    """

    sides: tuple[FittedComposer, ...]
    network: Arrays | None
    size: int
    layers: int
    vocabulary: str
    sketch_ids: Ids
    sketches: tuple[Float32, ...]
    card: dict[str, Any] = field(default_factory=dict)

    def check(self, context: InitContext) -> None:
        """Refuse a source that the network was not trained for.

        A fine-tuned variant passes: its rows are near those that the network has seen.

        Raises
        ------
        InitialiserError
            If the vocabulary, the shape or the rows are another model's.
        """
        rows = matrices_of(context)
        width = self.sides[0].whitening.mean.shape[0]
        if context.source.fingerprint != self.vocabulary:
            raise InitialiserError(
                "this hypernetwork was trained for a source with another vocabulary: train one "
                "with tokensurgeon hypernet train"
            )
        if (len(self.sides), width) != (len(rows), context.width):
            raise InitialiserError(
                f"this hypernetwork makes rows for {len(self.sides)} matrices of width {width}; "
                f"the source has {len(rows)} of width {context.width}; give --untie to both "
                "commands or to neither"
            )
        for kept, own in zip(self.sketches, rows, strict=True):
            likeness = _correlation(kept, finite(own)[self.sketch_ids])
            if likeness < LEAST_LIKENESS:
                raise InitialiserError(
                    f"this hypernetwork was trained for another model: its rows and the source's "
                    f"correlate by {likeness:.2f}, and a fine-tuned variant's would by "
                    f"{LEAST_LIKENESS} and more; train one for it"
                )

    def save(self, path: Path, extra: Arrays | None = None) -> None:
        """Write the file, whole or not at all; `extra` arrays are a training's state."""
        from safetensors.numpy import save

        tensors: Arrays = {"sketch.ids": self.sketch_ids, **(extra or {})}
        for i, (side, sketch) in enumerate(zip(self.sides, self.sketches, strict=True)):
            tensors |= {
                f"side.{i}.mean": side.whitening.mean,
                f"side.{i}.turn": side.whitening.turn,
                f"side.{i}.coefficients": side.linear.coefficients.astype(np.float32),
                f"side.{i}.intercept": side.linear.intercept.astype(np.float32),
                f"side.{i}.sketch": sketch,
            }
        tensors |= {f"network.{name}": value for name, value in (self.network or {}).items()}
        facts = {
            "vocabulary": self.vocabulary,
            "size": self.size,
            "layers": self.layers,
            "sides": [
                {"penalty": s.linear.penalty, "explained": s.linear.explained, "alpha": s.alpha}
                for s in self.sides
            ],
            "card": self.card,
        }
        data = save(
            {name: np.ascontiguousarray(value) for name, value in tensors.items()},
            metadata={"format": FORMAT, "facts": json.dumps(facts)},
        )
        write_whole(path, data)

    @classmethod
    def load(cls, path: str | Path) -> tuple[Hypernet, Arrays]:
        """Read a file; returns what else it holds, the state of a training, beside it.

        Raises
        ------
        InitialiserError
            If there is no such file, or it is none of ours.
        """
        path = Path(path).expanduser()
        if not path.is_file():
            raise InitialiserError(
                f"no hypernetwork {path}; train one with tokensurgeon hypernet train SOURCE -o "
                f"{path.name}"
            )
        with reading(path, AGAIN, InitialiserError):
            found = read_own_tensors(path, FORMAT, "numpy")
            if found is None:
                raise InitialiserError(
                    f"{path} is not a hypernetwork of this version; train one with tokensurgeon "
                    "hypernet train"
                )
            facts, tensors = found
            network = {
                name.removeprefix("network."): value
                for name, value in tensors.items()
                if name.startswith("network.")
            }
            sides = tuple(
                FittedComposer(
                    Whitening(tensors[f"side.{i}.mean"], tensors[f"side.{i}.turn"]),
                    Ridge(
                        tensors[f"side.{i}.coefficients"].astype(np.float64),
                        tensors[f"side.{i}.intercept"].astype(np.float64),
                        float(side["penalty"]),
                        float(side["explained"]),
                    ),
                    float(side["alpha"]),
                )
                for i, side in enumerate(facts["sides"])
            )
            hypernet = cls(
                sides,
                network or None,
                int(facts["size"]),
                int(facts["layers"]),
                str(facts["vocabulary"]),
                tensors["sketch.ids"],
                tuple(tensors[f"side.{i}.sketch"] for i in range(len(sides))),
                facts["card"],
            )
        known = ("side.", "network.", "sketch.")
        return hypernet, {n: v for n, v in tensors.items() if not n.startswith(known)}


def matrices_of(context: InitContext) -> list[Float32]:
    """Return the source's matrices, one for each that the patched checkpoint has."""
    return [context.output_rows] if context.tied else [context.input_rows, context.output_rows]


def sketch(context: InitContext) -> tuple[Ids, tuple[Float32, ...]]:
    """Return ids of some trained rows, and these rows of each matrix."""
    ids = np.flatnonzero(context.anchors)
    ids = ids[np.linspace(0, len(ids) - 1, min(SKETCHED, len(ids))).astype(np.int64)]
    return ids, tuple(finite(rows)[ids].copy() for rows in matrices_of(context))


def _correlation(one: Float32, other: Float32) -> float:
    a, b = (rows - rows.mean(axis=0) for rows in (one.astype(np.float64), other))
    return float((a * b).sum() / max(1e-30, np.sqrt((a**2).sum() * (b**2).sum())))

"""What is compared: a method is written ``INPUT/OUTPUT+calibration+heal=MINUTES``.

``omp`` makes both sides, ``hidden-residual/subword-mean`` one each, ``auto`` measures and
chooses, ``default`` is what stands in where nothing is measured; ``+calibration`` fits the rows to
the calibration text afterwards, ``+heal=5`` trains them for five minutes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from dataclasses import dataclass

import numpy as np

from tokensurgeon.calibration.contract import blocks
from tokensurgeon.errors import SettingError
from tokensurgeon.surgery.calibrate import calibrated, healed_later
from tokensurgeon.surgery.choose import choose
from tokensurgeon.surgery.chosen_methods import chosen_methods, default_methods, wants_auto
from tokensurgeon.surgery.prepare import Operation
from tokensurgeon.surgery.rows import (
    ALIAS,
    CONTROL,
    PADDING,
    UNSPELLABLE,
    PatchedRows,
    patch_rows,
)

METHODS = ("mean", "subword-mean", "subword-ends", "subword-shrunk", "hidden-residual", "omp")
"""What is compared where nobody says: floors, the plain family, and what learns from the pair."""

DEFAULT = "default"
"""Stands for the initialisers of the pair where nothing is measured (`default_methods`)."""

FLOORS = (UNSPELLABLE, CONTROL, PADDING, ALIAS)
"""Origins of rows that no method makes."""


@dataclass(frozen=True)
class Method:
    """One line of a comparison.

    Attributes
    ----------
    input, output : str
        Initialisers.
    calibrated : bool
        Whether the rows are fitted to the calibration text: the recipe's stages, else all that
        help.
    heal : float
        Minutes of training of the rows.

    Examples
    --------
    >>> Method.parse("omp").label, Method.parse("omp/omp + heal=5").label
    ('omp', 'omp+heal=5')
    """

    input: str
    output: str
    calibrated: bool = False
    heal: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Method:
        """Read a method as it is written.

        Raises
        ------
        SettingError
            If it is not of that form.
        """
        names, *suffixes = (part.strip() for part in text.split("+"))
        input_name, slash, output_name = (part.strip() for part in names.partition("/"))
        if not input_name or (slash and not output_name) or "/" in output_name:
            raise SettingError(f"'{text}' names no method: write NAME or INPUT/OUTPUT")
        calibrated, heal = False, 0.0
        for suffix in suffixes:
            key, _, value = suffix.partition("=")
            if suffix == "calibration" and not calibrated:
                calibrated = True
            elif key == "heal" and not heal:
                heal = _minutes(text, value)
            else:
                raise SettingError(
                    f"'{text}' ends in '+{suffix}': write +calibration, +heal=MINUTES, or both"
                )
        return cls(input_name, output_name or input_name, calibrated, heal)

    @property
    def label(self) -> str:
        """The method in the one way to write it."""
        names = self.input if self.input == self.output else f"{self.input}/{self.output}"
        heal = f"+heal={self.heal:g}" if self.heal else ""
        return f"{names}{'+calibration' if self.calibrated else ''}{heal}"

    @property
    def fitted(self) -> bool:
        """Whether anything happens after initialisation."""
        return self.calibrated or self.heal > 0


def _minutes(text: str, value: str) -> float:
    try:
        minutes = float(value)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes < float("inf"):
        raise SettingError(f"'{text}' says no minutes of healing: write +heal=5")
    return minutes


def parse_methods(texts: list[str]) -> list[Method]:
    """Read several methods.

    Raises
    ------
    SettingError
        If one is named twice, in whatever way it is written.
    """
    methods = [Method.parse(text) for text in texts]
    labels = [method.label for method in methods]
    for label in labels:
        if labels.count(label) > 1:
            raise SettingError(f"'{label}' is named twice: name each method once")
    return methods


def resolved(operation: Operation, methods: list[Method]) -> list[Method]:
    """Return the methods with `DEFAULT` replaced by what the pair's default is, none twice."""
    names = default_methods(operation)
    found = [
        dataclasses.replace(
            method,
            input=names[0] if method.input == DEFAULT else method.input,
            output=names[1] if method.output == DEFAULT else method.output,
        )
        for method in methods
    ]
    return list({method.label: method for method in found}.values())


def suggested(operation: Operation) -> list[Method]:
    """Return the methods to compare where none is named, the pair's default among them.

    With a calibration text the plain method and the default are also fitted to it.
    """
    names = [name for name in METHODS if name != "omp" or operation.donor is not None]
    if operation.tied:
        names = [name for name in names if name != "subword-ends"]
    default = Method(*default_methods(operation))
    if default.label not in names:
        names.append(default.label)
    if operation.calibration_texts:
        names += [f"{name}+calibration" for name in dict.fromkeys(["subword-mean", default.label])]
    return parse_methods(names)


def make_rows(operation: Operation, method: Method, base: PatchedRows | None = None) -> PatchedRows:
    """Compute a method's rows.

    Nothing that an earlier method left in the context's cache is used, so that `seconds` and
    `forward_tokens` are what this method takes alone; only the calibration's own view of the text
    is shared. `base` are the rows that were fitted without healing, where they are at hand.

    Raises
    ------
    TokensurgeonError
        If the method cannot work here.
    """
    if base is not None:
        return healed_later(operation, base, method.heal)
    start = time.perf_counter()
    spec = operation.recipe.init.model_copy(update={"input": method.input, "output": method.output})
    operation.context.cache.clear()
    if wants_auto(spec):
        stages = operation.recipe.calibrate if method.calibrated else ()
        rows = choose(operation, spec, stages, method.heal).rows
        operation.context.cache.clear()
        return dataclasses.replace(rows, seconds=time.perf_counter() - start)
    rows = patch_rows(operation, chosen_methods(operation, spec), spec)
    if method.fitted:
        stages = operation.recipe.calibrate if method.calibrated else ()
        rows = calibrated(operation, rows, stages, method.heal)
    operation.context.cache.clear()
    return dataclasses.replace(rows, seconds=time.perf_counter() - start)


def other_seed(operation: Operation, seed: int) -> Operation:
    """Return the operation with another seed; model, texts and rows are those of the first."""
    operation.context, operation.calibration_texts  # noqa: B018  computed once, for both
    other = dataclasses.replace(
        operation, recipe=operation.recipe.model_copy(update={"seed": seed})
    )
    other.bench = None  # what it drew from the text was drawn with the seed
    for name in ("model", "states", "calibration_texts"):
        if name in vars(operation):
            vars(other)[name] = vars(operation)[name]
    vars(other)["context"] = dataclasses.replace(operation.context, seed=seed)
    return other


def rows_hash(rows: PatchedRows) -> str:
    """Return the sha256 of an answer, floor rows aside: those are probed at random."""
    digest = hashlib.sha256()
    for side in (rows.input, rows.output):
        told = ~np.isin(side.origin, FLOORS)
        digest.update(told.tobytes())
        for part in blocks(len(told), 8192):
            digest.update(side.rows[part][told[part]].tobytes())
    return digest.hexdigest()

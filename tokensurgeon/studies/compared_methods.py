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

from tokensurgeon.arrays import blocks
from tokensurgeon.errors import SettingError
from tokensurgeon.surgery.calibrate import CalibratedRows, calibrate_rows
from tokensurgeon.surgery.choose import choose
from tokensurgeon.surgery.chosen_methods import chosen_methods, default_methods, wants_auto
from tokensurgeon.surgery.inputs import Inputs
from tokensurgeon.surgery.row_origins import FALLBACK
from tokensurgeon.surgery.rows import PatchedRows, patch_rows
from tokensurgeon.surgery.session import Session

METHODS = ("mean", "subword-mean", "subword-ends", "subword-shrunk", "hidden-residual", "omp")
"""What is compared where nobody says: the mean row, the plain family, what learns from the pair."""

DEFAULT = "default"
"""Stands for the initialisers of the pair where nothing is measured (`default_methods`)."""


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


def resolved(inputs: Inputs, methods: list[Method]) -> list[Method]:
    """Return the methods with `DEFAULT` replaced by what the pair's default is, none twice."""
    names = default_methods(inputs)
    named = [
        dataclasses.replace(
            method,
            input=names[0] if method.input == DEFAULT else method.input,
            output=names[1] if method.output == DEFAULT else method.output,
        )
        for method in methods
    ]
    return list({method.label: method for method in named}.values())


def suggested(session: Session) -> list[Method]:
    """Return the methods to compare where none is named, the pair's default among them.

    With a calibration text the plain method and the default are also fitted to it.
    """
    inputs = session.inputs
    names = [name for name in METHODS if name != "omp" or inputs.donor is not None]
    if inputs.tied:
        names = [name for name in names if name != "subword-ends"]
    default = Method(*default_methods(inputs))
    if default.label not in names:
        names.append(default.label)
    if session.calibration_texts:
        names += [f"{name}+calibration" for name in dict.fromkeys(["subword-mean", default.label])]
    return parse_methods(names)


def make_rows(session: Session, method: Method) -> CalibratedRows:
    """Compute a method's rows.

    Nothing that an earlier method left in the context's cache is used, so that the seconds and
    tokens are what this method takes alone; only the calibration's own view of the text is shared.

    Raises
    ------
    TokensurgeonError
        If the method cannot work here.
    """
    start = time.perf_counter()
    spec = session.recipe.init.model_copy(update={"input": method.input, "output": method.output})
    stages = session.recipe.calibrate if method.calibrated else ()
    session.context.cache.clear()
    if wants_auto(spec):
        rows = choose(session, spec, stages, method.heal).rows
    else:
        plain = patch_rows(session, chosen_methods(session.inputs, spec), spec)
        plain = dataclasses.replace(plain, seconds=time.perf_counter() - start)
        rows = CalibratedRows(plain)
        if method.fitted:
            rows = calibrate_rows(session, plain, stages, method.heal)
    session.context.cache.clear()
    return rows


def rows_hash(rows: PatchedRows) -> str:
    """Return the sha256 of an answer, fallback rows aside: those are probed at random."""
    digest = hashlib.sha256()
    for side in (rows.input, rows.output):
        told = ~np.isin(side.origin, FALLBACK)
        digest.update(told.tobytes())
        for part in blocks(len(told), 8192):
            digest.update(side.rows[part][told[part]].tobytes())
    for name, factor in sorted((rows.body.to_arrays() if rows.body else {}).items()):
        digest.update(name.encode())
        digest.update(factor.tobytes())
    return digest.hexdigest()

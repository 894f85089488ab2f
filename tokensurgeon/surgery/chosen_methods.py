"""Which initialisers a surgery uses, and with which settings."""

from __future__ import annotations

from dataclasses import dataclass

from tokensurgeon.calibration import find_stages
from tokensurgeon.errors import UsageError
from tokensurgeon.initialisers import build, settings_of
from tokensurgeon.initialisers.contract import Initialiser
from tokensurgeon.recipe import InitSpec, Recipe
from tokensurgeon.report.token_map import check_map_path
from tokensurgeon.surgery.inputs import Inputs
from tokensurgeon.surgery.session import Session

AUTO = "auto"
"""The method that measures others and takes the best; not an initialiser itself."""


PLAIN = "subword-mean"
"""The method that needs nothing and takes no time."""
PURE = "ridge-composer"
"""The best without a donor and without a forward pass."""


def wants_auto(spec: InitSpec) -> bool:
    """Say whether a recipe leaves the choice of methods to us.

    Raises
    ------
    UsageError
        If it does for one side only.
    """
    named = [name for name in (spec.input, spec.output) if name not in (None, AUTO)]
    if named and AUTO in (spec.input, spec.output):
        raise UsageError(
            f"'{AUTO}' chooses for both sides together, and '{named[0]}' is named for one: name "
            "neither, or both"
        )
    return not named


def default_methods(inputs: Inputs) -> tuple[str, str]:
    """Return what goes for a pair where nothing is measured, and where one side is named.

    `omp` where there is a donor. Without one `hidden-residual` in and `subword-mean` out when the
    sides are two matrices, `subword-mean` when they are one: a tied matrix behaves like an output
    matrix, for which the residual of an input says nothing.
    """
    if inputs.donor is not None:
        return "omp", "omp"
    checkpoint = inputs.checkpoint
    if inputs.tied or checkpoint.hidden_width != checkpoint.layout.width:
        return "subword-mean", "subword-mean"
    return "hidden-residual", "subword-mean"


def chosen_methods(inputs: Inputs, spec: InitSpec) -> tuple[str, str]:
    """Return the initialisers that a recipe asks for, the default's where it asks for none.

    Raises
    ------
    UsageError
        If two methods are asked for while there is one matrix.
    """
    default_input, default_output = default_methods(inputs)
    if inputs.tied:
        given = [name for name in (spec.input, spec.output) if name is not None]
        if len(set(given)) > 1:
            raise UsageError(
                f"input '{given[0]}' and output '{given[1]}' need two matrices, and the source "
                "is tied: name one method, or add --untie"
            )
        name = given[0] if given else default_output
        return name, name
    return spec.input or default_input, spec.output or default_output


def build_initialiser(name: str, spec: InitSpec, used: tuple[str, ...]) -> Initialiser:
    """Build an initialiser with the settings that a recipe has for it.

    The settings under ``"*"`` go to each method in `used` that has them; a key that none has is
    an error of the first. A method that is not in `used`, such as a baseline, gets none of them.
    """
    own = dict(spec.settings.get(name, {}))
    if name in used:
        for key, value in spec.settings.get("*", {}).items():
            nobody = not any(key in settings_of(other) for other in used)
            if nobody or key in settings_of(name):
                own.setdefault(key, value)
    return build(name, own)


@dataclass(frozen=True)
class Methods:
    """Which initialisers a surgery uses.

    Attributes
    ----------
    names : tuple of str
        Of the input and of the output side.
    automatic : bool
        Whether they are to be chosen by measuring.
    initialiser : Initialiser or None
        An object that makes both sides, in the place of the names.
    """

    names: tuple[str, str]
    automatic: bool
    initialiser: Initialiser | None = None


def check_settings(recipe: Recipe) -> None:
    """Refuse unknown methods, wrong settings and a bad path of a map before anything is read.

    Raises
    ------
    UsageError
    """
    if recipe.export_map is not None:
        check_map_path(recipe.export_map, recipe.force)
    spec = recipe.init
    named = tuple(name for name in (spec.input, spec.output) if name not in (None, AUTO))
    for name in sorted({*named, *recipe.baselines}):
        build_initialiser(name, spec, named)
    for name, settings in spec.settings.items():
        if name != "*":
            build(name, settings)


def plan_methods(session: Session, initialiser: Initialiser | None = None) -> Methods:
    """Return the methods of a surgery; refuse those, and stages, that cannot work on the pair.

    Raises
    ------
    UsageError
    """
    inputs, spec = session.inputs, session.recipe.init
    automatic = initialiser is None and wants_auto(spec)
    names = (AUTO, AUTO) if automatic else chosen_methods(inputs, spec)
    if not automatic:
        for name in names:
            build_initialiser(name, spec, names)
    if session.recipe.calibrate is not None:
        find_stages(session.recipe.calibrate, inputs.tied)
    return Methods(names, automatic, initialiser)

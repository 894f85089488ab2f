"""Give a trained language model another tokenizer, and measure what that cost.

The names below are imported when first used, so that ``import tokensurgeon`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tokensurgeon.version import __version__

if TYPE_CHECKING:
    from tokensurgeon.alignment import align as align
    from tokensurgeon.evaluation import evaluate_checkpoint as evaluate
    from tokensurgeon.initialisers import InitContext as InitContext
    from tokensurgeon.initialisers import NewRows as NewRows
    from tokensurgeon.initialisers import SideRows as SideRows
    from tokensurgeon.initialisers import check_initialiser as check_initialiser
    from tokensurgeon.initialisers import initialiser as initialiser
    from tokensurgeon.jobs.extend import extend as extend
    from tokensurgeon.jobs.trim import trim as trim
    from tokensurgeon.recipe import Recipe as Recipe
    from tokensurgeon.studies.compare import compare as compare
    from tokensurgeon.surgery.transplant import transplant as transplant
    from tokensurgeon.trainers import train_vocabulary as train_vocabulary
    from tokensurgeon.vocabulary import load_vocabulary as load_vocabulary

_HOMES = {
    "transplant": "tokensurgeon.surgery",
    "extend": "tokensurgeon.jobs.extend",
    "trim": "tokensurgeon.jobs.trim",
    "compare": "tokensurgeon.studies.compare",
    "evaluate": "tokensurgeon.evaluation:evaluate_checkpoint",
    "load_vocabulary": "tokensurgeon.vocabulary",
    "align": "tokensurgeon.alignment",
    "Recipe": "tokensurgeon.recipe",
    "initialiser": "tokensurgeon.initialisers",
    "check_initialiser": "tokensurgeon.initialisers",
    "InitContext": "tokensurgeon.initialisers",
    "NewRows": "tokensurgeon.initialisers",
    "SideRows": "tokensurgeon.initialisers",
    "train_vocabulary": "tokensurgeon.trainers",
}
"""Public names: the module of each, or module:name where that calls it otherwise."""

__all__ = [
    "transplant",
    "extend",
    "trim",
    "compare",
    "evaluate",
    "load_vocabulary",
    "align",
    "Recipe",
    "initialiser",
    "check_initialiser",
    "InitContext",
    "NewRows",
    "SideRows",
    "train_vocabulary",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home, _, inner = _HOMES[name].partition(":")
    value = getattr(importlib.import_module(home), inner or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

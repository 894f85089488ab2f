"""Initialisers: the contract, the registry, the conformance kit, and one short file per method."""

from tokensurgeon.initialisers.check import check_initialiser
from tokensurgeon.initialisers.contract import (
    DonorRows,
    InitContext,
    Initialiser,
    NewRows,
    SideRows,
    States,
)
from tokensurgeon.initialisers.fallback_rows import (
    QuietRow,
    mean_input_row,
    mean_row,
    quiet_output_row,
)
from tokensurgeon.initialisers.registry import (
    build,
    get,
    initialiser,
    load_plugin,
    names,
    settings_of,
)

__all__ = [
    "DonorRows",
    "InitContext",
    "Initialiser",
    "NewRows",
    "QuietRow",
    "SideRows",
    "States",
    "build",
    "check_initialiser",
    "get",
    "initialiser",
    "load_plugin",
    "mean_input_row",
    "mean_row",
    "names",
    "quiet_output_row",
    "settings_of",
]

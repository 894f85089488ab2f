"""Initialisers: the contract, the registry, the conformance kit, and one short file per method."""

from tokensurgeon.initialisers.check import check_initialiser
from tokensurgeon.initialisers.contract import (
    Computes,
    DonorRows,
    InitContext,
    Initialiser,
    NewRows,
    Resolvable,
    RunsSource,
    SideRows,
    States,
    TakesTime,
    TrainableStates,
)
from tokensurgeon.initialisers.fallback_rows import (
    SuppressedRow,
    mean_input_row,
    mean_row,
    suppressed_output_row,
)
from tokensurgeon.initialisers.registry import (
    build,
    get,
    initialiser,
    load_plugin,
    names,
    settings_of,
    source_files,
)

__all__ = [
    "Computes",
    "DonorRows",
    "InitContext",
    "Initialiser",
    "NewRows",
    "Resolvable",
    "RunsSource",
    "SideRows",
    "States",
    "SuppressedRow",
    "TakesTime",
    "TrainableStates",
    "build",
    "check_initialiser",
    "get",
    "initialiser",
    "load_plugin",
    "mean_input_row",
    "mean_row",
    "names",
    "suppressed_output_row",
    "settings_of",
    "source_files",
]

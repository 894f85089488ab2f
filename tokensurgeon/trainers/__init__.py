"""New vocabularies: counting text, learning tokens, encoding, and measuring the result.

The names below are imported when first used, because the command line needs the lists of names
without the code behind them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokensurgeon.trainers.corpus_counts import count_corpus as count_corpus
    from tokensurgeon.trainers.counting.count_edits import import_counts as import_counts
    from tokensurgeon.trainers.counting.count_edits import merge_counts as merge_counts
    from tokensurgeon.trainers.counting.count_tables import CountTables as CountTables
    from tokensurgeon.trainers.counting.pretokenizers import DIGITS as DIGITS
    from tokensurgeon.trainers.counting.pretokenizers import PRETOKENIZERS as PRETOKENIZERS
    from tokensurgeon.trainers.edits.extend import extend_vocabulary as extend_vocabulary
    from tokensurgeon.trainers.edits.prune import prune_vocabulary as prune_vocabulary
    from tokensurgeon.trainers.plan import Shape as Shape
    from tokensurgeon.trainers.train import train_vocabulary as train_vocabulary
    from tokensurgeon.trainers.trained import TrainedVocabulary as TrainedVocabulary
    from tokensurgeon.trainers.training_methods import METHODS as METHODS

_HOMES = {
    "CountTables": "counting.count_tables",
    "DIGITS": "counting.pretokenizers",
    "METHODS": "training_methods",
    "PRETOKENIZERS": "counting.pretokenizers",
    "Shape": "plan",
    "TrainedVocabulary": "trained",
    "count_corpus": "corpus_counts",
    "extend_vocabulary": "edits.extend",
    "import_counts": "counting.count_edits",
    "merge_counts": "counting.count_edits",
    "prune_vocabulary": "edits.prune",
    "train_vocabulary": "train",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)

"""Hypertokens: codes for runs of tokens that a sequence has shown before (LZW), made as it is read.

>>> from tokensurgeon.runtime.hypertokens import Codebook, Limits
>>> Codebook(Limits(n_ids=10)).encode([1, 2, 1, 2, 1, 2, 1, 2])
[1, 2, 10, 10, 10]
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tokensurgeon.runtime.hypertokens.codec import Codebook, Limits, decode, encode, encode_many

if TYPE_CHECKING:
    from tokensurgeon.runtime.hypertokens.compress import compress_files as compress_files
    from tokensurgeon.runtime.hypertokens.train_composer import train_composer as train_composer
    from tokensurgeon.runtime.hypertokens.zip_model import ZippedModel as ZippedModel
    from tokensurgeon.runtime.hypertokens.zip_model import load_zip as load_zip

_HOMES = {
    "ZippedModel": "zip_model",
    "load_zip": "zip_model",
    "compress_files": "compress",
    "train_composer": "train_composer",
}
"""What needs torch, and the module of each: the codec alone needs nothing."""

__all__ = [
    "Codebook",
    "Limits",
    "decode",
    "encode",
    "encode_many",
    "ZippedModel",
    "compress_files",
    "load_zip",
    "train_composer",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)

"""Forward passes: language models and the other kinds, where they lie, and what they compute.

Nothing here imports torch or transformers at the top level; functions do when they need them.
"""

from __future__ import annotations

from tokensurgeon.models.head import OutputHead
from tokensurgeon.models.language_model import LanguageModel
from tokensurgeon.models.load import load_model

__all__ = ["LanguageModel", "OutputHead", "load_model"]

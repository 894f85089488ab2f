"""A causal model asked after texts that begin alike, each token of theirs read once.

Each place in the tree keeps the key–value cache of the tokens that lead to it. A place that goes on
from another works on a copy, for a cache that slides or is a recurrent state cannot be cut back.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from tokensurgeon.arrays import Float64
from tokensurgeon.errors import EvaluationError
from tokensurgeon.models.language_model import LanguageModel
from tokensurgeon.models.sampling import keeps_last


class Place:
    """Where a model stands after some tokens; nothing is run until it is asked.

    Attributes
    ----------
    ids : tuple of int
        All tokens so far, at least one.
    """

    def __init__(self, model: LanguageModel, ids: Sequence[int], before: Place | None = None):
        self.model, self.ids = model, tuple(ids)
        self._before = before
        self._cache: Any = None
        self._p: Float64 | None = None

    def then(self, token: int) -> Place:
        """Return the place after one more token."""
        return Place(self.model, (*self.ids, token), self)

    @property
    def fits(self) -> bool:
        """Whether the model has as many positions."""
        longest = self.model.max_positions
        return longest is None or len(self.ids) <= longest

    @property
    def probabilities(self) -> Float64:
        """What the model says of the next token, float64 (n_rows,), kept: not to be changed.

        Raises
        ------
        EvaluationError
            Where the model has too few positions, or says NaN.
        """
        if self._p is None:
            self._p = self._run()
        return self._p

    @property
    def cache(self) -> Any:
        """A copy of the key–value cache of all tokens; None where the model hands out none."""
        if self._p is None:
            self._p = self._run()
        return copy.deepcopy(self._cache)

    def _run(self) -> Float64:
        import torch

        if not self.fits:
            raise EvaluationError(
                f"a text needs {len(self.ids):,} positions and the model has "
                f"{self.model.max_positions:,}; cut the text shorter"
            )
        cache = None if self._before is None else self._before.cache
        ids = self.ids if cache is None else self.ids[-1:]
        inner = self.model.model
        with torch.inference_mode():
            output = inner(
                input_ids=torch.tensor(np.asarray([ids], dtype=np.int64), device=self.model.device),
                past_key_values=cache,
                use_cache=True,
                **keeps_last(inner, 1),
            )
            p: Float64 = output.logits[0, -1].double().softmax(0).cpu().numpy()
        if not np.isfinite(p).all():
            raise EvaluationError(
                f"the model says NaN after {len(self.ids):,} tokens; mend its weights, or take "
                "--dtype float32"
            )
        self._cache, self._before = getattr(output, "past_key_values", None), None
        return p

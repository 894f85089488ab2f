"""A causal model that is asked at places along a text, in order, without reading the text anew.

The key–value cache of what two places in turn have in common is kept. Each place works on a copy of
it, for a cache that slides or is a recurrent state cannot be cut back.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from tokensurgeon.arrays import Float32
from tokensurgeon.models.language_model import LanguageModel
from tokensurgeon.models.sampling import keeps_last, sample


class AlongText:
    """Writes after a text, and says what the model expects along a path behind it.

    A text that goes on where the last one ended costs little; any other is read from its start. A
    model that hands out no cache reads every text whole.

    Parameters
    ----------
    model : LanguageModel
    """

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        self._ids: list[int] = []
        self._shared = 0
        """How many ids the last two texts begin with; `_common` is their cache."""
        self._common: Any = None
        self._here: Any = None  # the cache of all ids but the last

    def room(self, ids: Sequence[int]) -> int | None:
        """Return how many tokens the model takes after a text; None if any number."""
        longest = self.model.max_positions
        return None if longest is None else max(0, longest - len(ids))

    def write(
        self, ids: Sequence[int], most: int, seed: int, temperature: float = 1.0
    ) -> list[int]:
        """Sample at most `most` tokens after a text of at least one id.

        As `LanguageModel.generate` does; temperature 0 takes the likeliest.
        """
        room = self.room(ids)
        cache, rest = self._place(ids)
        (written,) = sample(
            self.model.model,
            self._tensor(rest),
            most if room is None else min(most, room),
            seed,
            temperature=temperature,
            cache=cache,
        )
        return written

    def logits(self, ids: Sequence[int], path: Sequence[int]) -> Float32:
        """Return the logits after a text, and after each token of a path behind it.

        Returns
        -------
        float32 (len(path) + 1, n_rows)
        """
        cache, rest = self._place(ids)
        asked = len(path) + 1
        output = self._run([*rest, *path], cache, asked)
        found: Float32 = output.logits[0, -asked:].float().cpu().numpy()
        return found

    def _place(self, ids: Sequence[int]) -> tuple[Any, list[int]]:
        """Return a cache to go on from after a text, and the ids that it lacks: at least one."""
        if list(ids) != self._ids:
            self._move(list(ids))
        if self._here is None:
            return None, self._ids
        return copy.deepcopy(self._here), self._ids[-1:]

    def _move(self, ids: list[int]) -> None:
        """Hold the caches of another text."""
        same = [a == b for a, b in zip(self._ids, ids[:-1], strict=False)]
        shared = same.index(False) if False in same else len(same)
        if shared < self._shared:
            self._shared, self._common = 0, None
        self._common = self._read(self._common, ids[self._shared : shared])
        self._here = self._read(copy.deepcopy(self._common), ids[shared:-1])
        self._shared = shared if self._common is not None else 0
        self._ids = ids

    def _read(self, cache: Any, ids: Sequence[int]) -> Any:
        return self._run(ids, cache, 1).past_key_values if len(ids) else cache

    def _run(self, ids: Sequence[int], cache: Any, asked: int) -> Any:
        import torch

        model = self.model.model
        with torch.inference_mode():
            return model(
                input_ids=self._tensor(ids),
                past_key_values=cache,
                use_cache=True,
                **keeps_last(model, asked),
            )

    def _tensor(self, ids: Sequence[int]) -> Any:
        import torch

        return torch.tensor(np.asarray([ids], dtype=np.int64), device=self.model.device)

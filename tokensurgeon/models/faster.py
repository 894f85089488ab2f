"""A copy of a model in bfloat16, where the processor gains by it."""

from __future__ import annotations

import copy
import time
from typing import TYPE_CHECKING

from tokensurgeon.models.device_map import offloaded_weights
from tokensurgeon.models.language_model import LanguageModel

if TYPE_CHECKING:
    import torch

LEAST_GAIN = 1.3
"""Times that a product in bfloat16 is faster before a copy is made: what rounding and the copy cost
would eat up less."""
STATES, TRIES = 256, 3
"""Of the products that are timed, the fastest of three counts; some milliseconds."""
LEAST_WIDTH = 256
"""Of a model: in narrower ones little of the time goes into products."""


def faster(model: LanguageModel) -> LanguageModel:
    """Return a copy in bfloat16 if that is faster here, else the model itself.

    Meant for what is averaged over many states, as training is; what is reported is measured with
    the model itself. A model that does not compute in float32, or lies partly on disk, stays.

    Parameters
    ----------
    model : LanguageModel
        Not changed.
    """
    import torch

    if model.dtype != "float32" or model.width < LEAST_WIDTH or offloaded_weights(model.model):
        return model
    times = [_product_seconds(model, dtype) for dtype in (torch.float32, torch.bfloat16)]
    if times[0] < LEAST_GAIN * times[1]:
        return model
    body = copy.deepcopy(model.model).to(torch.bfloat16)
    return type(model)(body, logit_scale=model.logit_scale, softcap=model.softcap)


def _product_seconds(model: LanguageModel, dtype: torch.dtype) -> float:
    import torch

    states = torch.ones((STATES, model.width), dtype=dtype, device=model.device)
    weight = torch.ones((4 * model.width, model.width), dtype=dtype, device=model.device)
    best = float("inf")
    for _ in range(TRIES + 1):  # the first one warms up
        start = time.perf_counter()
        (states @ weight.T).sum().item()
        best = min(best, time.perf_counter() - start)
    return best

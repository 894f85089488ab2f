"""Plain values for JSON, which has neither NaN nor infinities nor tuples."""

from __future__ import annotations

import math
from typing import Any


def finite(value: Any) -> Any:
    """Return plain data with tuples as lists, and None for NaN and infinities: JSON has neither."""
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

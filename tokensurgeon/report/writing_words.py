"""What a model wrote after a prompt, in lines: how long it is, and what ended it early."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokensurgeon.report import words


def lengths(facts: Mapping[str, Any]) -> str:
    """Say how long a prompt and its continuation are, in tokens and, if there are any, in codes."""
    prompt, written = (
        words.count(facts[f"{start}tokens"], "token")
        + (f" in {words.count(facts[f'{start}codes'], 'code')}" if f"{start}codes" in facts else "")
        for start in ("prompt_", "")
    )
    return f"prompt {prompt}; written {written}, {words.count(facts['bytes'], 'byte')}"


def early_end(facts: Mapping[str, Any]) -> str | None:
    """Say that the model had no position left; None where it had."""
    if facts["stopped"] != "positions":
        return None
    return (
        f"warning: writing ended because all {facts['positions']:,} positions of the model are "
        "taken; give a shorter prompt, or a model with more"
    )

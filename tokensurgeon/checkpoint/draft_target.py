"""Draft models: what a checkpoint must share with the big model that it drafts for."""

from __future__ import annotations

from typing import Any

from tokensurgeon.checkpoint import transformers_internals as internals
from tokensurgeon.checkpoint.files import find_folder
from tokensurgeon.errors import CheckpointError
from tokensurgeon.vocabulary import Vocabulary


def big_rows(model: str, target: Vocabulary, *, trust_remote_code: bool = False) -> int:
    """Return how many rows the big model has; engines may compare this number.

    Raises
    ------
    CheckpointError
        If its configuration says nothing of it, or less than its tokenizer has ids.
    """
    config = text_config(model, trust_remote_code)
    rows = getattr(config, "vocab_size", None)
    if not isinstance(rows, int):
        raise CheckpointError(
            f"the configuration of {model} says no vocab_size; restore its config.json"
        )
    if rows < target.n_rows:
        raise CheckpointError(
            f"{model} has {rows:,} rows and its tokenizer {target.n_rows:,} ids, and a "
            "draft cannot have both; give the tokenizer that belongs to the model"
        )
    return rows


def role_warnings(model: str, target: Vocabulary, *, trust_remote_code: bool = False) -> list[str]:
    """Return a line for the start and the end that the big model's configuration sees otherwise.

    The draft's configuration follows the tokenizer.
    """
    config = text_config(model, trust_remote_code)
    lines = []
    for role in ("bos", "eos"):
        said, own = getattr(config, f"{role}_token_id", None), target.roles.get(role)
        if None not in (said, own) and own not in (said if isinstance(said, list) else [said]):
            lines.append(
                f"{role} is id {own} to the tokenizer of {model} and {said} to its configuration; "
                "the draft's follows the tokenizer"
            )
    return lines


def text_config(model: str, trust_remote_code: bool) -> Any:
    """Return the configuration of a model's text part, as transformers reads it."""
    folder = find_folder(model)
    return internals.load_config(folder, trust_remote_code=trust_remote_code).get_text_config()

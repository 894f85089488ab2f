"""The metadata of a model card that the hub reads: the model it was made of, its licence, tags.

The keys are those of the hub's page on model cards. A model whose vocabulary rows were made anew is
a fine-tune of its source there: of ``adapter``, ``merge``, ``quantized`` and ``finetune`` it is the
only one that fits weights which were changed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tokensurgeon.errors import RecipeError, UsageError
from tokensurgeon.recipe_yaml import read_yaml
from tokensurgeon.vocabulary.hub import cached_file

_MARK = "---\n"
_LONGEST = 1 << 16
"""Bytes of a card that are read for its metadata, which stand first: those of the hub have 2 kB."""
_LICENCE_ID = re.compile(r"[a-z0-9]+([.-][a-z0-9]+)*")
_LICENCE_KEYS = ("license", "license_name", "license_link")


@dataclass(frozen=True)
class Licence:
    """A licence as metadata name it.

    Attributes
    ----------
    id : str or None
        The hub's id, such as ``apache-2.0``; None where it is not known.
    origin : str
        Who says so, or why it is not known.
    metadata : dict of str to str
        The keys for the card.
    """

    id: str | None
    origin: str
    metadata: dict[str, str] = field(default_factory=dict)


def licence_of(source: str, given: str | None = None) -> Licence:
    """Return the licence that is given, else that which the card of the source names.

    Parameters
    ----------
    source : str
        A folder, or a model of the hub's cache.
    given : str, optional
        The hub's id of a licence.

    Raises
    ------
    UsageError
        If `given` cannot be such an id.
    """
    if given is not None:
        if not _LICENCE_ID.fullmatch(given):
            raise UsageError(
                f"'{given}' is no licence's id on the hub; give one such as apache-2.0, or other"
            )
        return Licence(given, "given", {"license": given})
    folder = Path(source).expanduser()
    card = folder / "README.md" if folder.is_dir() else cached_file(source, "README.md")
    if card is None or not card.is_file():
        return Licence(None, "no card of the source is here")
    metadata = split_card(card.read_bytes()[:_LONGEST].decode("utf-8", "replace"))[0]
    named = {key: metadata[key] for key in _LICENCE_KEYS if isinstance(metadata.get(key), str)}
    if "license" not in named:
        return Licence(None, "the source's card names none")
    return Licence(named["license"], "the source's card", named)


def split_card(text: str) -> tuple[dict[str, Any], str]:
    """Return the metadata of a card, empty where it has none that can be read, and the rest."""
    if not text.startswith(_MARK):
        return {}, text
    head, mark, body = text[len(_MARK) :].partition(f"\n{_MARK}")
    if not mark:
        return {}, text
    try:
        metadata = read_yaml(head, "the card")
    except RecipeError:
        return {}, body
    return (metadata if isinstance(metadata, dict) else {}), body


def with_metadata(card: str, base_model: str | None, licence: Licence) -> str:
    """Return a card with the source and its licence in the metadata."""
    metadata, body = split_card(card)
    named: dict[str, Any] = {}
    if base_model is not None:
        named = {"base_model": [base_model], "base_model_relation": "finetune"}
    metadata = {**named, **licence.metadata, **metadata}
    head = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)
    return f"{_MARK}{head}{_MARK}{body}"

"""The tokenizer of a patched checkpoint as it comes about: files, decisions, what is to be said."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokensurgeon.checkpoint.encodings import Fields


@dataclass(frozen=True)
class Decision:
    """Something about the written tokenizer in which source and target may differ.

    Attributes
    ----------
    what, value : str
    origin : str
        ``"source"``, ``"target"``, both, or a file: where the value comes from.
    """

    what: str
    value: str
    origin: str


@dataclass
class TokenizerFiles:
    """The tokenizer of a patched checkpoint, before it is written or after.

    Attributes
    ----------
    files : dict of str to bytes
        By name.
    config : dict
        tokenizer_config.json without its class.
    decisions : list of Decision
    warnings : list of str
    source, target : tokenizer of transformers, or None
        As AutoTokenizer gives them for their folders. The target's has the decisions applied, and
        is None where it reads other ids than the target's file.
    chat_template : str, list or None
    template_folder : Path or None
        The folder that the template was taken from, if the target's.
    uncompared : list of str
        Fields of whole encodings that are the written tokenizer's own.
    fields : dict
        Whole encodings of what was written, once it is.
    """

    files: dict[str, bytes]
    config: dict[str, Any]
    decisions: list[Decision] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    source: Any = None
    target: Any = None
    chat_template: Any = None
    template_folder: Path | None = None
    uncompared: list[str] = field(default_factory=list)
    fields: Fields = field(default_factory=dict)

    def decide(self, what: str, value: Any, origin: str, *warnings: str) -> None:
        """Note a decision, and what is to be said of it."""
        said = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
        self.decisions.append(Decision(what, said, origin))
        self.warnings += warnings

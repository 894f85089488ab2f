"""The control tokens of a new vocabulary: named one by one, or as another tokenizer has them.

As another has them means its control tokens with their roles and flags, what it puts around a
text, and their ids. A model may count on an id: RoBERTa counts positions from that of its pad
token. An id past the end of the new vocabulary goes to the lowest one that no other control has.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from tokensurgeon.errors import SettingError
from tokensurgeon.vocabulary import Vocabulary, load_vocabulary
from tokensurgeon.vocabulary.kinds import STANDARD_ROLES, Kind
from tokensurgeon.vocabulary.parts import walk
from tokensurgeon.vocabulary.token_bytes import from_alphabet

EOS = "<|endoftext|>"
"""The end of a text, where nothing else is asked for."""


@dataclass(frozen=True)
class Controls:
    """Control tokens.

    Attributes
    ----------
    tokens : tuple of str
        Each once, in the order of their ids where no id is asked for.
    roles : dict of str to str
        ``{"eos": "</s>"}``.
    like : str or None
        The tokenizer that they are taken from.
    ids : dict of str to int
        The ids that they have there.
    added : tuple of dict
        Their entries in that tokenizer.json, which say what white space a control takes with it.
    post_processor : dict or None
        What that tokenizer puts around a text.
    """

    tokens: tuple[str, ...]
    roles: dict[str, str]
    like: str | None = None
    ids: dict[str, int] = field(default_factory=dict)
    added: tuple[dict[str, Any], ...] = ()
    post_processor: dict[str, Any] | None = None

    def placed(self, tokenizer: Tokenizer) -> Tokenizer:
        """Return a tokenizer whose first ids are these controls with the ids asked for."""
        if self.like is None:
            return tokenizer
        id_of = tokenizer.get_vocab()
        wanted = {id_of[token]: i for token, i in self.ids.items() if i < len(id_of)}
        free = iter(sorted(set(range(len(id_of))) - set(wanted.values())))
        new_ids = [wanted[i] if i in wanted else next(free) for i in range(len(id_of))]
        document = json.loads(tokenizer.to_str())
        table = document["model"]["vocab"]
        if isinstance(table, dict):
            document["model"]["vocab"] = {token: new_ids[i] for token, i in table.items()}
        else:
            document["model"]["vocab"] = [table[i] for i in np.argsort(new_ids)]
        flags = {token["content"]: token for token in self.added}
        document["added_tokens"] = sorted(
            (
                {**token, **flags.get(token["content"], {}), "id": new_ids[token["id"]]}
                for token in document["added_tokens"]
            ),
            key=lambda token: int(token["id"]),
        )
        if self.post_processor is not None:
            document["post_processor"] = json.loads(json.dumps(self.post_processor))
            now = {old: new_ids[id_of[token]] for token, old in self.ids.items()}
            renumber(document["post_processor"], now)
        return Tokenizer.from_str(json.dumps(document))


def make_controls(
    bos: str | None,
    eos: str | None,
    pad: str | None,
    others: Sequence[str],
    like: Vocabulary | str | Path | None = None,
) -> Controls:
    """Return the controls that are named, after those of the tokenizer `like`.

    Where nothing says what ends a text, `EOS` does; what ends a text begins it too, unless another
    token does.

    Raises
    ------
    SettingError
        If a control token is empty, a letter, or spelled as a file spells other text.
    TokenizerError
        If `like` cannot be read.
    """
    given = {role: t for role, t in (("bos", bos), ("eos", eos), ("pad", pad)) if t is not None}
    _check([*given.values(), *others])
    if like is None:
        end = given.get("eos", EOS)
        roles = {"bos": end, "eos": end, **given}
        return Controls(tuple(dict.fromkeys([*roles.values(), *others])), roles)
    source = like if isinstance(like, Vocabulary) else load_vocabulary(like)
    document = json.loads(source.tokenizer.to_str())
    around = document["post_processor"]
    numbers = {*np.flatnonzero(source.kinds == Kind.CONTROL).tolist(), *ids_around(around)}
    ids = {source.spellings[i] or "": i for i in sorted(numbers)}
    roles = {
        r: source.spellings[source.roles[r]] or "" for r in STANDARD_ROLES if r in source.roles
    }
    roles |= given
    if not roles:
        roles = {"bos": EOS, "eos": EOS}
    return Controls(
        tokens=tuple(dict.fromkeys([*ids, *roles.values(), *others])),
        roles=roles,
        like=str(source.folder) if isinstance(like, Vocabulary) else str(like),
        ids=ids,
        added=tuple(token for token in document["added_tokens"] if token["id"] in numbers),
        post_processor=around if ids_around(around) else None,
    )


def _check(controls: Sequence[str]) -> None:
    for control in controls:
        if not control or control.isspace():
            raise SettingError("a control token is empty; give it a spelling such as <|endoftext|>")
        if len(control) == 1:
            raise SettingError(f"the control token {control!r} is a letter of text; spell it <…>")
        spelled = from_alphabet(control).decode("utf-8", "replace")
        if spelled != control and "\N{REPLACEMENT CHARACTER}" not in spelled:
            raise SettingError(
                f"the control token {control!r} is how files spell {spelled!r}; spell it <…>"
            )


def ids_around(post_processor: Any) -> set[int]:
    """Return the ids of the tokens that a post-processor puts around a text."""
    return {ids[at] for ids, at in _places(post_processor)}


def renumber(post_processor: Any, new: Mapping[int, int]) -> None:
    """Give the tokens that a post-processor puts around a text their new ids, in place."""
    for ids, at in _places(post_processor):
        ids[at] = new[ids[at]]


def _places(post_processor: Any) -> Iterator[tuple[list[Any], int]]:
    """Yield where ids stand in a post-processor: a list, and the index in it."""
    for step in walk(post_processor):
        if step["type"] in ("BertProcessing", "RobertaProcessing"):
            yield from ((step[name], 1) for name in ("cls", "sep"))
        for token in (step.get("special_tokens") or {}).values():
            yield from ((token["ids"], at) for at in range(len(token["ids"])))

"""Cut runs of digits as another tokenizer does.

How it cuts them is read from what it does with numbers (`Vocabulary.number_scheme`), not from its
file. A tokenizer that cuts them in another way gets a cut before its own pre-tokenizer; it keeps
its tokens and ids. A cut can only be added: one that it has already cannot be taken away.
"""

from __future__ import annotations

import json
from typing import Any

from tokenizers import Tokenizer

from tokensurgeon.errors import TokenizerError
from tokensurgeon.trainers.counting.pretokenizers import DIGITS, SCHEME, number_pattern
from tokensurgeon.vocabulary import Vocabulary
from tokensurgeon.vocabulary.hard_text import hard_texts
from tokensurgeon.vocabulary.parts import guarded, has_type

_NUMBERS = ("In 2048, 1234567 of 98,765.4321 were x12y (0.5 %).\n", "1 22 333 4444 55555\n")
"""Texts with numbers that must come back as before."""


def scheme_like(source: Vocabulary) -> str:
    """Return the scheme of `DIGITS` by which a tokenizer cuts, `SCHEME` where it has none."""
    return source.number_scheme if source.number_scheme in DIGITS else SCHEME


def cut_digits(target: Vocabulary, scheme: str) -> Vocabulary:
    """Return the target with digit runs cut by a `number_scheme`; itself where they are already.

    Raises
    ------
    TokenizerError
        If that cut cannot be had by adding one, or text would not come back as before.
    """
    own = target.number_scheme
    if own == scheme:
        return target
    refusal = f"the target cannot cut digit runs as {scheme!r}, as the source does: {{}}"
    refusal += "; leave 'digits' at 'target'"
    if scheme not in DIGITS or scheme == "any":
        raise TokenizerError(refusal.format(f"no cut before its own, {own!r}, brings that about"))
    edited = guarded(
        "the cut of digits cannot be added",
        lambda: target.with_tokenizer(_cut_first(target.tokenizer, number_pattern(scheme))),
    )
    if edited.number_scheme != scheme:
        now = edited.number_scheme
        raise TokenizerError(refusal.format(f"with that cut before its own, it is {now!r}"))
    for text in (*_NUMBERS, *hard_texts()):
        ids, new = target.encode(text), edited.encode(text)
        back = target.decode(ids)
        if back != edited.decode(new) and (back == text or text in _NUMBERS):
            raise TokenizerError(refusal.format(f"{text[:20]!r} would come back otherwise"))
        if ids != new and not any(map(str.isnumeric, text)):
            raise TokenizerError(refusal.format(f"{text[:20]!r} would be cut otherwise too"))
    return edited


def _cut_first(tokenizer: Tokenizer, numbers: str) -> Tokenizer:
    """Return a copy that cuts what `numbers` matches before it cuts anything else.

    A Metaspace pre-tokenizer comes first even so: it would mark each piece as the start of a word.
    """
    document = json.loads(tokenizer.to_str())
    own: dict[str, Any] | None = document["pre_tokenizer"]
    cut = {
        "type": "Split",
        "pattern": {"Regex": numbers},
        "behavior": "Isolated",
        "invert": False,
    }
    steps = own["pretokenizers"] if own and own["type"] == "Sequence" else [own] if own else []
    steps = [*steps, cut] if has_type(own, "Metaspace") else [cut, *steps]
    document["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps}
    return Tokenizer.from_str(json.dumps(document))

"""Which keys of a configuration hold token ids, and in which form: decided by their names.

No file says which of its numbers are token ids. The names do, as transformers and the checkpoints
that it reads use them: ``eos_token_id``, ``suppress_tokens``, ``lang_to_id``. A name that only
hints at tokens is undecided: what it holds is left alone, and said.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum, auto
from typing import Any

from tokensurgeon.vocabulary.kinds import STANDARD_ROLES

Json = dict[str, Any]


class Form(Enum):
    """How the ids stand in a value."""

    IDS = auto()
    """An id, a list of ids, a list of phrases of ids, or names with their ids."""
    PAIRS = auto()
    """A list of [position, id]."""
    BIASES = auto()
    """A list of [phrase, bias], or a dictionary of them."""
    KEYS = auto()
    """A dictionary whose keys are ids."""
    UNDECIDED = auto()
    """Its name hints at tokens, no more."""


ROLE_OF_KEY = {
    f"{role}_{ending}": role for role in STANDARD_ROLES for ending in ("token_id", "index")
}
"""Keys of the target's roles; XLM and FlauBERT write ``pad_index``."""

_SPECIAL: dict[str, Form] = {
    "forced_decoder_ids": Form.PAIRS,
    "sequence_bias": Form.BIASES,
}
_IDS = re.compile(
    r"(^|_)tokens?_(ids?|idxs?|index|indices|indexes)$"  # eos_token_id, image_token_index
    r"|(^|_)suppress_tokens$|(^|_)words_ids$"
    r"|(^|_)(bos|eos|pad|unk|sep|cls|mask|bod|eod|eot|sot)_ids?$"
    r"|(^|_)(im|image|img|slice|video|audio|vision|think)_(start|end|newline|patch)_id$"
    r"|(^|_)newline_id$"
    r"|(^|_)(lang|language|task|tokens?)(_code|_token)?_to_(code_|token_)?ids?$"
)
_KEYS = re.compile(r"(^|_)id_to_(lang|language|task|token|text)$")
_OTHER_VOCABULARY = re.compile(
    r"^(t2u|vocoder|codec|codebook|tts_codec|audio_stream|char|subs|tag)_"
)
"""Ids of speech units, codes, characters and XPath steps, beside the tokenizer's."""
_HINT = re.compile(r"(^|_)tokens?(_|$)|(^|_)ids?$|_to_ids?$")
_NO_HINT = re.compile(
    r"(^|_)(num|n|max|min|mm|per|total|size|dim|len|length|rate|ratio|dropout|prob|layers?|heads?"
    r"|experts?|blocks?|width|count|budget|kernel|lookahead|lookup|delay|types?|hooks?|positions?"
    r"|speakers?|labels?|prompt|adapter|revision|device|gpu|group|stage|schedule|embed|bias|weight"
    r"|lang|task|soft|pooler?|register|commit|model|run|job|version)(_|$)"
)
"""Words of what is counted, or numbered, and is no token."""
_SPELLED = re.compile(r"<.+>|\[.+\]")
"""How control tokens are spelled."""


def form_of(key: str, value: object) -> Form | None:
    """Return how a key's value holds token ids, or None if it holds none.

    Examples
    --------
    >>> form_of("image_token_index", 7), form_of("alignment_heads", [[0, 1]])
    (<Form.IDS: 1>, None)
    >>> form_of("stop_ids", [5])
    <Form.UNDECIDED: 5>
    """
    if _OTHER_VOCABULARY.match(key) or isinstance(value, (bool, str, float)) or value is None:
        return None
    if key in _SPECIAL:
        return _SPECIAL[key]
    if _names_ids(key):
        return Form.IDS
    if _KEYS.search(key) and isinstance(value, dict):
        return Form.KEYS
    hints = _HINT.search(key) is not None and _NO_HINT.search(key) is None
    if isinstance(value, dict) and "label" not in key:
        hints = hints or any(_SPELLED.fullmatch(name) for name in value)
        value = [item for item in value.values() if is_id(item)]
    return Form.UNDECIDED if hints and next(ids_in(value), None) is not None else None


def stray(key: str, value: object) -> object:
    """Return what the value of a key of token ids holds that is none: a text, a fraction, a truth.

    None if there is nothing of the kind.

    Examples
    --------
    >>> stray("eos_token_id", [1, "2"]), stray("eos_token_id", -1), stray("eos", "2")
    ('2', None, None)
    """
    if _OTHER_VOCABULARY.match(key) or not _names_ids(key):
        return None
    if isinstance(value, (list, dict)):
        inside = (stray(key, one) for one in (value.values() if isinstance(value, dict) else value))
        return next((one for one in inside if one is not None), None)
    return value if isinstance(value, (bool, str, float)) else None


def _names_ids(key: str) -> bool:
    return key in ROLE_OF_KEY or _IDS.search(key) is not None


def is_id(value: object) -> bool:
    """Tell an id; a negative number stands for "none" in older files and is left alone."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def ids_in(value: Any, form: Form = Form.IDS) -> Iterator[int]:
    """Yield every id of a value that has a form."""
    if form is Form.KEYS:
        yield from (token for key in value for token in ids_of_key(key))
    elif form is Form.PAIRS and isinstance(value, list):
        yield from (p[1] for p in value if isinstance(p, list) and len(p) > 1 and is_id(p[1]))
    elif form is Form.BIASES:
        for phrase in value if isinstance(value, dict) else _firsts(value):
            if isinstance(phrase, str):
                yield from ids_of_key(phrase)
            else:
                yield from ids_in(phrase)
    elif isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from ids_in(item)
    elif is_id(value):
        yield value


NUMBER = re.compile(r"[0-9]{1,18}")
"""An id in a key; what has more digits is none."""


def ids_of_key(key: str) -> list[int]:
    """Return the ids that a key spells, such as 3 and 4 in ``(3, 4)``."""
    return [int(number) for number in NUMBER.findall(key)]


def _firsts(value: Any) -> list[Any]:
    items = value if isinstance(value, list) else []
    return [item[0] for item in items if isinstance(item, list) and item]


def levels(config: Json, size: int | None) -> Iterator[tuple[str, Json]]:
    """Yield a configuration and those nested in it, also in lists, with the dotted path of each.

    Left out is what says a vocabulary of another size than `size`: its ids are of another
    tokenizer.
    """
    yield "", config
    yield from _nested(config, "", size)


def _nested(level: Json, where: str, size: int | None) -> Iterator[tuple[str, Json]]:
    for key, value in list(level.items()):
        if form_of(key, value) in (None, Form.UNDECIDED):
            yield from _inside(value, f"{where}{key}", size)


def _inside(value: Any, where: str, size: int | None) -> Iterator[tuple[str, Json]]:
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield from _inside(item, f"{where}[{number}]", size)
    elif isinstance(value, dict) and (size is None or value.get("vocab_size", size) == size):
        yield f"{where}.", value
        yield from _nested(value, f"{where}.", size)


def named_ids(config: Json) -> Iterator[tuple[str, list[int]]]:
    """Yield every key of a configuration that names token ids, and the ids.

    Examples
    --------
    >>> list(named_ids({"eos_token_id": [2, 3], "text_config": {"pad_token_id": 0}}))
    [('eos_token_id', [2, 3]), ('text_config.pad_token_id', [0])]
    """
    text = config.get("text_config")
    sizes = [level.get("vocab_size") for level in (text, config) if isinstance(level, dict)]
    for where, level in levels(config, next((n for n in sizes if isinstance(n, int)), None)):
        for key, value in level.items():
            form = form_of(key, value)
            if form not in (None, Form.UNDECIDED):
                yield f"{where}{key}", list(ids_in(value, form))

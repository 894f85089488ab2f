"""Whole encodings: everything that users get from a tokenizer, not its ids of one text alone.

Fixed texts go through a tokenizer of transformers, and what comes out is compared by field: type
ids and masks of pairs, padding, truncation, what decoding skips, languages of translation.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from tokensurgeon.checkpoint import transformers_internals as internals
from tokensurgeon.checkpoint.files import read_optional_json

FIRST = "The cat sat on 12 mats, and it didn't move !"
SECOND = "Ja,  «größer» ist\nnicht alles."
CUT = 8
"""Tokens left by truncation: fewer than the texts have, more than any template adds."""
MOST_LANGUAGES = 3
"""Each is set in turn; a few tell whether setting one has an effect at all."""
ROLES = ("bos", "eos", "unk", "pad", "sep", "cls", "mask")
_LANGUAGE = re.compile(r"__[a-z]{2,3}__|[a-z]{2,3}_[A-Z][A-Za-z]{1,3}")
"""How translation models spell a language: ``eng_Latn``, ``en_XX``, ``__en__``."""
DECODED = "a decoded pair"
LANGUAGES = "by language, "
"""How the names of fields begin that decoding gives, and those that a language has an effect on."""
PADDED = "a padded batch"

Fields = dict[str, Any]


def load(folder: Path) -> Any | None:
    """Return the tokenizer that AutoTokenizer gives for a folder; None where it gives none.

    No code of the folder is run.
    """
    from transformers import AutoTokenizer

    def read() -> Any:
        # before transformers makes a list of as many layers
        internals.check_counts(read_optional_json(folder, "config.json") or {})
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)

    with internals.quiet():
        loaded = tried(read)
    return None if isinstance(loaded, Failed) else loaded


def whole_encodings(tokenizer: Any) -> Fields:
    """Return what a tokenizer of transformers makes of the fixed texts, as JSON values by field.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
        Left as it was.

    Returns
    -------
    dict
        ``{"token_type_ids of a pair": [0, 0, 1], "padding_side": "right", ...}``. A call that fails
        has the kind of its error as the value of one field.
    """
    mask = {"return_special_tokens_mask": True}
    bare, cut = {"add_special_tokens": False}, {"truncation": True, "max_length": CUT}
    calls: dict[str, Callable[[], Any]] = {
        "a text": lambda: tokenizer(FIRST, **mask),
        "a pair": lambda: tokenizer(FIRST, SECOND, **mask),
        "a text without special tokens": lambda: tokenizer(FIRST, **bare),
        "a pair without special tokens": lambda: tokenizer(FIRST, SECOND, **bare),
        f"a text cut to {CUT} tokens": lambda: tokenizer(FIRST, **cut),
        f"a pair cut to {CUT} tokens": lambda: tokenizer(FIRST, SECOND, **cut),
    }
    if getattr(tokenizer, "pad_token_id", None) is not None:
        calls[PADDED] = lambda: tokenizer([SECOND, "a", FIRST], padding=True)
    fields: Fields = {}
    with internals.quiet():
        for what, call in calls.items():
            _note(fields, what, call)
        fields |= _settings(tokenizer)
        fields |= _decoded(tokenizer)
        fields |= _by_language(tokenizer)
    return fields


def difference(wanted: Fields, given: Fields, leave_out: Collection[str] = ()) -> str | None:
    """Return the first field of `wanted` that `given` has otherwise, in words; None if all agree.

    Fields whose names contain one of `leave_out` are not compared.
    """
    for name, value in wanted.items():
        if any(part in name for part in leave_out):
            continue
        other = given.get(name)
        if other != value:
            return f"{name}: {_short(other, value)} instead of {_short(value, other)}"
    return None


def digests(fields: Fields) -> dict[str, str]:
    """Return a short sha256 of each field."""
    return {
        name: hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
        for name, value in fields.items()
    }


def around(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return the ids that a tokenizer puts before and after a single text by default.

    Two empty lists where it adds nothing, or no way to tell.
    """

    def ids() -> tuple[list[int], list[int]]:
        plain = list(tokenizer(FIRST, add_special_tokens=False)["input_ids"])
        return plain, list(tokenizer(FIRST)["input_ids"])

    with internals.quiet():
        both = tried(ids)
    return ([], []) if isinstance(both, Failed) else parts_around(*both)


def parts_around(plain: list[int], whole: list[int]) -> tuple[list[int], list[int]]:
    """Return what stands before and after `plain` in `whole`.

    Examples
    --------
    >>> parts_around([5, 6], [1, 5, 6, 2]), parts_around([5, 6], [5, 7])
    (([1], [2]), ([], []))
    """
    for start in range(len(whole) - len(plain) + 1):
        end = start + len(plain)
        if plain and whole[start:end] == plain:
            return whole[:start], whole[end:]
    return [], []


def between(tokenizer: Any) -> list[int]:
    """Return the ids that a tokenizer puts between the texts of a pair."""

    def ids() -> tuple[list[int], ...]:
        first, second = (
            list(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in (FIRST, SECOND)
        )
        return first, second, list(tokenizer(FIRST, SECOND)["input_ids"])

    with internals.quiet():
        all_ids = tried(ids)
    if isinstance(all_ids, Failed):
        return []
    first, second, pair = all_ids
    return parts_around(second, parts_around(first, pair)[1])[0]


class Failed(str):
    """Why a call failed."""


def tried(call: Callable[[], Any]) -> Any:
    """Return what a call gives, or `Failed`; a panic of the Rust library is no Exception."""
    try:
        return call()
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        return Failed(type(error).__name__)


def _note(fields: Fields, what: str, call: Callable[[], Any]) -> None:
    """Note each part of an encoding as a field of its own."""
    encoding = tried(call)
    if isinstance(encoding, Failed):
        fields[what] = f"fails with {encoding}"
    elif isinstance(encoding, Mapping):
        fields |= {f"{key} of {what}": _plain(value) for key, value in encoding.items()}
    else:
        fields[what] = _plain(encoding)


def _plain(value: Any) -> Any:
    """Return a value as JSON would give it back."""
    return json.loads(json.dumps(value, default=str))


def _settings(tokenizer: Any) -> Fields:
    names = ("padding_side", "truncation_side", "model_max_length", "model_input_names",
             "clean_up_tokenization_spaces", "split_special_tokens")  # fmt: skip
    known = {name: _plain(getattr(tokenizer, name, None)) for name in names}
    for role in ROLES:
        token = getattr(tokenizer, f"{role}_token", None)
        if token is not None:
            known[f"{role}_token"] = str(token)
    return known


def _decoded(tokenizer: Any) -> Fields:
    fields: Fields = {}
    ids = tried(lambda: list(tokenizer(FIRST, SECOND)["input_ids"]))
    if isinstance(ids, Failed):
        return fields
    for what, settings in {
        DECODED: {},
        f"{DECODED}, special tokens skipped": {"skip_special_tokens": True},
        f"{DECODED}, spaces cleaned up": {"clean_up_tokenization_spaces": True},
        f"{DECODED}, spaces left": {"clean_up_tokenization_spaces": False},
    }.items():
        _note(fields, what, lambda settings=settings: tokenizer.decode(ids, **settings))  # type: ignore[misc]
    return fields


def languages(tokenizer: Any) -> list[str]:
    """Return a few languages that a tokenizer of a translation model can be set to."""
    if not hasattr(tokenizer, "src_lang"):
        return []
    own = [getattr(tokenizer, "src_lang", None), getattr(tokenizer, "tgt_lang", None)]
    table = tried(tokenizer.get_vocab)
    added = [] if isinstance(table, Failed) else sorted(filter(_LANGUAGE.fullmatch, table))
    known = dict.fromkeys([*(one for one in own if one), *added[:1], *added[-1:]])
    return list(known)[:MOST_LANGUAGES]


def set_language(tokenizer: Any, language: str, name: str = "src_lang") -> bool:
    """Set the language of a tokenizer; return whether that went well."""
    return not isinstance(tried(lambda: setattr(tokenizer, name, language)), Failed)


def _by_language(tokenizer: Any) -> Fields:
    """Return what setting a language changes; the settings are put back."""
    fields: Fields = {}
    names = [name for name in ("src_lang", "tgt_lang") if hasattr(tokenizer, name)]
    before = {name: getattr(tokenizer, name) for name in names}
    for language in languages(tokenizer):
        for name, call in (
            ("src_lang", lambda: tokenizer(FIRST)),
            ("tgt_lang", lambda: tokenizer(text_target=FIRST)),
        ):
            if name in names:
                set_language(tokenizer, language, name)
                _note(fields, f"a text, {name} {language}", call)
    for name, value in before.items():
        if value is not None:
            set_language(tokenizer, value, name)
    return {f"{LANGUAGES}{name}": value for name, value in fields.items()}


def _short(value: Any, other: Any) -> str:
    """Return a value in few characters, lists from the first place where they differ."""
    if isinstance(value, list) and isinstance(other, list):
        pairs = zip([*value, None], [*other, None], strict=False)
        at = next((i for i, (a, b) in enumerate(pairs) if a != b), 0)
        start = max(at - 1, 0)
        more = "… " if start else ""
        return f"[{more}{', '.join(map(str, value[start : start + 6]))}]"
    return "nothing" if value is None else repr(value)[:80]

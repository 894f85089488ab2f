"""Whether a tokenizer, loaded as its users will load it, decodes hard texts to themselves."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from tokensurgeon.checkpoint import transformers_internals as internals
from tokensurgeon.errors import TokenizerError
from tokensurgeon.vocabulary import Vocabulary
from tokensurgeon.vocabulary.hard_text import hard_texts
from tokensurgeon.vocabulary.parts import guarded

FROM_FILE, AUTO = "Tokenizer.from_file", "AutoTokenizer"


@dataclass(frozen=True)
class Reload:
    """The result of one way of loading.

    Attributes
    ----------
    route : str
        "Tokenizer.from_file" or "AutoTokenizer".
    texts, kept : int
        Number of hard texts, and of those that decode to themselves.
    lost : tuple of str
        The first characters of each of the others.
    same_ids : int
        Number of hard texts with the same ids as in our own loading.
    failed : str or None
        Why the tokenizer could not be loaded.
    """

    route: str
    texts: int
    kept: int = 0
    lost: tuple[str, ...] = ()
    same_ids: int = 0
    failed: str | None = None


def check_reload(vocabulary: Vocabulary) -> tuple[Reload, ...]:
    """Load a vocabulary's file in both ways and encode every hard text; never raises."""
    folder = vocabulary.folder
    if folder is None or not (folder / "tokenizer.json").is_file():
        reason = "there is no tokenizer.json to load"
        return tuple(Reload(route, len(hard_texts()), failed=reason) for route in (FROM_FILE, AUTO))
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    from_file = Tokenizer.from_file(str(folder / "tokenizer.json"))
    from_file.no_truncation()
    from_file.no_padding()
    settings = {"local_files_only": True, "trust_remote_code": False}
    with internals.quiet():
        try:
            auto = guarded(
                "loading", lambda: AutoTokenizer.from_pretrained(str(folder), **settings)
            )
        except TokenizerError as error:
            second = Reload(AUTO, len(hard_texts()), failed=str(error))
        else:
            second = _try_texts(vocabulary, AUTO, auto)
    return _try_texts(vocabulary, FROM_FILE, from_file), second


def _try_texts(vocabulary: Vocabulary, route: str, loaded: Any) -> Reload:
    kept, same, lost = 0, 0, []
    for text in hard_texts():
        try:
            ids, decoded = guarded("a text", partial(_round_trip, loaded, text))
        except TokenizerError:
            ids, decoded = [], None
        if decoded == text:
            kept += 1
        else:
            lost.append(text[:24])
        own = vocabulary.tokenizer.encode(text, add_special_tokens=False).ids if ids else None
        same += ids == own
    return Reload(route, len(hard_texts()), kept, tuple(lost), same)


def _round_trip(loaded: Any, text: str) -> tuple[list[int], str | None]:
    """Return the ids of a text and the text that they decode to; transformers gives ids alone."""
    encoded = loaded.encode(text, add_special_tokens=False)
    ids = list(getattr(encoded, "ids", encoded))
    return ids, str(loaded.decode(ids, skip_special_tokens=False))

"""Whether a tokenizer, loaded as its users will load it, decodes hard texts to themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
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

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)


def check_reload(vocabulary: Vocabulary) -> tuple[Reload, ...]:
    """Load a vocabulary's file in both ways and encode every hard text; never raises."""
    texts = hard_texts()
    folder = vocabulary.folder
    if folder is None or not (Path(folder) / "tokenizer.json").is_file():
        reason = "there is no tokenizer.json to load"
        return tuple(Reload(route, len(texts), failed=reason) for route in (FROM_FILE, AUTO))
    return _from_file(vocabulary, folder), _auto(vocabulary, folder)


def _from_file(vocabulary: Vocabulary, folder: Path) -> Reload:
    from tokenizers import Tokenizer

    loaded = Tokenizer.from_file(str(folder / "tokenizer.json"))
    loaded.no_truncation()
    loaded.no_padding()
    return _try_texts(
        vocabulary,
        FROM_FILE,
        lambda text: list(loaded.encode(text, add_special_tokens=False).ids),
        lambda ids: str(loaded.decode(ids, skip_special_tokens=False)),
    )


def _auto(vocabulary: Vocabulary, folder: Path) -> Reload:
    from transformers import AutoTokenizer

    with internals.quiet():
        try:
            loaded = guarded(
                "loading",
                lambda: AutoTokenizer.from_pretrained(
                    str(folder), local_files_only=True, trust_remote_code=False
                ),
            )
        except TokenizerError as error:
            return Reload(AUTO, len(hard_texts()), failed=str(error))
        return _try_texts(
            vocabulary,
            AUTO,
            lambda text: list(loaded.encode(text, add_special_tokens=False)),
            lambda ids: str(loaded.decode(ids, skip_special_tokens=False)),
        )


def _try_texts(
    vocabulary: Vocabulary,
    route: str,
    encode: Callable[[str], list[int]],
    decode: Callable[[list[int]], str],
) -> Reload:
    kept, same, lost = 0, 0, []
    for text in hard_texts():
        try:
            ids = guarded("encoding", lambda text=text: encode(text))  # type: ignore[misc]
            decoded = guarded("decoding", lambda ids=ids: decode(ids))  # type: ignore[misc]
        except TokenizerError:
            ids, decoded = [], None
        if decoded == text:
            kept += 1
        else:
            lost.append(text[:24])
        own = vocabulary.tokenizer.encode(text, add_special_tokens=False).ids if ids else None
        same += ids == own
    return Reload(route, len(hard_texts()), kept, tuple(lost), same)

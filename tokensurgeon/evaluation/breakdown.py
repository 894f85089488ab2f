"""Where the loss comes from: by shared and missing tokens, and by kind of token.

The parts of a breakdown add up to the bits per byte of the whole. The kind of a token is read from
its exact bytes, never from its spelling.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tokensurgeon.alignment import Alignment
from tokensurgeon.arrays import Float64, Ids
from tokensurgeon.evaluation.metrics import LN2
from tokensurgeon.evaluation.scoring import Scores
from tokensurgeon.vocabulary import Vocabulary
from tokensurgeon.vocabulary.scripts import script_of

Label = Callable[[int], str]
"""From the id of a token to the part of the loss that it counts to."""


@dataclass(frozen=True)
class Part:
    """One part of the loss.

    Attributes
    ----------
    bits_per_byte : float
        Its loss in bits over the bytes of the *whole* text, so that parts add up.
    tokens, bytes : int
        How many tokens of this part were scored, and the bytes they stand for.
    mean_nats : float
        Mean loss of such a token.
    """

    bits_per_byte: float
    tokens: int
    bytes: int
    mean_nats: float


def token_kind(data: bytes | None) -> str:
    r"""Return the kind of a token from its bytes.

    ``control``, ``UTF-8 piece`` (part of a character), ``newlines`` (white space with a line end),
    ``spaces`` (other white space), ``multi-word`` (white space between two words), ``digits``,
    ``words`` (Latin letters), ``single letters`` (one of those, no white space beside it), ``Han``
    and the like for words in other scripts, ``punctuation`` (no letter, no digit), ``mixed`` (code
    such as ``x1`` or ``.get(``). White space around a word does not count.

    Examples
    --------
    >>> [token_kind(data) for data in (b" the", b" in the", b"2024", b"\n\n", b"().", "и".encode())]
    ['words', 'multi-word', 'digits', 'newlines', 'punctuation', 'Cyrillic']
    >>> token_kind(b"a"), token_kind(b" a")
    ('single letters', 'words')
    """
    if data is None:
        return "control"
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return "UTF-8 piece"
    core = text.strip()
    if not core:
        return "newlines" if any(c in text for c in "\n\r\u2028\u2029") else "spaces"
    if sum(any(map(str.isalnum, word)) for word in core.split()) > 1:
        return "multi-word"
    kinds = {_character(c) for c in core} - {"mark"}
    if len(kinds) > 1 and "letter" in kinds and kinds <= {"letter", "apostrophe"}:
        kinds = {"letter"}
    if kinds == {"letter"}:
        script = script_of(core) or ""
        if script != "Latin":
            return script
        return "single letters" if len(text) == 1 else "words"
    if kinds == {"digit"}:
        return "digits"
    if "letter" not in kinds and "digit" not in kinds:
        return "punctuation"
    return "mixed"


def _character(character: str) -> str:
    category = unicodedata.category(character)
    if category[0] in "LNM":
        return {"L": "letter", "N": "digit", "M": "mark"}[category[0]]
    return "apostrophe" if character in "'’" else "other"


def kind_label(vocabulary: Vocabulary) -> Label:
    """Return a function that gives the `token_kind` of a token."""
    return lambda token: token_kind(bytes_of(vocabulary, token))


def match_label(alignment: Alignment | None) -> Label:
    """Return a function that says whether a token is ``shared``, as all are without alignment."""
    if alignment is None:
        return lambda token: "shared"
    shared = set(np.flatnonzero(np.asarray(alignment.match)).tolist())
    return lambda token: "shared" if token in shared else "missing"


def split_by(scores: Scores, vocabulary: Vocabulary, label: Label) -> dict[str, Part]:
    """Split the loss over comparable chunks by a label of the token, the largest part first."""
    total = int(scores.n_bytes[scores.comparable].sum())
    if not total:
        return {}
    chosen = np.flatnonzero(scores.comparable)
    tokens, counts, (losses,) = sums_by_token(
        [scores.token_ids[i] for i in chosen], [scores.token_nll[i] for i in chosen]
    )
    parts: dict[str, list[float]] = {}
    for token, count, loss in zip(tokens, counts, losses, strict=True):
        part = parts.setdefault(label(token), [0.0, 0, 0])
        part[0] += loss
        part[1] += count
        part[2] += count * len(bytes_of(vocabulary, token) or b"")
    ordered = sorted(parts.items(), key=lambda item: (-item[1][0], item[0]))
    return {
        name: Part(loss / (LN2 * total), int(count), int(size), loss / count)
        for name, (loss, count, size) in ordered
    }


def sums_by_token(
    ids: Sequence[Ids], *values: Sequence[Float64 | Ids]
) -> tuple[list[int], list[int], list[list[float]]]:
    """Return the distinct tokens of some chunks, how often each occurs, and its sums of values."""
    tokens, index = np.unique(np.concatenate(ids), return_inverse=True)
    sums = [np.bincount(index, weights=np.concatenate(own)).tolist() for own in values]
    return tokens.tolist(), np.bincount(index).tolist(), sums


def bytes_of(vocabulary: Vocabulary, token: int) -> bytes | None:
    """Return the bytes of a token, None for a control or an id that no token has."""
    return vocabulary.token_bytes[token] if 0 <= token < vocabulary.n_rows else None

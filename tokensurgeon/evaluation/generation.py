"""Bytes per token on text that the model itself writes, and how canonical its tokens are.

What a vocabulary saves on a given text is saved in use only if the model *generates* long tokens
too. A segmentation is canonical where the tokenizer, given the same text, would have cut it so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np

from tokensurgeon.errors import EvaluationError
from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.text.encoding import prefix_of
from tokensurgeon.vocabulary import Vocabulary

DEFAULT_NEW_TOKENS = 128
"""Of a sample: beyond the first sentences, and short enough for a model on a CPU."""
Span = tuple[int, int, int]
"""Where a token starts and ends in bytes, and its id."""


@runtime_checkable
class Generator(Protocol):
    """What is asked of a model that writes."""

    def generate(
        self,
        prefix: Sequence[int],
        max_new_tokens: int,
        seed: int,
        starts: Sequence[Sequence[int]] = ((),),
    ) -> list[list[int]]:
        """Sample a continuation of the prefix and each of `starts`, at temperature 1."""
        ...


@dataclass(frozen=True)
class Generation:
    """Figures over the samples.

    Attributes
    ----------
    n_samples, n_tokens, n_bytes : int
        Ordinary tokens up to the end of text, and the bytes they spell.
    bytes_per_token : float or None
        None where nothing was written.
    non_canonical_samples : float
        Share of samples that the tokenizer would have cut differently.
    non_canonical_tokens : float
        Share of generated tokens that are not in the tokenizer's own cut of the same text.
    tokens_saved : float or None
        By which share fewer tokens are written for as many bytes than by the first model of a
        table; None for the first, and where nothing was written.
    """

    n_samples: int
    n_tokens: int
    n_bytes: int
    bytes_per_token: float | None
    non_canonical_samples: float
    non_canonical_tokens: float
    tokens_saved: float | None = None

    def beside(self, first: Generation) -> Generation:
        """Return the figures with what is saved against the first model of a table."""
        if not (self.bytes_per_token and first.bytes_per_token):
            return self
        return replace(self, tokens_saved=1 - first.bytes_per_token / self.bytes_per_token)


def measure_generation(
    model: Generator,
    vocabulary: Vocabulary,
    *,
    n: int,
    max_new_tokens: int = DEFAULT_NEW_TOKENS,
    seed: int = 0,
    name: str = "model",
    progress: Progress = no_progress,
) -> Generation:
    """Let a model write `n` samples after its prefix, and look at their tokens.

    Raises
    ------
    EvaluationError
        If the vocabulary has neither BOS nor EOS to start from.
    """
    prefix = prefix_of(vocabulary)
    if not prefix:
        raise EvaluationError(
            f"{name} has neither BOS nor EOS to start generating from; leave --generate out"
        )
    progress(0, 1, f"generating with {name}")
    samples = model.generate(list(prefix), max_new_tokens, seed, [[]] * n)
    tokens = size = foreign_samples = foreign_tokens = 0
    for sample in samples:
        ids = written_ids(sample, prefix, vocabulary)
        tokens += len(ids)
        size += sum(len(vocabulary.token_bytes[token] or b"") for token in ids)
        foreign = non_canonical(vocabulary, ids)
        foreign_tokens += foreign
        foreign_samples += foreign > 0
    progress(1, 1, f"generating with {name}")
    return Generation(
        n_samples=len(samples),
        n_tokens=tokens,
        n_bytes=size,
        bytes_per_token=size / tokens if tokens else None,
        non_canonical_samples=foreign_samples / len(samples) if samples else 0.0,
        non_canonical_tokens=foreign_tokens / tokens if tokens else 0.0,
    )


def written_ids(sample: Sequence[int], prefix: Sequence[int], vocabulary: Vocabulary) -> list[int]:
    """Return the ordinary tokens after the prefix, up to the first end of text."""
    ids = list(sample)
    if ids[: len(prefix)] == list(prefix):
        ids = ids[len(prefix) :]
    if vocabulary.eos_id is not None and vocabulary.eos_id in ids:
        ids = ids[: ids.index(vocabulary.eos_id)]
    return [
        token
        for token in ids
        if 0 <= token < vocabulary.n_rows and vocabulary.token_bytes[token] is not None
    ]


def non_canonical(vocabulary: Vocabulary, ids: Sequence[int]) -> int:
    """Return how many of the tokens the tokenizer would not have used for the same text.

    A token counts as canonical where the tokenizer puts the same token at the same bytes. Tokens
    that hold bytes which are no UTF-8 are not canonical; the text on either side is looked at by
    itself. A character that the sample ends in is left out.
    """
    data = b"".join(vocabulary.token_bytes[token] or b"" for token in ids)
    ends = np.cumsum([len(vocabulary.token_bytes[token] or b"") for token in ids]).tolist()
    stretches = _stretches(data)
    own: set[Span] = set()
    for start, text in stretches:
        own |= _canonical_spans(
            vocabulary, text, start, written=ids[0] if start == 0 and ids else None
        )
    stop = stretches[-1][0] + len(stretches[-1][1].encode("utf-8")) if stretches else 0
    cut_off = len(data) - stop < 4 and _starts_a_character(data[stop:])
    written = [span for span in _spans(ids, ends) if not (cut_off and span[1] > stop)]
    return sum(span not in own for span in written)


def _stretches(data: bytes) -> list[tuple[int, str]]:
    """Return the stretches of valid UTF-8, each with the byte at which it starts."""
    stretches = []
    start = 0
    while start < len(data):
        try:
            text, following = data[start:].decode("utf-8"), len(data)
        except UnicodeDecodeError as error:
            text, following = data[start : start + error.start].decode("utf-8"), start + error.end
        if text:
            stretches.append((start, text))
        start = following
    return stretches


def _starts_a_character(data: bytes) -> bool:
    """Return whether the bytes are the beginning of a character."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data"
    return False


def _canonical_spans(
    vocabulary: Vocabulary, text: str, start: int, written: int | None
) -> set[Span]:
    """Return the tokenizer's own cut of a stretch that starts at a byte of the sample.

    A space at the start of the sample may be the dummy prefix, which the tokenizer writes by
    itself: of the two readings the one is taken that begins with the `written` token.
    """
    shifts = (0, 1) if written is not None and text.startswith(" ") else (0,)
    cuts = []
    for shift in shifts:
        encoding = vocabulary.encode_with_bytes(text[shift:])
        ids = [int(token) for token in encoding.ids]
        ends = [int(end) + shift + start for end in encoding.ends]
        cuts.append((ids[:1] == [written], _spans(ids, ends, start)))
    return set(next((cut for begins, cut in cuts if begins), cuts[0][1]))


def _spans(ids: Sequence[int], ends: Sequence[int], start: int = 0) -> list[Span]:
    """Return (start, end, id) of each token."""
    return list(zip([start, *ends[:-1]], ends, ids, strict=True)) if ids else []

"""Bytes per token on text that the model itself writes, and how canonical its tokens are.

What a vocabulary saves on a given text is saved in use only if the model *generates* long tokens
too. A segmentation is canonical where the tokenizer, given the same text, would have cut it so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

from tokensurgeon.errors import EvaluationError
from tokensurgeon.evaluation.scoring import Progress, no_progress, prefix_of
from tokensurgeon.vocabulary import Vocabulary

DEFAULT_NEW_TOKENS = 128


@runtime_checkable
class Generator(Protocol):
    """What is asked of a model that writes."""

    def generate(
        self, prefix: Sequence[int], max_new_tokens: int, seed: int, n: int
    ) -> list[list[int]]:
        """Sample `n` continuations of the prefix, at temperature 1."""
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
    """

    n_samples: int
    n_tokens: int
    n_bytes: int
    bytes_per_token: float | None
    non_canonical_samples: float
    non_canonical_tokens: float

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)


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
        raise EvaluationError(f"{name} has neither BOS nor EOS to start generating from")
    progress(0, 1, f"generating with {name}")
    samples = model.generate(list(prefix), max_new_tokens, seed, n)
    tokens = size = foreign_samples = foreign_tokens = 0
    for sample in samples:
        ids = _written(sample, prefix, vocabulary)
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


def _written(sample: Sequence[int], prefix: Sequence[int], vocabulary: Vocabulary) -> list[int]:
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

    A token counts as canonical where the tokenizer puts the same token at the same bytes. The
    last character, where the sample ends inside it, is left out.
    """
    data = b"".join(vocabulary.token_bytes[token] or b"" for token in ids)
    text = data.decode("utf-8", errors="ignore")
    if text.encode("utf-8") != data[: len(text.encode("utf-8"))]:
        return len(ids)  # bytes that are no text: no tokenizer would write them
    best = _foreign(vocabulary, ids, text, 0)
    if text.startswith(" ") and best:
        # A tokenizer with a dummy prefix writes this space itself.
        best = min(best, _foreign(vocabulary, ids, text[1:], 1))
    return best


def _foreign(vocabulary: Vocabulary, ids: Sequence[int], text: str, shift: int) -> int:
    size = len(text.encode("utf-8")) + shift
    own = set(_spans(vocabulary, vocabulary.encode(text)))
    if shift and (not own or _length(vocabulary, text) != size):
        return len(ids)
    written = [span for span in _spans(vocabulary, ids) if span[1] <= size]
    return sum(span not in own for span in written)


def _length(vocabulary: Vocabulary, text: str) -> int:
    spans = _spans(vocabulary, vocabulary.encode(text))
    return spans[-1][1] if spans else 0


def _spans(vocabulary: Vocabulary, ids: Sequence[int]) -> list[tuple[int, int, int]]:
    spans = []
    end = 0
    for token in ids:
        start, end = end, end + len(vocabulary.token_bytes[token] or b"")
        spans.append((start, end, token))
    return spans

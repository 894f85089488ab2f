"""What engines of speculative decoding compare of a draft and a big model, and whether it holds.

The rules are those of mid-2026, as their sources have them. Each engine looks at files alone, so
they are read here as they lie in both folders.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tokensurgeon.checkpoint import encodings
from tokensurgeon.checkpoint.draft_target import text_config
from tokensurgeon.checkpoint.files import find_folder
from tokensurgeon.vocabulary import Vocabulary, load_vocabulary

SIZE_DIFFERENCE = 128
"""By which the vocabularies may differ in llama.cpp."""
FIRST_COMPARED = 5
"""The first id whose text llama.cpp compares: those before are unknown, start, end and the like."""


@dataclass(frozen=True)
class EngineRule:
    """What an engine asks of a draft.

    Attributes
    ----------
    engine : str
    rule : str
        In words.
    broken : str or None
        What breaks it; None where it holds.
    """

    engine: str
    rule: str
    broken: str | None = None

    @property
    def holds(self) -> bool:
        """Whether the engine takes the draft."""
        return self.broken is None


def engine_rules(
    draft: str | Path, big: str | Path, *, trust_remote_code: bool = False
) -> tuple[EngineRule, ...]:
    """Hold two checkpoints against the rule of each engine.

    Parameters
    ----------
    draft, big : str or Path
    trust_remote_code : bool
        For a configuration that is code of its own.

    Raises
    ------
    CheckpointError, TokenizerError
        If either cannot be read.
    """
    one, other = (_Side.read(path, trust_remote_code) for path in (draft, big))
    sizes = _other_size(one, other)
    texts = _other_text(one, other, 0)
    return (
        EngineRule(
            "transformers",
            "assistant_model: one vocab_size in both configurations, and the same text per id",
            sizes or texts,
        ),
        EngineRule(
            "vLLM",
            "one vocab_size in both configurations, and the same text per id, or "
            "use_heterogeneous_vocab, which drafts greedily from the tokens that both have",
            sizes or texts,
        ),
        EngineRule("SGLang", "one vocabulary: the same size, the same text per id", sizes or texts),
        EngineRule(
            "llama.cpp",
            "one kind of vocabulary, the same start and end put around a text, sizes within "
            f"{SIZE_DIFFERENCE}, the same text per id from {FIRST_COMPARED} on; its converter must "
            "give both files one kind, which it chooses by the architecture",
            _for_llama_cpp(one, other),
        ),
    )


@dataclass(frozen=True)
class _Side:
    """What is compared of a checkpoint."""

    vocabulary: Vocabulary
    n_rows: int
    around: tuple[list[int], list[int]] | None
    """Ids that its tokenizer puts before and after a text; None where transformers loads none."""

    @classmethod
    def read(cls, path: str | Path, trust_remote_code: bool) -> _Side:
        vocabulary = load_vocabulary(path)
        rows = getattr(text_config(str(path), trust_remote_code), "vocab_size", None)
        tokenizer = encodings.load(find_folder(path))
        return cls(
            vocabulary,
            rows if isinstance(rows, int) else vocabulary.n_rows,
            None if tokenizer is None else encodings.around(tokenizer),
        )


def _other_size(one: _Side, other: _Side) -> str | None:
    if one.n_rows == other.n_rows:
        return None
    return f"vocab_size is {one.n_rows:,} in the draft and {other.n_rows:,} in the big model"


def _other_text(one: _Side, other: _Side, first: int) -> str | None:
    """Name the first id that has another text; None if there is none among those of both."""
    pairs = zip(one.vocabulary.spellings, other.vocabulary.spellings, strict=False)
    for token, (own, its) in enumerate(pairs):
        if token >= first and own != its:
            return f"id {token} is {own!r} in the draft and {its!r} in the big model"
    return None


def _for_llama_cpp(one: _Side, other: _Side) -> str | None:
    own, its = (_kind(side.vocabulary) for side in (one, other))
    if own != its:
        return f"the vocabulary is {own} in the draft and {its} in the big model"
    if one.around != other.around:
        return (
            f"a text stands between the ids {one.around} in the draft and {other.around} in the "
            "big model"
        )
    if abs(one.n_rows - other.n_rows) > SIZE_DIFFERENCE:
        return _other_size(one, other)
    return _other_text(one, other, FIRST_COMPARED)


def _kind(vocabulary: Vocabulary) -> str:
    """Name the kind of a vocabulary, as far as llama.cpp tells kinds apart."""
    facts = vocabulary.segmentation
    return f"{facts['model']} over {'bytes' if facts['byte_level'] else 'characters'}"

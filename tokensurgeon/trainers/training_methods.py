"""A table of the methods: what each makes, counts and is run by. It imports none of their code."""

from __future__ import annotations

from dataclasses import dataclass

ENCODERS = ("bpe", "min-tokens")
_RUNS = ("words", "runs")
SPARE = 0.15
"""Share of tokens that `extend` learns beyond those asked, and drops again. SmolLM2-135M's
tokenizer and 4,000 tokens of technical manuals: 0.15 gives 3.093 bytes per token on held-out
manuals and 2,368 tokens used there, 0.5 gives 3.091 and 2,494, none 3.087 and 2,228."""


@dataclass(frozen=True)
class Method:
    """What a method makes and needs.

    Attributes
    ----------
    says : str
        What it makes, in words for cards and help.
    tables : tuple of {"words", "runs", "chunks"}
        Which segments are counted for it.
    encoders : tuple of str
        Which encoders can run its vocabulary; the first is the default.
    lists : bool
        Whether it takes a list of terms.
    needs_words : bool
        Whether it refuses text without a pre-tokenizer.
    """

    says: str
    tables: tuple[str, ...] = ("words",)
    encoders: tuple[str, ...] = ENCODERS
    lists: bool = False
    needs_words: bool = False


def _across(says: str, *tables: str, encoders: tuple[str, ...] = ENCODERS) -> Method:
    return Method(says, tables or _RUNS, encoders, needs_words=True)


METHODS_BY_NAME: dict[str, Method] = {
    "bpe": Method("byte-level BPE"),
    "unigram": Method("byte-level Unigram", encoders=("unigram",)),
    "wordpiece": Method("byte-level WordPiece", encoders=("wordpiece",)),
    "superbpe": _across("byte-level BPE with tokens of several words (SuperBPE)"),
    "boundless": _across("byte-level BPE that merges whole words (BoundlessBPE)"),
    "supertoken": _across("byte-level BPE in random chunks of words", "words", "chunks"),
    "mwt": _across("byte-level BPE with frequent word n-grams"),
    "lzw": _across("phrases of LZW, pruned"),
    "pathpiece": Method("tokens that save the most tokens (PathPiece)", encoders=("min-tokens",)),
    "lib": _across(
        "units that shorten the text (less is better)", "runs", encoders=("min-tokens",)
    ),
    "parity": Method("byte-level BPE with similar token counts in all languages"),
    "characters": Method("byte-level BPE of short tokens"),
    "terms": Method("byte-level BPE with a list of terms", lists=True),
    "morphemes": Method("byte-level BPE inside morphemes first", lists=True, needs_words=True),
    "dna": Method("byte-level BPE over letters without words"),
    "bytes": Method("the 256 bytes"),
}
METHODS = tuple(METHODS_BY_NAME)

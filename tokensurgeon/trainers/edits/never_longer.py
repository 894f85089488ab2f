"""No text takes more tokens than before: why an extension keeps that, and a check that it does.

A BPE merges, of all neighbours in a piece of text, the pair that ranks first, until none is left;
each merge makes one token of two. The extension's new merges rank after all old ones, and no new
pair is an old one. So while an old merge applies, both tokenizers do the same, and reach the tokens
that the old one ends with. What the new one merges from there on, new merges or old ones that these
make possible, only lowers the number.

What this needs: the same pieces, thus the same normalizer, pre-tokenizer and added tokens; merges
that all apply, thus no dropout; the old tokens under their old names. Characters that the model
does not know become bytes or the unknown token before any merge, alike in both. A model that takes
a whole piece which is a token without merging it (`ignore_merges`) makes one token of it then, and
none can be fewer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer

from tokensurgeon.errors import SettingError, TokenizerError
from tokensurgeon.trainers.edits.base import Base
from tokensurgeon.vocabulary.hard_text import hard_texts


def check_guarantee(base: Base, across: bool) -> None:
    """Refuse what the guarantee cannot be given for.

    Raises
    ------
    SettingError
        If the cut between words is lifted, or the base drops merges at random.
    """
    if across:
        raise SettingError(
            "never_longer needs the base's own cut between words, which across lifts: leave one of "
            "the two out"
        )
    if base.dropout:
        raise SettingError(
            f"never_longer needs merges that all apply, and {base.name} drops {base.dropout:g} of "
            "them at random: leave it out"
        )


def refuse_longer(before: Tokenizer, after: Tokenizer, texts: Sequence[str], name: str) -> int:
    """Encode texts, their lines and hard texts by both, and return how many were compared.

    Raises
    ------
    TokenizerError
        If one takes more tokens after than before.
    """
    lines = [line for text in texts for line in text.splitlines(keepends=True)]
    compared = [*texts, *lines, *hard_texts()]
    for text, old, new in zip(
        compared, _lengths(before, compared), _lengths(after, compared), strict=True
    ):
        if new > old:
            raise TokenizerError(
                f"{name} extended takes {new} tokens for {text[:20]!r} and more, where it took "
                f"{old}; leave never_longer out, or give another base"
            )
    return len(compared)


def _lengths(tokenizer: Tokenizer, texts: Sequence[str]) -> Iterable[int]:
    encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    return (len(encoding.ids) for encoding in encodings)

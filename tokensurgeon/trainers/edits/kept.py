"""Which tokens a pruned tokenizer keeps, and why.

Whatever is asked, these are kept: added tokens, controls, what stands around a text, padding, the
unknown token, the bytes (the alphabet of a tokenizer over bytes, and byte-fallback tokens), of a
Unigram the token of the lowest score, on which the cost of an unknown character depends, and of a
BPE all tokens that the kept ones are merged from.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from tokensurgeon.errors import SettingError
from tokensurgeon.trainers.control_tokens import ids_around
from tokensurgeon.trainers.edits.base import Base, spelled_merges
from tokensurgeon.vocabulary.scripts import Writable, scripts_named
from tokensurgeon.vocabulary.token_bytes import byte_alphabet

_BYTE = re.compile(r"<0x[0-9A-F]{2}>\Z")
FEWEST_DOCUMENTS = 10
"""With fewer, leaving one out says nothing of text like it; bootstraps of documents ask as many."""
NO_MERGE = -1
"""Rank of a token of a BPE that no merge makes: before all that one does."""


@dataclass(frozen=True)
class Keep:
    """What is asked of a pruned tokenizer.

    Attributes
    ----------
    least_uses : int
        Keep tokens that the text uses so often.
    scripts : tuple of str
        Keep tokens that text of these Unicode scripts can hold, as `scripts_named` spells them.
    size : int or None
        Keep so many ids in all: those the text uses most, then those of the scripts, then the
        earliest merges of a BPE, the best scores of a Unigram, the lowest ids of a WordPiece.
    pad_to_multiple_of : int
        Keep further tokens, in that order, up to a multiple of this number.
    """

    least_uses: int = 1
    scripts: tuple[str, ...] = ()
    size: int | None = None
    pad_to_multiple_of: int = 1

    @classmethod
    def parse(
        cls, least_uses: int, scripts: Iterable[str], size: int | None, pad_to_multiple_of: int
    ) -> Keep:
        """Return it from what a user gave.

        Raises
        ------
        UnknownNameError
            If a script has no such name.
        """
        return cls(least_uses, scripts_named(scripts), size, pad_to_multiple_of)


@dataclass(frozen=True)
class Kept:
    """The tokens that are kept.

    Attributes
    ----------
    ids : list of int
        Ascending.
    why : dict of str to int
        How many are kept because they ``always`` are, are ``used`` by the text, are of the
        ``scripts``, are ``merged`` into kept ones, or ``fill`` up the size. Each counts once,
        under the first of these.
    """

    ids: list[int]
    why: dict[str, int]


def choose(base: Base, keep: Keep, uses: Mapping[int, int], needed: Collection[int] = ()) -> Kept:
    """Choose the tokens that are kept.

    Parameters
    ----------
    base : Base
    keep : Keep
    uses : mapping of int to int
        How often the text has each id.
    needed : collection of int
        Further ids that the text needs; see `BeforeUnknown`.

    Raises
    ------
    SettingError
        If the size is below what must be kept, or above what there is, or the text uses no token
        as often as asked.
    """
    parts = _Parts(base)
    kept: set[int] = set()
    always = _always(base)
    kept |= parts.missing(always, kept)
    must = len(kept)
    most = max(uses.values(), default=0)
    if 0 < most < keep.least_uses:
        raise SettingError(
            f"the text uses no token {keep.least_uses:,} times, and one of them {most:,} times at "
            "most: give a smaller number of uses"
        )
    used = {i for i, count in uses.items() if count >= keep.least_uses} | set(needed)
    scripts = _of_scripts(base, keep.scripts)
    every = set(base.tokenizer.get_vocab().values())
    step = keep.pad_to_multiple_of
    size = None if keep.size is None else _multiple(keep.size, step)
    if size is None:
        for wanted in (used, scripts):
            kept |= parts.missing(wanted, kept)
        size = _multiple(len(kept), step)
    if size < must:
        raise SettingError(
            f"{size:,} ids are too few: {base.name} has {must:,} that must be kept (controls and "
            f"other added tokens, bytes, the unknown token); give --size {must:,} or more"
        )
    if size > len(every):
        asked = f"a multiple of {step:,} takes {size:,} ids" if step > 1 else f"--size is {size:,}"
        raise SettingError(
            f"{asked}, and {base.name} has {len(every):,} tokens: give a smaller number"
        )
    rank = _ranks(base)
    orders = (
        sorted(used - kept, key=lambda i: (-uses.get(i, 0), rank.get(i, 0), i)),
        sorted(scripts - used - kept, key=lambda i: (rank.get(i, 0), i)),
        sorted(every - scripts - used - kept, key=lambda i: (rank.get(i, 0), i)),
    )
    for order in orders:
        _fill(kept, order, size, parts)
    asked_for = always | used | scripts
    merged = parts.missing(asked_for & kept, set()) - asked_for
    why = {
        "always": len(always),
        "used": len((used & kept) - always),
        "scripts": len((scripts & kept) - used - always),
        "merged": len(merged & kept),
    }
    why["fill"] = len(kept) - sum(why.values())
    return Kept(sorted(kept), why)


def _multiple(n: int, step: int) -> int:
    return -(-n // step) * step


def _fill(kept: set[int], order: Iterable[int], size: int, parts: _Parts) -> None:
    """Keep tokens in their order, each with what it is merged from, while they fit; in place."""
    for token in order:
        if len(kept) >= size:
            return
        if token not in kept:
            wanted = parts.missing([token], kept)
            if len(kept) + len(wanted) <= size:
                kept |= wanted


def _always(base: Base) -> set[int]:
    """Return the ids that are kept whatever is asked, without what they are merged from."""
    model = base.document["model"]
    id_of = base.tokenizer.get_vocab(with_added_tokens=False)
    kept = set(base.tokenizer.get_added_tokens_decoder())
    kept |= {*base.controls.values(), *ids_around(base.document["post_processor"])}
    if padding := base.stored.get("padding"):
        kept |= {padding["pad_id"]} & {*base.tokenizer.get_vocab().values()}
    alphabet = set(byte_alphabet().values())
    prefix = model.get("continuing_subword_prefix") or ""
    suffix = model.get("end_of_word_suffix") or ""
    spelled = base.vocabulary.token_bytes  # the space of a SentencePiece model is one byte, too
    for token, i in id_of.items():
        letter = token.removeprefix(prefix).removesuffix(suffix)
        is_byte = letter in alphabet or _BYTE.match(token) or len(spelled[i] or b"") == 1
        if is_byte or token == model.get("unk_token"):
            kept.add(i)
    if base.model_type == "Unigram":
        scores = [score for _, score in model["vocab"]]
        kept.add(scores.index(min(scores)))
        if model.get("unk_id") is not None:
            kept.add(int(model["unk_id"]))
    return kept


def _of_scripts(base: Base, scripts: tuple[str, ...]) -> set[int]:
    """Return the ids of tokens that text of the scripts can hold."""
    if not scripts:
        return set()
    writable = Writable.of(scripts)
    known = base.tokenizer.get_vocab(with_added_tokens=False).values()
    spelled = base.vocabulary.token_bytes
    return {i for i in known if (data := spelled[i]) is not None and writable.has(data)}


def _ranks(base: Base) -> dict[int, float]:
    """Return which tokens come first where the text does not say: the lower, the earlier."""
    id_of = base.tokenizer.get_vocab(with_added_tokens=False)
    model = base.document["model"]
    if base.model_type == "Unigram":
        return {i: -score for i, (_, score) in enumerate(model["vocab"])}
    if base.model_type == "WordPiece":
        return {i: i for i in id_of.values()}
    prefix = model.get("continuing_subword_prefix") or ""
    ranks: dict[int, float] = dict.fromkeys(id_of.values(), NO_MERGE)
    for rank, (left, right) in enumerate(spelled_merges(base.document)):
        token = id_of[left + right.removeprefix(prefix)]
        if ranks[token] == NO_MERGE:
            ranks[token] = rank
    return ranks


class _Parts:
    """What each token of a BPE is merged from; nothing for another tokenizer."""

    def __init__(self, base: Base) -> None:
        self.of: dict[int, set[int]] = {}
        if base.model_type != "BPE":
            return
        id_of = base.tokenizer.get_vocab(with_added_tokens=False)
        prefix = base.document["model"].get("continuing_subword_prefix") or ""
        for left, right in spelled_merges(base.document):
            token = id_of[left + right.removeprefix(prefix)]
            self.of.setdefault(token, set()).update((id_of[left], id_of[right]))

    def missing(self, tokens: Iterable[int], kept: Collection[int]) -> set[int]:
        """Return the tokens, and all that they are merged from, that are not kept yet."""
        found = {token for token in tokens if token not in kept}
        stack = list(found)
        while stack:
            for part in self.of.get(stack.pop(), ()):
                if part not in kept and part not in found:
                    found.add(part)
                    stack.append(part)
        return found


class BeforeUnknown:
    """The tokens that a WordPiece takes of a word before it gives the word up as unknown.

    No text shows them, yet they decide: without them the tokenizer would take shorter ones, and
    might get further. Other tokenizers have none.
    """

    def __init__(self, base: Base) -> None:
        model = base.document["model"]
        self._base, self._prefix = base, model.get("continuing_subword_prefix") or ""
        self._longest = int(model.get("max_input_chars_per_word") or 0)
        self._id_of: dict[str, int] = {}
        self._unknown: int | None = None
        if base.model_type == "WordPiece":
            self._id_of = base.tokenizer.get_vocab(with_added_tokens=False)
            self._unknown = self._id_of.get(model.get("unk_token") or "")
        self._known: dict[str, frozenset[int]] = {}

    def of(self, text: str, ids: Collection[int]) -> set[int]:
        """Return those of a text that is encoded as `ids`."""
        if self._unknown is None or self._unknown not in ids:
            return set()
        tokenizer = self._base.tokenizer
        if tokenizer.normalizer is not None:
            text = tokenizer.normalizer.normalize_str(text)
        words = [text]
        if tokenizer.pre_tokenizer is not None:
            words = [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)]
        return set().union(*(self._of_word(word) for word in set(words)))

    def _of_word(self, word: str) -> frozenset[int]:
        """Return the tokens that are taken, the longest first, where the word is unknown."""
        if word in self._known:
            return self._known[word]
        found: list[int] = []
        start = 0
        while start < len(word) <= self._longest:
            begun = self._prefix if start else ""
            ends = range(len(word), start, -1)
            end = next((e for e in ends if begun + word[start:e] in self._id_of), None)
            if end is None:
                break
            found.append(self._id_of[begun + word[start:end]])
            start = end
        self._known[word] = frozenset(found) if start < len(word) else frozenset()
        return self._known[word]


class Homes:
    """In which document each token was met: what would be missing had one been left out.

    A text says by itself how text like it fares: each document stands in turn for one that nobody
    looked at, and what no other document has would not have been kept.
    """

    def __init__(self) -> None:
        self.n_documents = 0
        self._of: dict[int, int] = {}
        self._several: set[int] = set()

    def add(self, ids: Iterable[int]) -> None:
        """Take in the ids of a document."""
        for token in set(ids) - self._several:
            if self._of.setdefault(token, self.n_documents) != self.n_documents:
                del self._of[token]
                self._several.add(token)
        self.n_documents += 1

    def left_out(self, base: Base, keep: Keep, uses: Mapping[int, int]) -> dict[str, int | None]:
        """Return the documents that would be encoded otherwise, and the tokens at fault.

        Both are None where there are too few documents to say, or where it is not the text's
        tokens that decide.
        """
        decided = keep.size is None and keep.least_uses == 1
        if self.n_documents < FEWEST_DOCUMENTS or not decided:
            return {"documents_left_out": None, "tokens_left_out": None}
        wanted = _always(base) | _of_scripts(base, keep.scripts) | self._several
        alone = set(self._of) - _Parts(base).missing(wanted, set())
        return {
            "documents_left_out": len({self._of[token] for token in alone}),
            "tokens_left_out": sum(uses[token] for token in alone),
        }


def count_dropped(uses: Mapping[int, int], kept: Collection[int]) -> int:
    """Return how many tokens of the text are not kept."""
    return sum(count for i, count in uses.items() if i not in kept)

"""A tokenized causal model as one over bytes: exact probabilities of a text and of its next byte.

A text x may be written by many sequences of tokens. Its probability is the sum over all that begin
with x: over the *covers* of x, whole tokens that spell a beginning of x and one more token that
spells the rest of it and perhaps goes on (Phan et al., 2024, arXiv 2410.09303; summed here over
every spelling, as Vieira et al., 2024, arXiv 2412.03719, not over those alone that the tokenizer
writes). Next to that, P(b | x) = P(xb) / P(x). The covers of a text are held as a frontier: after
each byte those that still fit it, with their masses.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from tokensurgeon.arrays import Float64, Ids
from tokensurgeon.checkpoint.embeddings import CAUSAL
from tokensurgeon.errors import EvaluationError
from tokensurgeon.models.language_model import LanguageModel
from tokensurgeon.models.token_tree import Place
from tokensurgeon.text.encoding import prefix_of
from tokensurgeon.vocabulary import Vocabulary
from tokensurgeon.vocabulary.prefix_table import Continuations, PrefixTable

SPACE = 0x20  # what SentencePiece puts in front of a text
END = 256
"""Index of what is no byte among next bytes: the end of the text, and every other control."""
LEAST_SHARE = 1e-3
"""Share of the mass below which a cover is left out, where a text is long; docs/concepts/byte-views
has what other values give."""
MOST_COVERS = 64
"""Covers that are held at most, so that memory is bounded: each keeps a key–value cache."""


class ByteView:
    """What a model of tokens says of bytes.

    Parameters
    ----------
    model : LanguageModel
        A causal one.
    vocabulary : Vocabulary
        Its own.
    least_share : float
        Covers with a smaller share of the mass are left out; 0 leaves out none that has any mass,
        which is exact, and in work exponential in the length of the text.
    most_covers : int or None
        Most that are held; None for any number.

    Attributes
    ----------
    table : PrefixTable of bytes
        The tokens that are text.
    no_text : int64
        Ids that are none: controls, unused ids, tokens that spell no byte, rows without a token.

    Raises
    ------
    EvaluationError
        If the model is not causal.
    """

    def __init__(
        self,
        model: LanguageModel,
        vocabulary: Vocabulary,
        *,
        least_share: float = LEAST_SHARE,
        most_covers: int | None = MOST_COVERS,
    ) -> None:
        if model.kind != CAUSAL:
            raise EvaluationError(
                f"a {model.kind} model says nothing of the next byte; give a causal one"
            )
        self.model, self.vocabulary = model, vocabulary
        self.least_share, self.most_covers = least_share, most_covers
        written = vocabulary.token_bytes[: model.n_rows]
        self.table: PrefixTable[bytes] = PrefixTable(written)
        text = np.zeros(model.n_rows, dtype=np.bool_)
        text[[token for token, data in enumerate(written) if data]] = True
        self.no_text: Ids = np.flatnonzero(~text)

    def start(self, text: bytes = b"") -> Reading:
        """Return the reading of nothing, at the start of a text.

        Where the tokenizer puts a space in front of a text, tokens may begin with it or not, as
        decoding takes it away. Some tokenizers put none in front of a text that begins with one.

        Parameters
        ----------
        text : bytes
            What is going to be read, as far as it is known.

        Raises
        ------
        EvaluationError
            If there is neither BOS nor EOS to start from.
        """
        prefix = prefix_of(self.vocabulary)
        if not prefix:
            raise EvaluationError(
                "the tokenizer has neither BOS nor EOS, so nothing predicts the first byte; name "
                "one in tokenizer_config.json"
            )
        own = (*prefix, *self.vocabulary.encode(text.decode("utf-8", "replace")))
        root = Reading(self, b"", (Cover(Place(self.model, prefix), b"", 0.0, 0.0),), own=own)
        probe = " x" if text.startswith(b" ") else "x"
        if self.vocabulary.bytes_of(self.vocabulary.encode(probe)) != b" " + probe.encode():
            return root
        (cover,) = root.covers
        bare = replace(cover, no_space=True)
        after, p = self.after(bare)
        bare = replace(bare, mass=_log(float(p[after.tokens].sum() + p[self.no_text].sum())))
        covers = (*cover.with_byte(self, SPACE), bare)
        return replace(root, covers=covers, log_kept=_log_sum(one.mass for one in covers))

    def read(self, data: bytes) -> Reading:
        """Read a text from its start; see `Reading.read`."""
        return self.start(data).read(data)

    def read_prompt(self, text: str) -> Reading:
        """Read a text that is to be gone on with: its beginning as the tokenizer cuts it.

        Covers are held from where a token may begin that the end of the text cuts off.
        Probabilities are those after the tokens before that, which are taken as given.

        Raises
        ------
        EvaluationError
            If the tokenizer loses text; besides as `read`.
        """
        data, encoding = text.encode(), self.vocabulary.encode_with_bytes(text)
        if not encoding.lossless:
            raise EvaluationError(
                f"the tokenizer does not give back a text of {len(data):,} bytes; give one that it "
                "can spell"
            )
        n_whole = int(np.searchsorted(encoding.ends, self._first_cut_off(data), side="right"))
        if not n_whole:
            return self.read(data)
        own = (*prefix_of(self.vocabulary), *encoding.ids)
        place = Place(self.model, own[: len(own) - len(encoding.ids) + n_whole])
        given = int(encoding.ends[n_whole - 1])
        begun = Reading(self, b"", (Cover(place, b"", 0.0, 0.0),), own=own)
        return begun.read(data[given:])

    def after(self, cover: Cover) -> tuple[Continuations, Float64]:
        """Return the tokens that go on after what is open of a cover, and p of every token."""
        p = cover.place.probabilities
        if cover.no_space and not cover.open:
            p = p.copy()
            p[self._spaced] = 0
        return self.table.after(cover.open), p

    def divided(
        self, covers: Sequence[Cover], total: float, own: tuple[int, ...]
    ) -> tuple[list[Cover], list[Cover]]:
        """Return the covers that are held, likeliest first, and those that are left out.

        Parameters
        ----------
        covers : sequence of Cover
        total : float
            Log of their mass.
        own : tuple of int
            As of `Reading`.
        """
        ordered = sorted(covers, key=lambda cover: -cover.mass)
        least = total + _log(self.least_share)
        n = sum(cover.mass >= least for cover in ordered)
        n = max(1, n if self.most_covers is None else min(n, self.most_covers))
        kept, left_out = ordered[:n], ordered[:0]
        for cover in ordered[n:]:
            ids = cover.place.ids
            (kept if ids == own[: len(ids)] else left_out).append(cover)
        fitting = [cover for cover in kept if cover.place.fits]
        if fitting:
            left_out += [cover for cover in kept if not cover.place.fits]
        return fitting or kept, left_out

    def _first_cut_off(self, data: bytes) -> int:
        """Return where the longest end of a text begins with which a longer token begins."""
        for start in range(max(0, len(data) - self.table.longest), len(data)):
            if self.table.goes_on(data[start:]):
                return start
        return len(data)

    @cached_property
    def _spaced(self) -> Ids:
        """Tokens that begin with a space."""
        after = self.table.after(b" ").tokens
        return np.concatenate([self.table.exactly(b" "), after])


N_ASIDE = 16
N_TAKEN_UP = 3
"""Bytes back from which covers that were left out are taken up again where none that is held goes
on, and how many: the likeliest. It is rare: the text is then one that few tokens spell."""


@dataclass(frozen=True)
class Cover:
    """Tokens that spell the beginning of a text, and the bytes of one that is not complete.

    Attributes
    ----------
    place : Place
        After the whole tokens.
    open : bytes
        What has been read of the next token.
    log_weight : float
        Log-probability of the whole tokens.
    mass : float
        Log-probability of the cover: the tokens, and then one that begins with `open`.
    no_space : bool
        At the start of a text: the next token begins with no space.
    """

    place: Place
    open: bytes
    log_weight: float
    mass: float
    no_space: bool = False

    def with_byte(self, view: ByteView, byte: int) -> Iterable[Cover]:
        """Yield what becomes of it after a byte: tokens that end there, and those that go on."""
        after, p = view.after(self)
        begun = self.open + bytes([byte])
        if byte not in after.next_symbols:
            return
        for token in view.table.exactly(begun).tolist():
            if p[token] > 0:
                weight = self.log_weight + _log(p[token])
                yield Cover(self.place.then(token), b"", weight, weight)
        mass = float(p[view.table.after(begun).tokens].sum())
        if mass > 0:
            yield replace(self, open=begun, mass=self.log_weight + _log(mass))


@dataclass(frozen=True)
class Reading:
    """A text that was read, byte by byte. Reading on gives another; this one stays.

    Attributes
    ----------
    view : ByteView
    text : bytes
        What was read, but for what `ByteView.read_prompt` takes as given.
    covers : tuple of Cover
        Likeliest first.
    log_kept : float
        Log of the mass of the covers that were never left out: no more than that of the text.
    log_left_out : float
        Log of the mass that covers had when they were left out: what the text may have more than
        `log_kept` at most.
    log_probability : float
        Log of the product of next-byte probabilities: what the covers that were held say. It is
        the text's where nothing was left out.
    aside : tuple of (int, Cover)
        Of the covers that were left out, the likeliest that ended at each of the last `N_ASIDE`
        bytes, and that byte.
    own : tuple of int
        Tokens by which the tokenizer spells the text, as far as it is known beforehand; covers
        along them are never left out, so that `log_kept` is at least theirs.
    """

    view: ByteView
    text: bytes
    covers: tuple[Cover, ...]
    log_kept: float = 0.0
    log_left_out: float = -np.inf
    log_probability: float = 0.0
    aside: tuple[tuple[int, Cover], ...] = ()
    own: tuple[int, ...] = ()

    def read(self, data: bytes) -> Reading:
        """Read on.

        Raises
        ------
        EvaluationError
            If no token goes on so, or the model has too few positions.
        """
        reading = self
        for byte in data:
            reading = reading._read_byte(byte)
        return reading

    def next_bytes(self) -> Float64:
        """Return the probability of each next byte, and of none (`END`), float64 (257,).

        They sum to one.
        """
        found = np.zeros(END + 1)
        for cover in self.covers:
            after, p = self.view.after(cover)
            weight = np.exp(cover.log_weight - self.log_kept)
            found[after.next_symbols] += weight * after.sums(p[after.tokens])
            if not cover.open:
                found[END] += weight * p[self.view.no_text].sum()
        found /= found.sum()
        return found

    def continuations(self) -> list[tuple[Cover, Ids, Float64]]:
        """Return for each cover the tokens that may come next, and the mass of each.

        Of a cover whose last token is whole those are all tokens; else those that begin with what
        was read of them. All masses sum to one.

        Returns
        -------
        list of (Cover, int64 (n,), float64 (n,))
        """
        found = []
        for cover in self.covers:
            after, p = self.view.after(cover)
            tokens = after.tokens
            if not cover.open:
                tokens = np.concatenate([tokens, self.view.no_text])
            found.append((cover, tokens, np.exp(cover.log_weight - self.log_kept) * p[tokens]))
        total = sum(masses.sum() for _, _, masses in found)
        return [(cover, tokens, masses / total) for cover, tokens, masses in found]

    def log_spelled(self) -> float:
        """Return the log-probability of all token sequences that end where the text ends.

        Of those that were left out at its last byte, the likeliest counts. It is never above
        `log_probability`.
        """
        left_out = [cover.mass for at, cover in self.aside if at == len(self.text)]
        ended = [cover.mass for cover in self.covers if not cover.open]
        share = _log_sum([*ended, *left_out]) - _log_sum([self.log_kept, *left_out])
        return self.log_probability + min(share, 0.0)

    def _read_byte(self, byte: int) -> Reading:
        text = self.text + bytes([byte])
        covers = [one for cover in self.covers for one in cover.with_byte(self.view, byte)]
        covers = covers or self._taken_up(text)
        total = _log_sum(cover.mass for cover in covers)
        if total == -np.inf:
            raise EvaluationError(
                f"no token of the model goes on with the byte {byte:#04x} after "
                f"{len(self.text):,} bytes; give text that its tokenizer can spell"
            )
        kept, left_out = self.view.divided(covers, total, self.own)
        ended = next((cover for cover in left_out if not cover.open), None)
        recent = [pair for pair in self.aside if pair[0] > len(text) - N_ASIDE]
        return replace(
            self,
            text=text,
            covers=tuple(kept),
            log_kept=_log_sum(cover.mass for cover in kept),
            log_left_out=_log_sum([self.log_left_out, *(cover.mass for cover in left_out)]),
            log_probability=self.log_probability + total - self.log_kept,
            aside=(*recent, *([(len(text), ended)] if ended is not None else ())),
        )

    def _taken_up(self, text: bytes) -> list[Cover]:
        """Return what became of covers that were left out, where no other goes on."""
        found: list[Cover] = []
        for at, cover in sorted(self.aside, key=lambda pair: -pair[1].mass)[:N_TAKEN_UP]:
            covers = [cover]
            for byte in text[at:]:
                covers = [one for each in covers for one in each.with_byte(self.view, byte)]
                covers = _few(covers)
            found += covers
        return found


def _few(covers: list[Cover]) -> list[Cover]:
    """Return the likeliest, and the likeliest that ended: with it a text can always go on."""
    ordered = sorted(covers, key=lambda cover: -cover.mass)
    rest = ordered[N_TAKEN_UP:]
    return ordered[:N_TAKEN_UP] + [cover for cover in rest if not cover.open][:1]


def _log(value: float) -> float:
    return float(np.log(value)) if value > 0 else -np.inf


def _log_sum(values: Iterable[float]) -> float:
    return float(np.logaddexp.reduce(np.fromiter(values, dtype=np.float64), initial=-np.inf))

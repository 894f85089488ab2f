"""New tokens: whether they are written where they should be, and what the model takes them to mean.

A place is where the new tokenizer has a token that the source lacks, and the source's tokens begin
and end there too. The patched model is asked for the token there, the source for the pieces that
spell it, after the same text.

Meaning: each model completes "The word X means" for new tokens that are words. The source then says
by how much the completion is likelier after X than after another of these words. Source models
write poor definitions, so the source's own stand beside; what a dictionary would say is not asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tokensurgeon.alignment import Alignment
from tokensurgeon.arrays import Float64, Ids
from tokensurgeon.evaluation.breakdown import token_kind
from tokensurgeon.evaluation.metrics import LN2
from tokensurgeon.evaluation.probes.estimates import Answers, Figure, figure
from tokensurgeon.evaluation.probes.probe_text import SPARE, ProbeText
from tokensurgeon.evaluation.probes.subject import Subject
from tokensurgeon.evaluation.probes.telling_apart import CHUNK
from tokensurgeon.models.next_tokens import ranks
from tokensurgeon.text.chunks import chunk_documents
from tokensurgeon.text.encoding import prefix_of

EMISSION, MEANING = "emission", "definitions"
FEW = 10
"""Rank below which a token is near the top: what a sampler with top-k 10 would still take."""
SHOT = "The word window means an opening in a wall that lets in light and air.\nThe word"
"""One definition, from which a model knows what is asked for."""
N_BYTES = 80
"""Of a definition: one clause."""
LONG_WORD = 4
"""Letters from which a new token counts as a word that can be defined."""


@dataclass(frozen=True)
class Place:
    """Where a text has a new token.

    Attributes
    ----------
    chunk : int
    first : int
        Which token of the chunk under the new tokenizer it is.
    pieces : tuple of int, int
        The source's tokens of the chunk that spell it: from, and up to.
    n_bytes : int
        Of the token.
    """

    chunk: int
    first: int
    pieces: tuple[int, int]
    n_bytes: int


def emission(
    source: Subject, patched: Subject, alignment: Alignment, text: ProbeText, n: int
) -> list[Figure | None]:
    """Ask for the new token, or its pieces, at `n` places."""

    def fits(chunk: str) -> bool:
        return all(one.room([chunk]) and one.reads(chunk) for one in (source, patched))

    every = [own.text for own in chunk_documents(text.texts, max_bytes_per_chunk=CHUNK)]
    chunks = text.drawn(every, SPARE * n, "places", fits)
    possible = places(source, patched, alignment, chunks)
    chosen = text.drawn(possible, n, "new tokens")
    if not chosen:
        return []
    used = sorted({place.chunk for place in chosen})
    at = {chunk: i for i, chunk in enumerate(used)}
    sequences = [[one.sequence(chunks[i]) for i in used] for one in (source, patched)]
    losses = [
        one.token_losses(own, EMISSION)
        for one, own in zip((source, patched), sequences, strict=True)
    ]
    rank = [ranks(one.model, own) for one, own in zip((source, patched), sequences, strict=True)]
    offsets = [len(prefix_of(one.vocabulary)) - 1 for one in (source, patched)]

    def spans(side: int, values: Sequence[Float64 | Ids]) -> list[Float64 | Ids]:
        """Return the values of the tokens at each place: the source's pieces, or the one token."""
        found = []
        for place in chosen:
            start, stop = place.pieces if side == 0 else (place.first, place.first + 1)
            own = values[at[place.chunk]]
            found.append(own[start + offsets[side] : stop + offsets[side]])
        return found

    sizes = [place.n_bytes for place in chosen]
    bits = [Answers.of([v.sum() / LN2 for v in spans(s, losses[s])], sizes) for s in (0, 1)]
    top = [[int(v.max()) for v in spans(side, rank[side])] for side in (0, 1)]

    def line(name: str, answers: Sequence[Answers | None], unit: str = "share") -> Figure | None:
        return figure(
            EMISSION,
            name,
            answers,
            unit=unit,
            higher_is_better=unit == "share",
            seed=text.seed,
        )

    own_nats = np.array([v.sum() for v in spans(1, losses[1])])
    kept = [sequences[1][at[p.chunk]][: p.first + offsets[1] + 1] for p in chosen]
    tokens = [sequences[1][at[p.chunk]][p.first + offsets[1] + 1] for p in chosen]
    by_pieces = _by_pieces(patched, alignment, kept, tokens)
    return [
        line("new tokens, from their text", bits, "bits per byte"),
        line("likeliest there", [Answers.of([float(r == 0) for r in own]) for own in top]),
        line(
            f"among the {FEW} likeliest", [Answers.of([float(r < FEW) for r in own]) for own in top]
        ),
        line("of the token and its old pieces, the token", [None, _share(own_nats, by_pieces)]),
    ]


def places(
    source: Subject, patched: Subject, alignment: Alignment, chunks: Sequence[str]
) -> list[Place]:
    """Return every place of some texts where a new token stands between borders of the source.

    The first token of a text is left out: what stands before it is no text.
    """
    missing = frozenset(alignment.missing.tolist())
    found = []
    both = (one.vocabulary.encode_many(chunks) for one in (source, patched))
    for i, (theirs, own) in enumerate(zip(*both, strict=True)):
        # Of tokens that end at one byte the last does; a token without bytes is no border.
        border = {int(end): j + 1 for j, end in enumerate(theirs.ends)}
        starts = [0, *own.ends[:-1].tolist()]
        for j, (token, start, end) in enumerate(zip(own.ids, starts, own.ends, strict=True)):
            if j and token in missing and start in border and int(end) in border and end > start:
                pieces = border[start], border[int(end)]
                found.append(Place(i, j, pieces, int(end) - start))
    return found


def _by_pieces(
    patched: Subject, alignment: Alignment, before: Sequence[list[int]], tokens: Sequence[int]
) -> Float64:
    """Return what the shared tokens that spell each new one cost there, in nats; inf if none."""
    vocabulary = patched.vocabulary
    missing = frozenset(alignment.missing.tolist())
    nats = np.full(len(tokens), np.inf)
    spelled = []
    for i, token in enumerate(tokens):
        pieces = vocabulary.pieces_of(vocabulary.token_bytes[token] or b"", forbid=missing)
        most = patched.model.max_positions
        if pieces and (most is None or len(before[i]) + len(pieces) <= most):
            spelled.append((i, [*before[i], *pieces], len(pieces)))
    losses = patched.token_losses([own for _, own, _ in spelled], f"{EMISSION}: old pieces")
    for (i, _, n), own in zip(spelled, losses, strict=True):
        nats[i] = own[-n:].sum()
    return nats


def _share(token: Float64, pieces: Float64) -> Answers:
    """Return the share of the token's probability in that of both routes, from nats."""
    return Answers.of((1 / (1 + np.exp(np.clip(token - pieces, -700, 700)))).tolist())


def definitions(
    source: Subject, patched: Subject, alignment: Alignment, text: ProbeText, n: int
) -> list[Figure | None]:
    """Let both models define `n` new tokens, and the source say whether the definition fits."""
    subjects = (source, patched)
    words = [word for word, _ in _words(alignment)]
    token_of = dict(_words(alignment))

    def fits(word: str) -> bool:
        prompt = f"{SHOT}{word} means"
        if not all(one.room([prompt], N_BYTES // 2) and one.reads(prompt) for one in subjects):
            return False
        return token_of[word] in patched.sequence(prompt)

    chosen = text.drawn(words, n, MEANING, fits)
    if len(chosen) < 2:
        return []
    prompts = [f"{SHOT}{word} means" for word in chosen]
    others = [f"{SHOT}{word} means" for word in [*chosen[1:], chosen[0]]]
    gains, right = [], []
    for one in subjects:
        written = [own.text.split("\n")[0] for own in one.write(prompts, N_BYTES, MEANING)]
        usable = [
            bool(own.strip())
            and all(source.room([p + own]) and source.reads(p + own) for p in (mine, theirs))
            for own, mine, theirs in zip(written, prompts, others, strict=True)
        ]
        index = np.flatnonzero(usable).tolist()
        bits = np.zeros((2, len(chosen)))
        for row, before in enumerate((prompts, others)):
            starts = [len(before[i].encode()) for i in index]
            whole = [before[i] + written[i] for i in index]
            bits[row, index] = source.losses(whole, starts, MEANING) / LN2
        gain = bits[1] - bits[0]
        gains.append(Answers.of(gain.tolist()))
        # A definition that is not there, or fits both words alike, fits none.
        right.append(Answers.of((gain > 0).astype(float).tolist()))
    return [
        figure(
            MEANING,
            "what a definition gains by its own word",
            gains,
            unit="bits",
            seed=text.seed,
        ),
        figure(MEANING, "definitions likelier after their own word", right, seed=text.seed),
    ]


def _words(alignment: Alignment) -> list[tuple[str, int]]:
    """Return the new tokens that are words after a space, in lower case, with their ids."""
    found = []
    for token in alignment.missing.tolist():
        data = alignment.target.token_bytes[token]
        if (
            data is None
            or not data.startswith(b" ")
            or token_kind(data) in ("mixed", "UTF-8 piece")
        ):
            continue
        word = data.decode("utf-8")
        letters = word[1:]
        if len(letters) >= LONG_WORD and letters.isalpha() and letters == letters.lower():
            found.append((word, token))
    return found

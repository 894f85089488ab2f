"""Write on after a prompt, also where it ends inside a token.

A prompt that ends where the tokenizer would not have cut shows the model tokens that it has never
seen end there. Healing takes back what may be cut off: of all covers of the prompt's end and the
tokens that complete them one is drawn, by its probability. At temperature 1 the text that follows
is then drawn from what the model says of text that begins with the prompt's bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tokensurgeon.arrays import Float64
from tokensurgeon.errors import EvaluationError, SettingError
from tokensurgeon.models.batches import batches_of_one_length
from tokensurgeon.models.covers import END, ByteView, Cover
from tokensurgeon.models.language_model import LanguageModel
from tokensurgeon.models.sampling import sample
from tokensurgeon.models.token_tree import Place
from tokensurgeon.runtime.stopped import END as END_OF_TEXT
from tokensurgeon.runtime.stopped import stopped_by
from tokensurgeon.text.encoding import prefix_of
from tokensurgeon.vocabulary import Vocabulary
from tokensurgeon.vocabulary.prefix_table import Continuations


@dataclass(frozen=True)
class Written:
    """A prompt and what a model wrote after it.

    Attributes
    ----------
    prompt : str
    continuation : bytes
        What follows the prompt's bytes.
    ids : tuple of int
        All tokens, those of the prompt first, without BOS.
    taken_back : bytes
        The end of the prompt that healing read anew, as part of the first token that was drawn;
        empty where it drew none that begins before the end.
    n_prompt_ids : int
        Tokens that were read before the first draw, BOS among them.
    n_new_ids : int
        Tokens that were drawn, without the one that ends the text.
    stopped : str
        Why writing ended: ``end`` of the text, the ``limit`` of tokens, or the model's
        ``positions``, of which none is left.
    """

    prompt: str
    continuation: bytes
    ids: tuple[int, ...]
    taken_back: bytes = b""
    n_prompt_ids: int = 0
    n_new_ids: int = 0
    stopped: str = ""

    @property
    def n_bytes(self) -> int:
        """Length of the continuation."""
        return len(self.continuation)

    @property
    def text(self) -> str:
        """The continuation as text; bytes that are no UTF-8 become U+FFFD."""
        return self.continuation.decode("utf-8", "replace")


@dataclass(frozen=True)
class _Begun:
    """Where writing starts: after which tokens, and what was drawn by then."""

    prompt: str
    place: Place
    drawn: tuple[int, ...] = ()
    taken_back: bytes = b""

    @property
    def ids(self) -> tuple[int, ...]:
        return (*self.place.ids, *self.drawn)


def write_on(
    model: LanguageModel,
    vocabulary: Vocabulary,
    prompt: str,
    *,
    heal: bool = False,
    max_new_tokens: int = 128,
    temperature: float = 1.0,
    seed: int = 0,
    each: Callable[[bytes], None] | None = None,
) -> Written:
    """Write on after a prompt, each token read once.

    Parameters
    ----------
    model : LanguageModel
    vocabulary : Vocabulary
        The model's own.
    prompt : str
    heal : bool
        Complete a token that the prompt's end cuts off.
    max_new_tokens : int
        Tokens drawn at most, one that completes the prompt's end among them.
    temperature : float
        0 takes the likeliest token; of those that complete the prompt's end, one with the likeliest
        next bytes.
    seed : int
    each : callable(bytes) or None
        Given what every token adds, as it is drawn.

    Raises
    ------
    EvaluationError
        If the tokenizer cannot spell the prompt, or the prompt has more tokens than the model
        positions.
    SettingError
        If a number is out of its range.
    """
    _check(max_new_tokens, temperature)
    begun = _begin(model, vocabulary, prompt, heal, max_new_tokens, temperature, seed)
    first = _added(vocabulary, begun, begun.drawn)
    if each is not None and first:
        each(first)
    stop = _stop(vocabulary)
    written = list(begun.drawn)
    left = _room(model, len(begun.ids), max_new_tokens - len(written))
    if left and not (written and written[-1] in stop):
        cache, rest = _cached(begun)

        def tell(tokens: list[int]) -> None:
            if each is not None:
                each(
                    vocabulary.token_bytes[tokens[0]] or b"" if _known(vocabulary, tokens) else b""
                )

        import torch

        batch = torch.tensor([rest], device=model.device)
        (more,) = sample(model.model, batch, left, seed, stop, temperature, cache=cache, each=tell)
        written += more
    return _finished(vocabulary, begun, written, max_new_tokens)


def write_all(
    model: LanguageModel,
    vocabulary: Vocabulary,
    prompts: Sequence[str],
    *,
    heal: bool = False,
    max_new_tokens: int = 128,
    temperature: float = 1.0,
    seed: int = 0,
) -> list[Written]:
    """Write on after several prompts: the same tokens as `write_on` one by one.

    Prompts that begin with the same number of tokens are continued together. Parameters and errors
    are those of `write_on`; every prompt has draws of its own, from the same seed.
    """
    _check(max_new_tokens, temperature)
    begun = [
        _begin(model, vocabulary, prompt, heal, max_new_tokens, temperature, seed)
        for prompt in prompts
    ]
    stop = _stop(vocabulary)
    written = [list(one.drawn) for one in begun]
    open_ = [one.ids if not (one.drawn and one.drawn[-1] in stop) else () for one in begun]
    import torch

    for members in batches_of_one_length(open_):
        groups: dict[int, list[int]] = {}
        for i in members.tolist():
            groups.setdefault(len(written[i]), []).append(i)
        for n_drawn, group in groups.items():
            left = _room(model, len(open_[group[0]]), max_new_tokens - n_drawn)
            batch = torch.tensor([open_[i] for i in group], device=model.device)
            rows = sample(model.model, batch, left, [seed] * len(group), stop, temperature)
            for i, row in zip(group, rows, strict=True):
                written[i] += row
    return [
        _finished(vocabulary, one, own, max_new_tokens)
        for one, own in zip(begun, written, strict=True)
    ]


def _begin(
    model: LanguageModel,
    vocabulary: Vocabulary,
    prompt: str,
    heal: bool,
    max_new_tokens: int,
    temperature: float,
    seed: int,
) -> _Begun:
    """Return where writing starts; with healing, the first token is drawn."""
    if not heal or not max_new_tokens:
        ids = (*prefix_of(vocabulary), *vocabulary.encode(prompt))
        if not ids:
            raise EvaluationError(
                "the prompt has no token, and the tokenizer neither BOS nor EOS; give a prompt"
            )
        if _room(model, len(ids) - 1, 1) < 1:
            raise EvaluationError(
                f"the prompt has {len(ids):,} tokens and the model {model.max_positions:,} "
                "positions; give a shorter prompt"
            )
        return _Begun(prompt, Place(model, ids))
    found = ByteView(model, vocabulary).read_prompt(prompt).continuations()
    covers = [cover for cover, tokens, _ in found for _ in tokens]
    tokens = np.concatenate([tokens for _, tokens, _ in found])
    masses = np.concatenate([masses for _, _, masses in found])
    if temperature <= 0:
        rests = [_rest(vocabulary, *pair) for pair in zip(covers, tokens.tolist(), strict=True)]
        which = _likeliest(rests, masses)
    else:
        tempered = np.zeros(len(masses))
        some = masses > 0
        tempered[some] = np.exp((np.log(masses[some]) - np.log(masses.max())) / temperature)
        which = int(np.random.default_rng(seed).choice(len(masses), p=tempered / tempered.sum()))
    return _Begun(prompt, covers[which].place, (int(tokens[which]),), covers[which].open)


def _likeliest(rests: Sequence[bytes], masses: Float64) -> int:
    """Return the likeliest of some texts, taking the likeliest byte, or the end, again and again.

    The likeliest token need not begin so: a word's mass lies on all tokens that begin with it, and
    of superwords there are many.
    """
    which, n = np.arange(len(rests)), 0
    while True:
        symbols = [rests[i][n] if n < len(rests[i]) else END for i in which.tolist()]
        following = Continuations(which, np.array(symbols, dtype=np.int64))
        best = int(following.next_symbols[following.sums(masses[which]).argmax()])
        which = which[following.symbols == best]
        if best == END or len(which) == 1:
            return int(which[masses[which].argmax()])
        n += 1


def _rest(vocabulary: Vocabulary, cover: Cover, token: int) -> bytes:
    """Return what a token has beyond what was read of it."""
    data = vocabulary.token_bytes[token] if token < vocabulary.n_rows else None
    return (data or b"")[len(cover.open) :]


def _cached(begun: _Begun) -> tuple[Any, list[int]]:
    """Return the cache of what was read, and the ids that it lacks."""
    cache = begun.place.cache if begun.drawn else None
    return cache, list(begun.ids if cache is None else begun.drawn)


def _finished(
    vocabulary: Vocabulary, begun: _Begun, written: Sequence[int], max_new_tokens: int
) -> Written:
    ids = (*begun.place.ids, *written)
    text = ids[len(prefix_of(vocabulary)) :]
    stopped = stopped_by(written, max_new_tokens, vocabulary.eos_id)
    return Written(
        begun.prompt,
        _added(vocabulary, begun, written),
        text,
        begun.taken_back,
        len(begun.place.ids),
        len(written) - (stopped == END_OF_TEXT),
        stopped,
    )


def _added(vocabulary: Vocabulary, begun: _Begun, written: Sequence[int]) -> bytes:
    """Return the bytes of the tokens that were drawn, beyond the prompt."""
    known = [token for token in written if token < vocabulary.n_rows]
    return vocabulary.bytes_of(known)[len(begun.taken_back) :]


def _known(vocabulary: Vocabulary, tokens: Sequence[int]) -> bool:
    return tokens[0] < vocabulary.n_rows


def _stop(vocabulary: Vocabulary) -> tuple[int, ...]:
    return () if vocabulary.eos_id is None else (vocabulary.eos_id,)


def _room(model: LanguageModel, n_ids: int, most: int) -> int:
    longest = model.max_positions
    return most if longest is None else max(0, min(most, longest - n_ids))


def _check(max_new_tokens: int, temperature: float) -> None:
    if max_new_tokens < 0:
        raise SettingError(f"{max_new_tokens} new tokens are asked for; ask for 0 or more")
    if not 0 <= temperature < np.inf:
        raise SettingError(f"a temperature of {temperature:g} is no number from 0 on; give one")

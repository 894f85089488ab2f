"""Text written with hypertokens, by transformers' own `generate`, in batches and as a stream."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from tokensurgeon.errors import EvaluationError, UsageError
from tokensurgeon.runtime.hypertokens.codec import Codebook, Limits
from tokensurgeon.runtime.hypertokens.hyper_model import HyperModel
from tokensurgeon.runtime.stopped import END, stopped_by
from tokensurgeon.text.encoding import prefix_of
from tokensurgeon.vocabulary import Vocabulary

Seen = Callable[[int, str], None]
"""Called with the number of a prompt and what was written next."""


@dataclass(frozen=True)
class Continuation:
    """What was written after one prompt.

    Attributes
    ----------
    text : str
        Bytes that are no UTF-8 as U+FFFD.
    codes : tuple of int
        What the model chose, up to the end of the text.
    ids : tuple of int
        What these stand for.
    n_prompt_ids, n_prompt_codes : int
        Length of the prompt, before and after it was compressed.
    stopped : str
        Why writing ended: ``end`` of the text, the ``limit`` of codes, or the model's
        ``positions``, of which none is left.
    """

    text: str
    codes: tuple[int, ...]
    ids: tuple[int, ...]
    n_prompt_ids: int
    n_prompt_codes: int
    stopped: str = ""

    @property
    def n_new_ids(self) -> int:
        """Ids that were written."""
        return len(self.ids)

    @property
    def n_bytes(self) -> int:
        """Length in UTF-8."""
        return len(self.text.encode("utf-8"))


def continue_prompts(
    hyper: HyperModel,
    vocabulary: Vocabulary,
    prompts: Sequence[str],
    *,
    max_new_codes: int = 128,
    temperature: float = 0.0,
    top_k: int | None = None,
    seed: int = 0,
    use_cache: bool = True,
    seen: Seen | None = None,
) -> list[Continuation]:
    """Compress prompts and let the model go on, with hypertokens where it chooses them.

    Parameters
    ----------
    hyper : HyperModel
    vocabulary : Vocabulary
        The model's.
    prompts : sequence of str
        One batch. Shorter ones are padded on the left with a control token.
    max_new_codes : int
        Steps of the model; a code may stand for several ids. There are fewer where the model has
        too few positions.
    temperature : float
        0 takes the likeliest code.
    top_k : int or None
        Draw from the likeliest codes only.
    seed : int
        Of the draws; torch's own generator is as it was, afterwards.
    use_cache : bool
        Keep keys and values of what was read.
    seen : callable(number of the prompt, text), optional
        Called with each piece of text as soon as its characters are whole.

    Raises
    ------
    UsageError
        If there is no prompt, or nothing to start from.
    EvaluationError
        If a prompt leaves no position to write to, or several prompts cannot be padded.
    """
    if not prompts:
        raise UsageError("no prompt was given; give at least one")
    prefix = prefix_of(vocabulary)
    books = [Codebook(hyper.limits) for _ in prompts]
    sequences = [[*prefix, *vocabulary.encode(prompt)] for prompt in prompts]
    codes = [book.encode(ids) for book, ids in zip(books, sequences, strict=True)]
    if not all(codes):
        raise UsageError("a prompt is empty, and the model has no token to start from; give text")
    longest = max(map(len, codes))
    most = hyper.model.max_positions
    possible = max_new_codes
    if most is not None:
        possible = min(max_new_codes, most - longest)
    if possible < 1:
        raise EvaluationError(
            f"a prompt of {longest:,} codes leaves no position for another, of {most or 0:,}; give "
            "a shorter prompt"
        )
    pad = _pad_id(vocabulary, hyper.limits)
    if pad is None and len({len(own) for own in codes}) > 1:
        raise EvaluationError(
            "prompts of several lengths need a control token to pad with, and the tokenizer has "
            "none; give one prompt at a time"
        )
    padded = [[pad or 0] * (longest - len(own)) + own for own in codes]
    device = hyper.model.device
    ids = torch.tensor(padded, device=device)
    mask = torch.tensor([[0] * (longest - len(own)) + [1] * len(own) for own in codes])
    streamer = None if seen is None else _Stream(hyper.limits, vocabulary, seen)
    with (
        hyper.attached() as network,
        _settings(network, vocabulary, pad, possible, temperature, top_k, use_cache),
        torch.random.fork_rng(devices=[ids.device] if ids.is_cuda else []),
    ):
        torch.manual_seed(seed)
        written = network.generate(input_ids=ids, attention_mask=mask.to(device), streamer=streamer)
    results = []
    for i, (book, own) in enumerate(zip(books, written[:, longest:].tolist(), strict=True)):
        if vocabulary.eos_id in own:  # padding follows it
            own = own[: own.index(vocabulary.eos_id) + 1]
        stopped = stopped_by(own, max_new_codes, vocabulary.eos_id)
        own = own[:-1] if stopped == END else own
        new = book.decode(own)
        text = vocabulary.bytes_of(new).decode("utf-8", "replace")
        lengths = len(sequences[i]), len(codes[i])
        results.append(Continuation(text, tuple(own), tuple(new), *lengths, stopped))
    return results


def _pad_id(vocabulary: Vocabulary, limits: Limits) -> int | None:
    """Return an id to pad with: one that no hypertoken may hold, so that no codebook sees it."""
    for token in (vocabulary.pad_id, vocabulary.eos_id, *sorted(limits.disabled)):
        if token is not None and token in limits.disabled:
            return token
    return None


@contextmanager
def _settings(
    network: Any,
    vocabulary: Vocabulary,
    pad: int | None,
    max_new_codes: int,
    temperature: float,
    top_k: int | None,
    use_cache: bool,
) -> Iterator[None]:
    """Let `generate` go by these settings alone, and not by those of the checkpoint's file."""
    from transformers import GenerationConfig

    drawn = {"temperature": temperature, "top_k": top_k or 0} if temperature > 0 else {}
    before = network.generation_config
    network.generation_config = GenerationConfig(
        max_new_tokens=max_new_codes,
        do_sample=temperature > 0,
        eos_token_id=vocabulary.eos_id,
        pad_token_id=pad,
        use_cache=use_cache,
        **drawn,
    )
    try:
        yield
    finally:
        network.generation_config = before


class _Stream:
    """What `generate` pushes codes to: it decodes those of each sequence as they come."""

    def __init__(self, limits: Limits, vocabulary: Vocabulary, seen: Seen) -> None:
        self._limits, self._vocabulary, self._seen = limits, vocabulary, seen
        self._books: list[Codebook] = []
        self._decoders: list[codecs.IncrementalDecoder] = []
        self._ended: list[bool] = []

    def put(self, value: torch.Tensor) -> None:
        """Take the prompts, (n, length), then one code of each sequence at a time, (n,)."""
        if not self._books:
            for own in value.tolist():
                book = Codebook(self._limits)
                book.decode(own)
                self._books.append(book)
            self._decoders = [codecs.getincrementaldecoder("utf-8")("replace") for _ in value]
            self._ended = [False] * len(value)
            return
        for i, code in enumerate(value.tolist()):
            self._ended[i] |= code == self._vocabulary.eos_id
            if not self._ended[i]:
                data = self._vocabulary.bytes_of(self._books[i].decode([code]))
                self._say(i, self._decoders[i].decode(data))

    def end(self) -> None:
        """Say what is left of a character that was cut off."""
        for i, decoder in enumerate(self._decoders):
            self._say(i, decoder.decode(b"", final=True))

    def _say(self, i: int, text: str) -> None:
        if text:
            self._seen(i, text)

"""One model with its tokenizer, as probes ask it: what a text costs, and what it writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tokensurgeon.arrays import Float64
from tokensurgeon.evaluation.generation import written_ids
from tokensurgeon.models.batches import batches_by_length
from tokensurgeon.models.language_model import LanguageModel
from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.text.encoding import prefix_of
from tokensurgeon.vocabulary import Vocabulary

TOKENS_PER_REPORT = 1024
"""Scored between two reports of progress: some seconds of a small model on a processor."""


@dataclass(frozen=True)
class Written:
    """What a model wrote after a prompt.

    Attributes
    ----------
    ids : tuple of int
        Ordinary tokens up to the end of text.
    data : bytes
        What they spell.
    """

    ids: tuple[int, ...]
    data: bytes

    @property
    def text(self) -> str:
        """The text; a character that the end cuts through is left out."""
        for cut in range(min(4, len(self.data) + 1)):
            try:
                return self.data[: len(self.data) - cut].decode("utf-8")
            except UnicodeDecodeError:
                continue
        return self.data.decode("utf-8", "replace")

    @property
    def line(self) -> str:
        """The first line, without white space around it."""
        return self.text.lstrip().split("\n")[0].strip()


@dataclass(frozen=True)
class Subject:
    """A causal language model that answers probes.

    Attributes
    ----------
    name : str
    model : LanguageModel
    vocabulary : Vocabulary
        The model's own.
    progress : callable(done, total, what)
    """

    name: str
    model: LanguageModel
    vocabulary: Vocabulary
    progress: Progress = no_progress

    def sequence(self, text: str) -> list[int]:
        """Return the ids of a text as the model reads it, BOS (or EOS) first where there is one."""
        return [*prefix_of(self.vocabulary), *self.vocabulary.encode(text)]

    def room(self, texts: Sequence[str], more: int = 0) -> bool:
        """Return whether the model has positions for each text and for `more` new tokens."""
        most = self.model.max_positions
        return most is None or all(len(self.sequence(text)) + more <= most for text in texts)

    def reads(self, text: str) -> bool:
        """Return whether its tokens spell the text."""
        return self.vocabulary.encode_with_bytes(text).lossless

    def token_losses(self, sequences: Sequence[Sequence[int]], what: str) -> list[Float64]:
        """Return the loss in nats of each id but the first of each sequence."""
        losses: dict[int, Float64] = {}
        lengths = [len(sequence) for sequence in sequences]
        for members in batches_by_length(lengths, TOKENS_PER_REPORT):
            for i, own in zip(
                members, self.model.nll([sequences[i] for i in members]), strict=True
            ):
                losses[i] = own
            self.progress(len(losses), len(sequences), f"{what} under {self.name}")
        return [losses[i] for i in range(len(sequences))]

    def losses(self, texts: Sequence[str], starts: Sequence[int], what: str) -> Float64:
        """Return what each text costs from a byte on, given the text before it.

        Parameters
        ----------
        texts : sequence of str
            Each tokenised whole.
        starts : sequence of int
            A byte of each. A token that begins before it and ends after it counts whole.
        what : str
            For progress.

        Returns
        -------
        float64 (n_texts,)
            In nats.
        """
        encodings = self.vocabulary.encode_many(texts)
        prefix = prefix_of(self.vocabulary)
        sequences = [[*prefix, *encoding.ids] for encoding in encodings]
        sums = np.zeros(len(texts))
        of_tokens = self.token_losses(sequences, what)
        for i, (encoding, start) in enumerate(zip(encodings, starts, strict=True)):
            # Without a prefix the first token is given, and has no loss.
            ends = encoding.ends[0 if prefix else 1 :]
            sums[i] = of_tokens[i][ends > start].sum()
        return sums

    def write(
        self, prompts: Sequence[str | Sequence[int]], n_bytes: int, what: str, *, line: bool = False
    ) -> list[Written]:
        """Continue each prompt greedily.

        Parameters
        ----------
        prompts : sequence of str or of ids
            Ids are taken as they are.
        n_bytes : int
            Each continuation ends with the token that reaches this length, or with the end of text.
        what : str
            For progress.
        line : bool
            End with the first line that holds anything, too.
        """
        from tokensurgeon.models.next_tokens import greedy

        table, eos = self.vocabulary.token_bytes, self.vocabulary.eos_id

        def data(ids: Sequence[int]) -> bytes:
            return b"".join((table[i] if i < len(table) else None) or b"" for i in ids)

        def ends(ids: list[int]) -> bool:
            own = data(ids)
            over = line and b"\n" in own.lstrip()
            return over or len(own) >= n_bytes or ids[-1] == eos

        sequences = [self.sequence(one) if isinstance(one, str) else one for one in prompts]
        say = f"{what} written by {self.name}"
        self.progress(0, len(prompts), say)
        # A token is a byte at least, or says nothing: so many are enough.
        written = greedy(
            self.model,
            sequences,
            n_bytes,
            ends,
            lambda done: self.progress(done, len(prompts), say),
        )
        kept = [written_ids(own, (), self.vocabulary) for own in written]
        return [Written(tuple(ids), data(ids)) for ids in kept]

"""What every stage of a calibration needs, computed once: tracks, states, logsumexps, scores."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from tokensurgeon.calibration.byte_positions import Track, make_track, state_at
from tokensurgeon.calibration.calibration_texts import CalibrationTexts, split_texts
from tokensurgeon.calibration.contract import Doubles, Ids, Matrices, Rows, blocks
from tokensurgeon.evaluation.metrics import bits_per_byte
from tokensurgeon.evaluation.scoring import encode_chunks, score
from tokensurgeon.initialisers.contract import InitContext
from tokensurgeon.models.language_model import LanguageModel
from tokensurgeon.text.chunks import Chunk
from tokensurgeon.vocabulary import Vocabulary

if TYPE_CHECKING:
    import torch

LOGITS = 1 << 24
"""Most logits held at once."""
MOST_BYTES = 500_000
"""Of text that stages are fitted to; healing reads all that there is."""
MORE_BYTES = 1_500_000
"""Of text besides, for `refit`: it has the most parameters and reads the text once."""
SHARE_OF_MORE = 0.2
"""Of the time, that a run through it may take."""
MOST_PLACE_TOKENS = 1 << 19
"""Run to read new tokens at places of the source's choice; fewer where time is short."""
PASSES = 20
"""Runs through that text to be expected of all stages together, their gates included."""
SHARE_OF_PLACES = 0.25
"""Of the time, where it is short."""


@dataclass
class Workbench:
    """A source model, the target vocabulary and the texts between them.

    Attributes
    ----------
    model : LanguageModel
        The source.
    context : InitContext
        Vocabularies, alignment, pieces and the source's rows.
    texts : CalibrationTexts
    new : Ids
        Target ids whose rows an initialiser made: what most stages may change.
    shared : Ids
        Target ids whose rows were copied from the source.
    place_tokens : int
        Most tokens that are run to read new tokens at places of the source's choice.
    forward_tokens : int
        Tokens run through the body so far.
    """

    model: LanguageModel
    context: InitContext
    texts: CalibrationTexts
    new: Ids
    shared: Ids
    place_tokens: int = MOST_PLACE_TOKENS
    forward_tokens: int = 0
    _cache: dict[int, Rows] = field(default_factory=dict, repr=False)

    @property
    def new_and_shared(self) -> Ids:
        """All ids whose rows a stage may change, ascending."""
        return np.union1d(self.new, self.shared)

    @cached_property
    def source_track(self) -> Track:
        """The source's tokens on the text that stages are fitted to."""
        return self._track(self.context.source, self.texts.fit)

    @cached_property
    def target_track(self) -> Track:
        """The target's tokens on the same text."""
        return self._track(self.context.target, self.texts.fit)

    def _track(self, vocabulary: Vocabulary, chunks: tuple[Chunk, ...]) -> Track:
        return make_track(encode_chunks(vocabulary, chunks), chunks)

    def source_states(self, layer: int | None = None) -> Rows:
        """Return the source's states on the text, float32 (n_states, width); kept for next time.

        `layer` None is the final one. Only one early layer is kept at a time.
        """
        wanted = self.model.n_layers if layer is None else layer
        if wanted not in self._cache:
            for held in [each for each in self._cache if each != self.model.n_layers]:
                del self._cache[held]
            self._cache[wanted] = self.states(self.model, self.source_track.sequences, wanted)
        return self._cache[wanted]

    def target_states(self, matrices: Matrices, layer: int | None = None) -> Rows:
        """Return the patched model's states on the text, float32 (n_states, width)."""
        wanted = self.model.n_layers if layer is None else layer
        return self.states(self.patched(matrices), self.target_track.sequences, wanted)

    def next_tokens(self, matrices: Matrices, *, more: bool = False) -> tuple[Rows, Ids]:
        """Return the patched model's final states, and the token that follows each on the text.

        float32 (n, width) and int64 (n,), in the order of the text; tokens that nothing stands
        before are left out. With `more`, of all the text that was drawn.
        """
        track = self.target_track
        if more and self.texts.more:
            track = self._track(self.context.target, self.texts.fit + self.texts.more)
        states = self.states(self.patched(matrices), track.sequences, self.model.n_layers)
        here = np.flatnonzero(track.before >= 0)
        return states[track.before[here]], track.ids[here]

    def states(self, model: LanguageModel, sequences: Sequence[Sequence[int]], layer: int) -> Rows:
        """Return a model's states at all positions of some sequences, one after the other."""
        self.forward_tokens += sum(map(len, sequences))
        states = model.every_state(sequences, layer)
        return np.concatenate([np.zeros((0, model.width), np.float32), *states])

    def patched(self, matrices: Matrices) -> LanguageModel:
        """Return the source's body with these rows."""
        return self.model.patched(matrices.input, matrices.output, matrices.bias)

    def score(self, matrices: Matrices, chunks: tuple[Chunk, ...]) -> float:
        """Return bits per byte of a patched model."""
        return self.score_model(self.patched(matrices), chunks)

    def score_model(self, model: LanguageModel, chunks: tuple[Chunk, ...]) -> float:
        """Return bits per byte of the source itself, or of a model with the target's vocabulary."""
        own = self.context.source if model is self.model else self.context.target
        found = score(model, own, chunks)
        self.forward_tokens += int(found.n_tokens.sum())
        return bits_per_byte(float(found.nll.sum()), int(found.n_bytes.sum()))

    def raw(self, logits: Doubles) -> Doubles:
        """Return what state · row + bias must be for these final logits: scale and softcap undone.

        A logit that the softcap cannot reach becomes the nearest that it nearly can.
        """
        softcap = self.model.softcap
        if softcap is not None:
            logits = softcap * np.arctanh(np.clip(logits / softcap, -0.999, 0.999))
        return np.asarray(logits / self.model.logit_scale)

    def logits(self, states: Rows, rows: Rows, bias: Rows | None) -> torch.Tensor:
        """Return final logits, float32 (n_states, n_rows): one GEMM, then scale and softcap."""
        import torch

        device = self.context.device
        found = torch.from_numpy(states).to(device) @ torch.from_numpy(rows).to(device).T
        if bias is not None:
            found += torch.from_numpy(bias).to(device)
        if self.model.logit_scale != 1.0:
            found *= self.model.logit_scale
        softcap = self.model.softcap
        if softcap is not None:
            found = softcap * torch.tanh(found / softcap)
        return found

    def log_softmax(self, states: Rows, rows: Rows, bias: Rows | None) -> torch.Tensor:
        """Return log-probabilities, float32 (n_states, n_rows)."""
        found = self.logits(states, rows, bias)
        found -= found.logsumexp(1, keepdim=True)
        return found

    @cached_property
    def logsumexp(self) -> Doubles:
        """Logsumexp of the source's logits at each of its states, float64 (n_states,)."""
        states, context = self.source_states(), self.context
        found = np.empty(len(states))
        for part in blocks(len(states), max(1, LOGITS // context.n_source)):
            logits = self.logits(states[part], context.output_rows, context.output_bias)
            found[part] = logits.logsumexp(1).cpu().numpy()
        return found

    @cached_property
    def source_logprob(self) -> Doubles:
        """What the source says of each of its tokens, float64 (n_tokens,).

        A log-probability; 0 for a token that nothing stands before.
        """
        track, context = self.source_track, self.context
        found = np.zeros(len(track.ids))
        here = np.flatnonzero(track.before >= 0)
        states = self.source_states()
        for part in blocks(len(here), 1 << 16):
            at = here[part]
            rows = context.output_rows[track.ids[at]]
            logits = np.einsum("ij,ij->i", states[track.before[at]], rows).astype(np.float64)
            if context.output_bias is not None:
                logits += context.output_bias[track.ids[at]]
            logits *= self.model.logit_scale
            if self.model.softcap is not None:
                logits = self.model.softcap * np.tanh(logits / self.model.softcap)
            found[at] = logits - self.logsumexp[track.before[at]]
        return found

    @cached_property
    def occurrences(self) -> Occurrences:
        """Where target tokens stand between two borders that the source has too."""
        source, target = self.source_track, self.target_track
        before, after = state_at(source, target.starts), state_at(source, target.ends)
        clean = np.flatnonzero((before >= 0) & (after >= 0) & (target.ends > target.starts))
        n_until = np.searchsorted(source.ends, target.starts[clean], side="right")
        n_after = np.searchsorted(source.ends, target.ends[clean], side="right")
        total = np.concatenate([[0.0], np.cumsum(self.source_logprob)])
        first = source.ids[np.minimum(n_until, len(source.ids) - 1)] if len(source.ids) else clean
        return Occurrences(
            tokens=target.ids[clean],
            states=before[clean],
            logprob=total[n_after] - total[n_until],
            first=first,
        )


def make_workbench(
    model: LanguageModel,
    context: InitContext,
    *,
    new: Ids,
    shared: Ids,
    other: Sequence[str] = (),
    max_bytes: int = MOST_BYTES,
    seconds: float = float("inf"),
) -> Workbench:
    """Part the texts and return a workbench on as much of them as time and memory allow.

    Parameters
    ----------
    model : LanguageModel
        The source.
    context : InitContext
        `texts` are the calibration documents; without any the source writes some, from
        `context.seed`.
    new, shared : int64
        See `Workbench`.
    other : sequence of str
        Documents of another domain; the source writes some if there are none.
    max_bytes : int
        Most bytes of text to fit to.
    seconds : float
        What all stages together may take: the pace of the model is measured on the selection
        text, and the texts to fit to are cut to what it allows. Figures then depend on the clock.

    Raises
    ------
    CalibrationError
        If there is too little text.
    """
    texts = split_texts(
        model,
        context.source,
        context.target,
        context.texts,
        other,
        max_bytes=max_bytes,
        more_bytes=MORE_BYTES,
        seed=context.seed,
        progress=context.progress,
    )
    bench = Workbench(model, context, texts, new, shared)
    start = time.perf_counter()
    bench.score_model(model, texts.selection)
    took = time.perf_counter() - start
    pace = sum(chunk.n_bytes for chunk in texts.selection) / took
    bench.place_tokens = int(
        min(MOST_PLACE_TOKENS, SHARE_OF_PLACES * seconds * bench.forward_tokens / took)
    )
    # A state every second byte is more than most tokenizers have; three sets of states at once
    # of what all stages read, and one of what one does.
    room = context.memory_budget / (4 * model.width * 3) * 2
    allowed = min(pace * seconds / PASSES, room)
    used = np.cumsum([chunk.n_bytes for chunk in texts.fit])
    n = max(1, int(np.searchsorted(used, allowed)))
    more = np.cumsum([chunk.n_bytes for chunk in texts.more])
    spare = min(pace * seconds * SHARE_OF_MORE, 3 * (room - used[n - 1])) if n == len(used) else 0
    n_more = int(np.searchsorted(more, spare))
    bench.texts = replace(texts, fit=texts.fit[:n], more=texts.more[:n_more])
    return bench


@dataclass(frozen=True)
class Occurrences:
    """Target tokens whose both ends are borders of source tokens, one entry each.

    Attributes
    ----------
    tokens : int64 (n,)
    states : int64 (n,)
        The source's state before the token.
    logprob : float64 (n,)
        The source's log-probability of the pieces that stand there.
    first : int64 (n,)
        The source token that starts there.
    """

    tokens: Ids
    states: Ids
    logprob: Doubles
    first: Ids

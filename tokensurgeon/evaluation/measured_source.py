"""The source of a table: measured once, and its states lent to the output rows of the others.

What output rows lose on the source's own states is lost by the rows; what a patched model loses
beyond that is lost by its states. The states come from the pass that measures the source, so that
this figure costs a product with the rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from tokensurgeon.arrays import Float32, Float64, Ids
from tokensurgeon.checkpoint.embeddings import CAUSAL
from tokensurgeon.evaluation.protocol import Entry, EvaluationProtocol
from tokensurgeon.evaluation.scoring import TOKENS_PER_CALL, Scorer, Scores
from tokensurgeon.evaluation.shared_work import shared_work
from tokensurgeon.evaluation.span_relations import begins_of, states_before
from tokensurgeon.evaluation.table import EntryResult
from tokensurgeon.models.batches import batches_by_length
from tokensurgeon.models.language_model import LanguageModel
from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.text.encoding import Encoded

KEPT_BYTES = 1 << 28
"""Most bytes of states kept between two models: 256 MiB, little beside a model that wide.

These are 65,536 tokens at a width of 1024. Where there would be more, the source is run again for
each model that is measured beside it, its output rows left out.
"""


class MeasuredSource:
    """The losses of the first model of a table, and its final states.

    Parameters
    ----------
    protocol : EvaluationProtocol
    entry : Entry
        The source.
    progress : callable(done, total, what)
    lend : bool
        Whether models are measured beside it, which need its states.

    Attributes
    ----------
    entry : Entry
    scores : Scores
    """

    def __init__(
        self,
        protocol: EvaluationProtocol,
        entry: Entry,
        progress: Progress = no_progress,
        *,
        lend: bool = True,
    ) -> None:
        self._protocol, self.entry, self._progress = protocol, entry, progress
        self._model = _with_states(entry.model) if lend else None
        self._kept: dict[tuple[int, ...], Float32] = {}
        n_ids = sum(len(ids) for ids in self._encoded.ids)
        if self._model is not None and n_ids * 4 * self._model.width <= KEPT_BYTES:
            entry = replace(entry, model=_Keeping(self._model, self._kept))
        self.scores: Scores = protocol.score(entry, progress)

    def own_result(self) -> EntryResult:
        """Return the figures of the source."""
        return self._protocol.result(self.entry, self.scores)

    def result(self, entry: Entry) -> EntryResult:
        """Measure another model, and return its figures beside the source's."""
        scores = self._protocol.score(entry, self._progress)
        on_states = self._losses_on_states(entry, scores)
        return self._protocol.result(entry, scores, self.scores, on_states)

    def _losses_on_states(self, entry: Entry, own: Scores) -> Sequence[Float64] | None:
        """Return what each scored token of a model costs by its rows on the source's states.

        0 where the source has no state; None where rows and states do not fit.
        """
        model = _with_states(entry.model)
        if model is None or self._model is None or model.width != self._model.width:
            return None
        share, losses = shared_work(), dict[int, Float64]()
        # The states of other chunks are those of other processes.
        chosen = share.own(np.flatnonzero(own.comparable & self.scores.comparable))
        for i, states in self._states(chosen):
            losses[i] = np.zeros(len(own.token_ids[i]))
            start = int(own.start[i])
            theirs = begins_of(self.scores.token_ends[i], start)
            index = states_before(theirs, begins_of(own.token_ends[i], start))
            known = index >= 0
            # The first states of a chunk may stand before what is left out for all.
            scored = states[len(states) - len(theirs) :]
            losses[i][known] = model.nll_after(scored[index[known]], own.token_ids[i][known])
        found = share.gathered(losses)
        return [found.get(i, np.zeros(len(ids))) for i, ids in enumerate(own.token_ids)]

    def _states(self, chosen: Ids) -> Iterator[tuple[int, Float32]]:
        """Yield chunks with the states that their tokens follow, all but an unpredicted first."""
        assert self._model is not None
        sequences = self._encoded.sequences(chosen)
        if self._kept:
            for i, ids in zip(chosen.tolist(), sequences, strict=True):
                yield i, self._kept[tuple(ids)]
            return
        done = 0
        for members in batches_by_length([len(ids) for ids in sequences], TOKENS_PER_CALL):
            batch = [sequences[k] for k in members]
            whole = self._model.every_state(batch, self._model.n_layers)
            yield from ((int(chosen[k]), own[:-1]) for k, own in zip(members, whole, strict=True))
            done += len(members)
            self._progress(done, len(chosen), f"states of {self.entry.name}")

    @property
    def _encoded(self) -> Encoded:
        return self._protocol.encoded[id(self.entry.vocabulary)]


class _Keeping:
    """A model that keeps the states of what it is asked for, by its ids."""

    kind = CAUSAL

    def __init__(self, model: LanguageModel, kept: dict[tuple[int, ...], Float32]) -> None:
        self._model, self._kept = model, kept
        self.max_positions = model.max_positions

    def nll(self, batch: Sequence[Sequence[int]]) -> Sequence[Float64]:
        def keep(i: int, states: Float32) -> None:
            self._kept[tuple(batch[i])] = states

        return self._model.nll(batch, keep)


def _with_states(model: Scorer) -> LanguageModel | None:
    """Return the model if its logits are its output rows times its final states."""
    if isinstance(model, LanguageModel) and model.kind == CAUSAL and model.plain_head:
        return model
    return None

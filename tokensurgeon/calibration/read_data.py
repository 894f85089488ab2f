"""Part the texts of a calibration, and take as much of them as time and memory allow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tokensurgeon.arrays import Ids
from tokensurgeon.calibration.calibration_texts import split_texts
from tokensurgeon.calibration.data import CalibrationData
from tokensurgeon.calibration.text_sizes import MOST_BYTES, AffordedText, text_bounds
from tokensurgeon.initialisers.contract import InitContext
from tokensurgeon.models import LanguageModel
from tokensurgeon.models.pace import NO_TIME, Pace


def read_calibration_data(
    model: LanguageModel,
    context: InitContext,
    *,
    new: Ids,
    shared: Ids,
    other: Sequence[str] = (),
    max_bytes: int = MOST_BYTES,
    seconds: float = float("inf"),
    pace: Pace = NO_TIME,
    body_weights: frozenset[str] = frozenset(),
) -> CalibrationData:
    """Part the texts, and take as much of them as time and memory allow.

    Parameters
    ----------
    model : LanguageModel
        The source.
    context : InitContext
        `texts` are the calibration documents; without any the source writes some, from
        `context.seed`.
    new, shared : int64
        See `CalibrationData`.
    other : sequence of str
        Documents of another domain; the source writes some if there are none.
    max_bytes : int
        Most bytes of text to fit to.
    seconds : float
        What choice and calibration together may take: texts are cut to what the pace allows.
        Figures then depend on the clock.
    pace : Pace
        Of the model.
    body_weights : frozenset of str
        See `CalibrationData`.

    Raises
    ------
    CalibrationError
        If there is too little text.
    """
    bounds = text_bounds(context, pace, seconds, other=bool(other), max_bytes=max_bytes)
    texts = split_texts(
        model,
        context.source,
        context.target,
        context.texts,
        other,
        bounds=bounds,
        seed=context.seed,
        progress=context.progress,
    )
    data = CalibrationData(
        model,
        context,
        texts,
        new,
        shared,
        pace=pace,
        body_weights=body_weights,
        lesson_time=None if texts.generated else bounds.lessons,
    )
    used = np.cumsum([chunk.n_bytes for chunk in texts.fit])
    tokens_a_byte = data.positions(texts.fit).n_states / used[-1]
    afforded = AffordedText.of(pace, seconds, tokens_a_byte, model.width, context.memory_budget)
    data.context_tokens = afforded.contexts
    n_fit = max(1, int(np.searchsorted(used, afforded.fit)))
    spare = afforded.more(used[n_fit - 1]) if n_fit == len(used) else 0.0
    n_more = int(np.searchsorted(np.cumsum([chunk.n_bytes for chunk in texts.more]), spare))
    data.texts = replace(texts, fit=texts.fit[:n_fit], more=texts.more[:n_more])
    return data

"""The training of a composer, and of LoRA where asked, on text that the codec has compressed."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tokensurgeon.errors import CalibrationError
from tokensurgeon.evaluation.metrics import bits_per_byte
from tokensurgeon.progress import Clock, Progress, no_progress
from tokensurgeon.runtime.hypertokens.code_loss import code_losses, code_nll
from tokensurgeon.runtime.hypertokens.hyper_model import HyperModel
from tokensurgeon.runtime.hypertokens.learned_composer import LearnedComposer

RATES = {"bias": 0.1, "weights": 0.01, "network": 2e-3, "lora": 5e-4}
"""Of Adam, by what is trained. A bias has nats to go and a weight tenths of one; the network's
numbers are small; LoRA's is usual for adapters of this size. They fall to zero over the training.
With these the loss falls from the first steps on SmolLM2-135M; other rates were not compared."""
CHECKS = 4
"""How often the held-out text is measured, beside the start: each time costs its forward pass."""
LONGEST_GRADIENT = 1.0
"""Norm that all gradients together are cut to, as is usual for language models."""


LOG = logging.getLogger("tokensurgeon")


@dataclass(frozen=True)
class CodedText:
    """A chunk of text as codes.

    Attributes
    ----------
    codes : list of int
        The prefix first.
    n_bytes : int
        Of the chunk.
    """

    codes: list[int]
    n_bytes: int


@dataclass(frozen=True)
class Fitted:
    """What came of a training.

    Attributes
    ----------
    n_steps, n_codes : int
        Steps, and codes that they were taken on.
    history : tuple of (int, float)
        Steps, and bits per byte of the held-out text then; the start first.
    """

    n_steps: int
    n_codes: int
    history: tuple[tuple[int, float], ...]

    @property
    def best(self) -> float:
        """The least bits per byte, which are those of the state that was kept."""
        return min(value for _, value in self.history)


def fit_composer(
    hyper: HyperModel,
    composer: LearnedComposer,
    texts: Sequence[CodedText],
    held: Sequence[CodedText],
    *,
    adapter: Sequence[torch.Tensor] = (),
    seconds: float = math.inf,
    steps: int | None = None,
    seed: int = 0,
    progress: Progress = no_progress,
) -> Fitted:
    """Train a composer by the loss of codes; the best state on held-out text is kept.

    Parameters
    ----------
    hyper : HyperModel
        Its composer is `composer`. The model's weights are not changed.
    composer : LearnedComposer
        Changed in place.
    texts, held : sequence of CodedText
        A chunk of `texts` is a step.
    adapter : sequence of torch.Tensor
        Changed in place too: LoRA's factors in the model.
    seconds : float
        Of process time on a CPU, of the clock on another device.
    steps : int or None
        At most; where this binds and not the time, the same seed gives the same numbers again.
    seed : int
        Of the order of the text.
    progress : callable(done, total, what)

    Raises
    ------
    CalibrationError
        If there is no text, no bound, or the loss is not finite.
    """
    if not texts or not held:
        raise CalibrationError(
            f"{len(texts)} chunks to train on and {len(held)} to measure on are too few; give more "
            "text"
        )
    if steps is None and not math.isfinite(seconds):
        raise CalibrationError("a training without an end was asked for; give minutes or steps")
    composer.requires_grad_(True)
    groups = {
        "bias": [composer.bias],
        "weights": list(composer.weights),
        "network": [*composer.down, *composer.shift, *composer.up],
        "lora": list(adapter),
    }
    trained = [one for group in groups.values() for one in group]
    adam = torch.optim.Adam(
        [
            {"params": group, "lr": RATES[name], "rate": RATES[name]}
            for name, group in groups.items()
            if group
        ]
    )
    on_cpu = hyper.model.device == "cpu"
    clock = Clock(seconds, time.process_time if on_cpu else time.perf_counter)
    rng = np.random.default_rng(seed)
    history = [(0, held_bits_per_byte(hyper, held))]
    best = [one.detach().clone() for one in trained]
    n_steps = n_codes = 0
    order: list[int] = []
    next_check = 1 / CHECKS
    while True:
        done = 1 - clock.left() / seconds if math.isfinite(seconds) else 0.0
        done = max(done, 0.0 if steps is None else n_steps / steps)
        if n_steps and done >= min(next_check, 1.0):
            next_check += 1 / CHECKS
            history.append((n_steps, held_bits_per_byte(hyper, held)))
            LOG.info("%d steps: %.4f bits per byte on held-out text", *history[-1])
            if history[-1][1] <= min(value for _, value in history):
                best = [one.detach().clone() for one in trained]
        if done >= 1:
            break
        order = order or rng.permutation(len(texts)).tolist()
        text = texts[order.pop()]
        for group in adam.param_groups:
            group["lr"] = group["rate"] * (1 - done)
        adam.zero_grad()
        loss = code_losses(hyper, text.codes).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        value = float(loss.detach())
        if not math.isfinite(value):
            raise CalibrationError(
                f"the loss of step {n_steps + 1} is {value}; check the model's weights"
            )
        torch.nn.utils.clip_grad_norm_(trained, LONGEST_GRADIENT)
        adam.step()
        n_steps, n_codes = n_steps + 1, n_codes + len(text.codes) - 1
        progress(int(1000 * min(1.0, done)), 1000, "training the composer")
    with torch.no_grad():
        for one, value in zip(trained, best, strict=True):
            one.copy_(value)
    composer.requires_grad_(False)
    if not all(bool(torch.isfinite(value).all()) for value in composer.parameters()):
        raise CalibrationError("the composer is not finite after its training; give other text")
    return Fitted(n_steps, n_codes, tuple(history))


def held_bits_per_byte(hyper: HyperModel, texts: Sequence[CodedText]) -> float:
    """Return the bits per byte of codes over all of some chunks."""
    nll = sum(float(code_nll(hyper, text.codes).sum()) for text in texts)
    return bits_per_byte(nll, sum(text.n_bytes for text in texts))

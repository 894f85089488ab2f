"""A checkpoint with hypertokens, loaded: compress text, measure it, write it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tokensurgeon.checkpoint.embeddings import CAUSAL
from tokensurgeon.errors import UnsupportedCheckpointError, UsageError
from tokensurgeon.models import LanguageModel, load_model
from tokensurgeon.runtime.hypertokens.codec import (
    MAX_HYPERTOKENS,
    MAX_IDS,
    Codebook,
    Limits,
)
from tokensurgeon.runtime.hypertokens.composer_file import load_composer
from tokensurgeon.runtime.hypertokens.composers import (
    DEFAULT_BIAS,
    DEFAULT_COMPOSER,
    Composer,
    WeighedComposer,
    composer_names,
)
from tokensurgeon.runtime.hypertokens.hyper_model import HyperModel, base_rows
from tokensurgeon.runtime.hypertokens.zip_generation import Continuation, continue_prompts
from tokensurgeon.vocabulary import Kind, Vocabulary, load_vocabulary


@dataclass(frozen=True)
class ZippedModel:
    """A model that reads and writes hypertokens. Make one with `load_zip`.

    Attributes
    ----------
    vocabulary : Vocabulary
    hyper : HyperModel
        The model with its composer and limits.
    """

    vocabulary: Vocabulary
    hyper: HyperModel

    def compress(self, text: str) -> list[int]:
        """Return the codes of a text, without a prefix."""
        return Codebook(self.hyper.limits).encode(self.vocabulary.encode(text))

    def generate(self, prompts: Sequence[str], **settings: Any) -> list[Continuation]:
        """Continue prompts; the settings are those of `continue_prompts`."""
        return continue_prompts(self.hyper, self.vocabulary, prompts, **settings)


def load_zip(
    checkpoint: str | Path,
    composer: str | Path = DEFAULT_COMPOSER,
    *,
    max_hypertokens: int | None = None,
    max_ids: int | None = None,
    bias: float | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    trust_remote_code: bool = False,
) -> ZippedModel:
    """Load a checkpoint to be used with hypertokens.

    Parameters
    ----------
    checkpoint : str or Path
        A causal language model with its own tokenizer.
    composer : str or Path
        Name of a fixed composer, or the file of a trained one.
    max_hypertokens : int or None
        Of a sequence; those of the composer's file if None, else 2,048.
    max_ids : int or None
        Ids that one hypertoken stands for; 4 if None. A trained composer has its own.
    bias : float or None
        What a fixed composer adds to the logits of hypertokens; −2 if None. A trained composer has
        its own.
    device, dtype : str
        Of the forward passes.
    trust_remote_code : bool

    Returns
    -------
    ZippedModel

    Raises
    ------
    CheckpointError
        If the checkpoint or the composer's file cannot be used.
    UsageError
        If a trained composer is for phrases of another length, or is given a bias.
    """
    vocabulary = load_vocabulary(checkpoint)
    model = load_model(checkpoint, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
    check_causal(model, checkpoint)
    limits = limits_for(vocabulary, model, max_hypertokens, max_ids)
    chosen: Composer
    if str(composer) in composer_names():
        added = DEFAULT_BIAS if bias is None else bias
        chosen = WeighedComposer(str(composer), base_rows(model), limits.max_ids, added)
    else:
        if bias is not None:
            raise UsageError(
                f"a bias of {bias:g} is given, and a trained composer such as {composer} has its "
                f"own: leave it out, or take one of {', '.join(composer_names())}"
            )
        found = load_composer(composer, model, vocabulary, limits.disabled)
        chosen, limits = found.composer, found.limits
        if max_ids not in (None, limits.max_ids):
            raise UsageError(
                f"{composer} was trained for hypertokens of at most {limits.max_ids} ids, and "
                f"{max_ids} are asked for; leave the number out, or train a composer for it"
            )
        if max_hypertokens is not None:
            limits = limits_for(vocabulary, model, max_hypertokens, limits.max_ids)
    return ZippedModel(vocabulary, HyperModel(model, chosen, limits))


def check_causal(model: LanguageModel, name: object) -> None:
    """Refuse what does not write from left to right.

    Raises
    ------
    UnsupportedCheckpointError
    """
    if model.kind != CAUSAL:
        raise UnsupportedCheckpointError(
            f"{name} is a {model.kind} model, and hypertokens are for models that write from left "
            "to right; take a causal one"
        )


def controls_of(vocabulary: Vocabulary) -> frozenset[int]:
    """Return the ids that no hypertoken may hold: all that is not text."""
    text = (vocabulary.kinds == Kind.ORDINARY) | (vocabulary.kinds == Kind.BYTE)
    return frozenset(np.flatnonzero(~text).tolist())


def limits_for(
    vocabulary: Vocabulary,
    model: LanguageModel | None,
    max_hypertokens: int | None = None,
    max_ids: int | None = None,
) -> Limits:
    """Return the limits of a tokenizer, and of the model that has more rows than tokens."""
    n_ids = vocabulary.n_rows if model is None else model.n_rows
    return Limits(
        n_ids,
        MAX_HYPERTOKENS if max_hypertokens is None else max_hypertokens,
        MAX_IDS if max_ids is None else max_ids,
        controls_of(vocabulary),
    )

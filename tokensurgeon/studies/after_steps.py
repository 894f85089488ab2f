"""The second figure of a comparison: bits per byte after some steps of further training.

Every method's model takes the same batches of the calibration text in the same order, the source
as many steps on its own tokenizer. How far the two figures rank the methods alike is said by
Spearman's correlation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokensurgeon.arrays import ITEM_BYTES
from tokensurgeon.calibration.training.batches import TrainingText
from tokensurgeon.errors import EvaluationError, UsageError, reason
from tokensurgeon.evaluation import Entry, EvaluationProtocol
from tokensurgeon.models import LanguageModel
from tokensurgeon.models.memory import available_memory, needed_memory
from tokensurgeon.studies import further_training
from tokensurgeon.studies.comparison_state import files_hash, text_hash
from tokensurgeon.studies.further_training import FurtherTraining, train_further
from tokensurgeon.surgery.session import Session
from tokensurgeon.vocabulary import Vocabulary

FIRST, AFTER_STEPS = "bits-per-byte", "after-steps"
"""By which of the two figures the methods are put in order, and the best is named."""
FEWEST_RANKED = 3
"""Methods that a rank correlation is said of: of two it is 1 or -1, whatever they are."""


def order_by(choose_by: str, training: FurtherTraining) -> str:
    """Return the key of a comparison's rows by which these are put in order.

    Raises
    ------
    UsageError
        If there is no such figure, or none will be measured.
    """
    keys = {FIRST: "bits_per_byte", AFTER_STEPS: "after_steps"}
    if choose_by not in keys:
        raise UsageError(f"'{choose_by}' is no figure to choose by; give {' or '.join(keys)}")
    if choose_by == AFTER_STEPS and not training.steps:
        raise UsageError(f"nothing to choose by {AFTER_STEPS}: give --after-steps N as well")
    return keys[choose_by]


class AfterSteps:
    """Trains each model of a comparison further, and measures it on the comparison's chunks.

    Parameters
    ----------
    session : Session
    training : FurtherTraining

    Raises
    ------
    UsageError
        If there is no text to train on, the source cannot be trained here, or memory is short.
    """

    def __init__(self, session: Session, training: FurtherTraining) -> None:
        self._session, self._training = session, training
        self._texts: dict[int, TrainingText] = {}
        if not session.recipe.text.calibration:
            raise UsageError("--after-steps needs text to train on: give --calibration-text FILE")
        session.require_forward("--after-steps", trains=True)
        self._memory = training_memory(session, training)
        free = available_memory()
        if session.recipe.device == "cpu" and free is not None and self._memory > free:
            less = "leave it out" if training.rows_only else "take --after-steps-rows"
            raise UsageError(
                f"--after-steps takes {self._memory / 2**30:.1f} GiB and {free / 2**30:.1f} GiB "
                f"are free: {less}"
            )

    @property
    def decided_by(self) -> dict[str, Any]:
        """What decides the figure besides the rows and the evaluation text, as JSON values."""
        return {
            **self._settings,
            "text": text_hash(self._session.calibration_texts),
            "tied": self._session.inputs.tied,
            "code": code_hash(),
        }

    @property
    def _settings(self) -> dict[str, Any]:
        width = self._session.inputs.checkpoint.layout.width
        return {**self._training.to_dict(width), "seed": self._session.recipe.seed}

    def bits_per_byte(self, entry: Entry, protocol: EvaluationProtocol) -> float | None:
        """Return the figure of a model once it is trained further; None as for the first figure.

        Raises
        ------
        EvaluationError
            If the training led to weights that predict nothing.
        """
        session, steps = self._session, self._training.steps
        assert isinstance(entry.model, LanguageModel)  # causal: see `require_forward`
        trained = train_further(
            entry.model,
            self._text(entry.vocabulary),
            self._training,
            tied=session.inputs.tied,
            seed=session.recipe.seed,
            name=f"training {entry.name} further",
            progress=session.progress,
        )
        after = Entry(f"{entry.name} after {steps} steps", trained, entry.vocabulary)
        try:
            scores = protocol.score(after, session.progress)
        except EvaluationError as error:
            raise EvaluationError(
                f"a learning rate of {self._training.rate_for(trained.width):g} left nothing to "
                f"measure ({reason(error)}); give a lower --after-steps-rate"
            ) from error
        return protocol.result(after, scores).bits_per_byte

    def facts(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return what the table says of the training, and of how far the figures agree, for JSON.

        Keys: steps, weights (``all`` or ``rows``), rate, tokens_per_step, warm_up, seed,
        text_bytes, passes (over the text, under the target's tokenizer), memory_bytes (see
        `training_memory`), and those of `rank_facts`.
        """
        session = self._session
        n_tokens = self._text(session.alignment.target).n_tokens
        return {
            **self._settings,
            "text_bytes": sum(len(text.encode()) for text in session.calibration_texts),
            "passes": self._training.steps * self._training.tokens_per_step / n_tokens,
            "memory_bytes": self._memory,
            **rank_facts(rows),
        }

    def _text(self, vocabulary: Vocabulary) -> TrainingText:
        key = id(vocabulary)
        if key not in self._texts:
            longest = self._session.inputs.checkpoint.max_positions
            texts = self._session.calibration_texts
            self._texts[key] = TrainingText.read(vocabulary, texts, longest)
        return self._texts[key]


def training_memory(session: Session, training: FurtherTraining) -> int:
    """Return about how many bytes a comparison takes while it trains a model further."""
    inputs = session.inputs
    checkpoint, layout = inputs.checkpoint, inputs.checkpoint.layout
    own_rows = (1 if layout.tied else 2) * layout.n_rows * layout.width
    body = max(0, checkpoint.n_bytes // ITEM_BYTES[checkpoint.dtype] - own_rows)
    rows = (1 if inputs.tied else 2) * inputs.n_rows * layout.width
    given = needed_memory(checkpoint, session.recipe.dtype)
    given += 2 * ITEM_BYTES["float32"] * rows  # as the method made them, and in its model
    return given + training.memory(body, rows, checkpoint.n_layers, checkpoint.hidden_width)


def code_hash() -> str:
    """Return the sha256 of the files that train."""
    package = Path(__file__).parent.parent
    files = [*package.glob("calibration/training/*.py"), package / "models/head_gradients.py"]
    return files_hash(sorted([*files, Path(further_training.__file__)]))


def rank_facts(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Say how the two figures rank the methods of a comparison, the source left out.

    Keys: ranked (methods with both figures), rank_correlation (None where it is not claimed), best
    and best_first (the method with the lowest second and first figure; None where there is none).
    """
    ranked = [row for row in rows if row["error"] is None and row.get("after_steps") is not None]
    first, second = ([row[key] for row in ranked] for key in ("bits_per_byte", "after_steps"))
    names = [row["method"] for row in ranked]
    return {
        "ranked": len(ranked),
        "rank_correlation": rank_correlation(first, second),
        "best": names[second.index(min(second))] if names else None,
        "best_first": names[first.index(min(first))] if names else None,
    }


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return Spearman's correlation of two figures of some methods.

    None where it says nothing: of fewer than three methods, or where all have one figure.
    """
    if len(first) < FEWEST_RANKED or len(set(first)) == 1 or len(set(second)) == 1:
        return None
    from scipy.stats import spearmanr

    return float(spearmanr(first, second).statistic)

"""Rows from a small network that was trained once for the source."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tokensurgeon.errors import InitialiserError, SettingError, reading
from tokensurgeon.initialisers.contract import (
    InitContext,
    NewRows,
    SideRows,
    TrainableStates,
    require,
)
from tokensurgeon.initialisers.registry import initialiser


@initialiser("hypernetwork")
@dataclass(frozen=True)
class Hypernetwork:
    """A network that makes rows from the rows of pieces, on top of the ridge composer.

    A transformer encoder over the whitened input and output rows of at most eight pieces, with a
    head for each side whose output is added to the ridge composer's row. It is trained on the
    source's own tokens, each spelled with others and itself forbidden, and, where there is text
    and the model can be run, through the frozen model on text cut by sampled Unigram vocabularies
    (after ZeTT: Minixhofer et al., 2024, arXiv 2405.07883). Every stage is kept only if it beats
    those before it; where none does, this is the ridge composer or the mean of the pieces.

    Parameters
    ----------
    network : str or None
        A file of ``tokensurgeon hypernet train``: further tokenizers for a source, and its
        fine-tuned variants, then cost seconds. None trains one for this surgery alone.
    minutes : float or None
        Of training where there is no file; 0 is the ridge composer. One of the two is needed.

    Notes
    -----
    Random by `context.seed`: spellings, batches, sampled vocabularies and the network's start.
    With `minutes`, how far the training gets depends on the machine. Rows are clipped to the 99th
    percentile of the trained rows' norms. Gradients pass through the model, into the network.
    """

    name: ClassVar[str]
    network: str | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.network is None and self.minutes is None:
            raise SettingError(
                "hypernetwork needs a file of tokensurgeon hypernet train, or time to train; give "
                "hypernetwork.network=FILE or hypernetwork.minutes=5"
            )
        minutes = self.minutes
        require(self, "minutes", "0 to 100000", minutes is None or 0 <= minutes <= 100_000)
        if self.network is not None and not Path(self.network).is_file():
            raise SettingError(
                f"hypernetwork.network: no file {self.network}; train one with tokensurgeon "
                "hypernet train SOURCE -o FILE"
            )

    def __call__(self, context: InitContext) -> NewRows:
        """Return dense rows of both sides."""
        from tokensurgeon.initialisers.hypernetwork.composition import rows_of
        from tokensurgeon.initialisers.hypernetwork.network_file import AGAIN, Hypernet
        from tokensurgeon.initialisers.hypernetwork.staged_fit import PARTS, StagedFit

        if self.network is not None:
            hypernet, _ = Hypernet.load(self.network)
            with reading(self.network, AGAIN, InitialiserError):
                hypernet.check(context)
                made = rows_of(hypernet, context)
        else:
            source = context.states if isinstance(context.states, TrainableStates) else None
            fit = StagedFit(
                context,
                self.seconds(context),
                steps=None if self.minutes else (0, 0),
                parts=[len(row) for row in context.pieces] or PARTS,
            )
            if source is not None and context.texts and self.minutes:
                fit.model = source.language_model()
            hypernet = fit.run()
            if source is not None:
                source.count_training(hypernet.card["tokens"], hypernet.card["gradient_steps"])
            made = rows_of(hypernet, context)
        sides = [SideRows(dense=rows) for rows in made]
        return NewRows(input=sides[0], output=sides[-1])

    def seconds(self, context: InitContext) -> float:
        """Return the seconds of training that it was given; 0 with a file."""
        return 0.0 if self.network is not None else 60.0 * (self.minutes or 0.0)

    def forward_tokens(self, context: InitContext) -> int:
        """Return about how many tokens validate the stages of the fit, on top of its seconds."""
        trains = self.seconds(context) and context.texts
        if not trains or not isinstance(context.states, TrainableStates):
            return 0
        from tokensurgeon.initialisers.hypernetwork.staged_fit import validation_tokens

        return validation_tokens(context.texts)

"""What an initialiser sees, and what it returns.

An initialiser is a frozen dataclass whose fields are its settings and whose one method maps an
`InitContext` to `NewRows`. It says its rows, wherever it can, as sparse weights over source rows:
one answer then serves both sides and every dtype, the report can explain each new token, and a
test is algebra.

Shapes: `n_source` rows of the source matrix, `n_target` ids of the target vocabulary, `n_missing`
target tokens whose rows are wanted, `width` of the source's rows, `donor_width` of the donor's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import scipy.sparse as sp

from tokensurgeon.alignment import Alignment
from tokensurgeon.arrays import Float32, Ids, Mask
from tokensurgeon.errors import InitialiserError, SettingError
from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.spaces.states import Forward
from tokensurgeon.spaces.work import Steps, Work
from tokensurgeon.vocabulary import Vocabulary


@runtime_checkable
class States(Forward, Protocol):
    """Hidden states of the source: a batched forward pass without gradients."""

    n_layers: int
    """Number of transformer blocks; `layer` runs from 0 (embedding output) to `n_layers`."""

    width: int
    """Width of the hidden states (mostly, not always, that of the rows)."""

    max_positions: int | None
    """The longest sequence that the model takes, or None."""


@runtime_checkable
class TrainableStates(States, Protocol):
    """States of a source that a method may train through: gradients pass through its body.

    A method that does so asks ``isinstance(context.states, TrainableStates)`` first, and says
    afterwards what it trained with, so that the report counts it.
    """

    def language_model(self) -> Any:
        """Return the source as a `tokensurgeon.models.LanguageModel`; its body is not changed."""

    def count_training(self, n_tokens: int, gradient_steps: int) -> None:
        """Count tokens that were run through the source, and the steps of the training."""


@dataclass(frozen=True)
class DonorRows:
    """Rows of a model that already has (some of) the target's tokens, by target id.

    Attributes
    ----------
    input, output : float32 (n_target, donor_width)
        Row i belongs to target id i. Rows the donor lacks, and rows that are not finite, are 0.
        One array twice where the donor is tied.
    known : bool (n_target,)
        Where both rows are the donor's own, finite and not all zero.
    """

    input: Float32
    output: Float32
    known: Mask

    @property
    def tied(self) -> bool:
        """Whether both sides are one array."""
        return self.input is self.output


@dataclass(frozen=True)
class InitContext:
    """Everything that an initialiser may look at. Treat every array as read-only.

    Attributes
    ----------
    alignment : Alignment
        `alignment.source` and `alignment.target` are the vocabularies as bytes.
    missing : int64 (n_missing,)
        Target ids whose rows are wanted, ascending; each has pieces.
    pieces : tuple of tuples, len n_missing
        The source ids that spell each missing token, in order, at least one.
    input_rows, output_rows : float32 (n_source, width)
        The source's rows; when `tied`, the same array.
    tied : bool
        Whether both sides are one matrix in the *output* checkpoint.
    anchors : bool (n_source,)
        Source rows that look trained: finite, not zero, of an ordinary token.
    embedding_multiplier : float
        The model feeds `embedding_multiplier * row` to its first block (Gemma: sqrt(width)).
    output_bias : float32 (n_source,) or None
    logit_scale : float
        Final logits are this times what the output rows give (Granite, Cohere).
    softcap : float or None
        Final logits pass through softcap * tanh(logits / softcap).
    donor : DonorRows or None
    source_counts, target_counts : int64 (n_source,), (n_target,) or None
        How often each id occurs in the calibration text, under either tokenizer.
    texts : tuple of str
        The calibration documents; empty where the user gave none.
    states : States or None
        Forward passes of the source; None where the model cannot be run.
    prefix : tuple of int
        The ids a sequence starts with: BOS, else EOS, else nothing.
    device : str
        A torch device for heavy arithmetic.
    memory_budget : int
        Bytes that a method may take beyond its result.
    seed : int
    progress : callable(done, total, what)
        To be called during long work.
    cache : dict
        For what several methods can share and is dear to compute, such as an anchor space. The
        one part that may be written to; `dataclasses.replace` gives the copy an empty one.
    """

    alignment: Alignment
    missing: Ids
    pieces: tuple[tuple[int, ...], ...]
    input_rows: Float32
    output_rows: Float32
    tied: bool
    anchors: Mask
    embedding_multiplier: float = 1.0
    output_bias: Float32 | None = None
    logit_scale: float = 1.0
    softcap: float | None = None
    donor: DonorRows | None = None
    source_counts: Ids | None = None
    target_counts: Ids | None = None
    texts: tuple[str, ...] = ()
    states: States | None = None
    prefix: tuple[int, ...] = ()
    device: str = "cpu"
    memory_budget: int = 2 << 30
    seed: int = 0
    progress: Progress = no_progress
    cache: dict[Any, Any] = field(default_factory=dict, init=False, compare=False, repr=False)

    @property
    def source(self) -> Vocabulary:
        """The source's vocabulary as bytes."""
        return self.alignment.source

    @property
    def target(self) -> Vocabulary:
        """The target's vocabulary as bytes."""
        return self.alignment.target

    @property
    def n_source(self) -> int:
        """Rows of the source matrix."""
        return int(self.input_rows.shape[0])

    @property
    def n_missing(self) -> int:
        """Tokens whose rows are wanted."""
        return int(self.missing.shape[0])

    @property
    def width(self) -> int:
        """Width of the source's rows."""
        return int(self.input_rows.shape[1])

    def generator(self) -> np.random.Generator:
        """Return a new generator, the same at every call: an answer never depends on the order."""
        return np.random.default_rng(self.seed)

    def steps(self, what: str) -> Steps:
        """Return a function that reports steps of `what`: called with what is done, of how much."""
        return lambda done, total: self.progress(done, total, what)

    def work(self, what: str) -> Work:
        """Return how arithmetic is to be done that is called `what`."""
        return Work(self.device, self.memory_budget, self.steps(what))


@dataclass(frozen=True)
class SideRows:
    """Rows of one side: ``weights @ [source rows; virtual rows] + dense``.

    Attributes
    ----------
    weights : scipy CSR (n_missing, n_source + n_virtual) float, or None
    virtual : float32 (n_virtual, width)
        A few rows that are not in the source, such as its mean row, so that a mean needs no
        dense matrix.
    dense : float32 (n_missing, width) or None
        What cannot be said as weights.
    """

    weights: sp.csr_array | None = None
    virtual: Float32 | None = None
    dense: Float32 | None = None

    def values(self, source_rows: Float32) -> Float32:
        """Return the rows, (n_missing, width) float32, computed in float32.

        Raises
        ------
        InitialiserError
            If neither weights nor dense rows were given, or the shapes do not fit.
        """
        if self.weights is None:
            if self.dense is None:
                raise InitialiserError("an initialiser returned a side without weights or rows")
            return np.asarray(self.dense, dtype=np.float32)
        n_source = source_rows.shape[0]
        n_virtual = 0 if self.virtual is None else self.virtual.shape[0]
        if self.weights.shape[1] != n_source + n_virtual:
            raise InitialiserError(
                f"weights have {self.weights.shape[1]} columns; "
                f"{n_source} source rows and {n_virtual} virtual rows were given"
            )
        weights = self.weights.astype(np.float32)
        rows = np.asarray(weights[:, :n_source] @ source_rows, dtype=np.float32)
        if self.virtual is not None and n_virtual:
            rows += weights[:, n_source:] @ self.virtual.astype(np.float32)
        if self.dense is not None:
            rows += self.dense
        return rows


@dataclass(frozen=True)
class NewRows:
    """An initialiser's answer, per side; None where it has none: `subword-mean` then makes it.

    When the checkpoint is tied there is one matrix: the output side's answer is used, or the
    input side's where the output side is None.
    """

    input: SideRows | None = None
    output: SideRows | None = None


@runtime_checkable
class Initialiser(Protocol):
    """A frozen dataclass, its settings as fields, that computes rows for missing tokens.

    What else an initialiser may say of itself is in `Resolvable`, `RunsSource` and `TakesTime`.
    """

    name: ClassVar[str]

    def __call__(self, context: InitContext) -> NewRows:
        """Return rows for `context.missing`; the context is not changed."""


def require(method: Any, key: str, wanted: str, met: bool) -> None:
    """Raise a SettingError unless a method's setting is in its range, which `wanted` says."""
    if not met:
        value = getattr(method, key)
        raise SettingError(f"{method.name}.{key} must be {wanted}; got {value}")


@runtime_checkable
class Resolvable(Protocol):
    """An initialiser with settings that may be left open (None)."""

    def resolved(self, context: InitContext) -> Initialiser:
        """Return it with these settings as they are used here, for the report."""


@runtime_checkable
class RunsSource(Protocol):
    """An initialiser that runs the source's forward pass, and knows how much before it does."""

    def forward_tokens(self, context: InitContext) -> int:
        """Return how many tokens it will run through the source; runs none itself.

        0 where the source cannot be run (`context.states` is None). Feeds the estimate of
        ``--dry-run``.
        """


@runtime_checkable
class Computes(Protocol):
    """An initialiser whose arithmetic takes long on real vocabularies, and knows how long."""

    def operations(self, context: InitContext) -> float:
        """Return its floating-point operations, about, as they would be in float32."""


@runtime_checkable
class TakesTime(Protocol):
    """An initialiser that is given time, and takes it whatever the machine."""

    def seconds(self, context: InitContext) -> float:
        """Return the seconds that it will take beside its forward passes."""

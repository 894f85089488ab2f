"""What a surgery did, as data: `SurgeryReport`, which is the ``report.json`` of a checkpoint.

It holds facts and figures, never prose; `card` and `terminal` put it into words.
"""

from __future__ import annotations

import json
import platform
from importlib import metadata
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from tokensurgeon.calibration.contract import StageRecord
from tokensurgeon.errors import CheckpointError
from tokensurgeon.report.json_values import finite
from tokensurgeon.report.shown_facts import CutFact, NewTokenFact, RowMap
from tokensurgeon.report.trim_facts import TrimFacts
from tokensurgeon.version import __version__

LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "scipy")
"""Packages besides our own whose versions decide a surgery's bytes."""


Plain = Annotated[dict[str, Any], BeforeValidator(finite)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TokenFact(_Model):
    """One target token: its id and its spelling in the tokenizer."""

    id: int
    spelling: str


class ModelFacts(_Model):
    """The source checkpoint."""

    path: str
    fingerprint: str
    model_type: str
    n_tokens: int
    n_rows: int
    width: int
    tied: bool
    dtype: str
    max_positions: int | None = None
    kind: str = "causal"
    """As `Layout.kind`: what transformers loads it as."""


class TokenizerFacts(_Model):
    """The target tokenizer. `path` is None where the surgery trained it.

    `gguf` is llama.cpp's name for the way it cuts text, None where it has none.
    """

    path: str | None
    fingerprint: str
    n_tokens: int
    gguf: str | None = None


class DonorFacts(_Model):
    """The donor's rows. `known_missing` counts missing tokens for which it has a row."""

    path: str
    fingerprint: str
    n_rows: int
    width: int
    same_tokenizer: bool
    known_missing: int


class RowCounts(_Model):
    """Rows of the patched matrices: `total` = `used` + `padding` + `holes`."""

    total: int
    used: int
    padding: int = 0
    """Rows past the last id."""
    holes: int = 0
    """Ids that no token has."""


class OverPredictedFact(TokenFact):
    """A new output row that states prefer far more often than text has its token.

    `probability` is its mean over the states, `frequency` its share of the text's tokens (None
    where nobody counted), `first` the share of the states that prefer it to every other row,
    `reach` its largest logit less the best other one, in nats.
    """

    probability: float
    frequency: float | None = None
    first: float
    reach: float


class HeavyFact(TokenFact):
    """A new row that is a sum of source rows with large weights; `norm` is that of the weights."""

    norm: float


class RowAudit(_Model):
    """How the rows that a method made look beside the source's trained rows.

    `new` and `trained` hold percentiles of the norms (``p1``, ``p50``, ``p99``, ``max``), `weights`
    those of the weights of new rows that are sums of source rows; they are empty where there are
    none. `long` lists the new rows longer than the longest trained one, `over_predicted` those that
    `states` final states of the source prefer far too often (`not_probed` says why there are no
    states), `heavy` those with large weights: the worst first, at most 20 of each. `clipped`
    counts the rows that were shortened on request.
    """

    new: dict[str, float] = Field(default_factory=dict)
    trained: dict[str, float] = Field(default_factory=dict)
    weights: dict[str, float] = Field(default_factory=dict)
    nonfinite: int = 0
    long: tuple[TokenFact, ...] = ()
    over_predicted: tuple[OverPredictedFact, ...] = Field(
        default=(), validation_alias=AliasChoices("over_predicted", "loud")
    )
    n_over_predicted: int = Field(
        default=0, validation_alias=AliasChoices("n_over_predicted", "n_loud")
    )
    heavy: tuple[HeavyFact, ...] = ()
    n_heavy: int = 0
    states: int = 0
    not_probed: str | None = None
    clipped: int = 0


class SideReport(_Model):
    """One side's matrix: which method made its rows, and how many rows came from where.

    `copied` rows are the source's bit for bit, `initialised` ones the method's; `unspellable`,
    `controls`, `padding`, `aliases` (ids that mean the same as another and are never emitted) and
    `unreached` (never emitted since digits are cut as in the source) got fallback rows,
    `recalibrated` ones were copied and then changed by calibration. The eight add up to the rows
    of the matrix.
    """

    method: str
    settings: Plain = Field(default_factory=dict)
    copied: int
    initialised: int
    unspellable: int = 0
    controls: int = 0
    padding: int = 0
    aliases: int = 0
    unreached: int = 0
    recalibrated: int = 0
    audit: RowAudit = RowAudit()

    @property
    def fallback(self) -> int:
        """Rows that no method makes."""
        return self.unspellable + self.controls + self.padding + self.aliases + self.unreached

    @property
    def from_source(self) -> int:
        """Rows that were copied from the source, those that calibration then changed among them."""
        return self.copied + self.recalibrated


class ChoiceFact(_Model):
    """A method that `auto` tried: one line of the table that the choice was made from.

    `side` is ``input``, ``output`` or ``both``. `rebuilt` is the error on hidden tokens relative to
    the mean row's, `bits_per_byte` is measured on `n_bytes` of the selection text, the other side
    as in the rows chosen until then; either is None where it was not tried.
    """

    side: str
    method: str
    rebuilt: float | None = None
    bits_per_byte: float | None = None
    n_bytes: int | None = None
    chosen: bool = False


class StepFact(_Model):
    """A step of a surgery on a dry run: what it would take, and whether the budget has room."""

    step: str
    seconds: float
    fits: bool = True


class UntieFacts(_Model):
    """What a second matrix costs where the source has one.

    `extra_bytes` is its size in the checkpoint; `tied_entry` names the entry of the evaluation that
    shows the plain method on one matrix, so that what untying buys can be read off.
    """

    extra_bytes: int
    tied_entry: str


class BodyFacts(_Model):
    """Whether calibration changed weights of the body, by an update of low rank merged into them.

    `rank` is the largest of its products, `tensors` counts the weights that were changed,
    `numbers` those of the update's factors.
    """

    changed: bool = False
    rank: int = 0
    tensors: int = 0
    numbers: int = 0


class TokenizerDecision(_Model):
    """Something about the written tokenizer in which source and target may differ.

    `origin` says whose it is: ``source``, ``target``, a file.
    """

    what: str
    value: str
    origin: str


class SurgeryReport(_Model):
    """A whole surgery."""

    schema_version: Literal[1] = 1
    versions: dict[str, str] = Field(default_factory=lambda: versions())
    recipe: Plain
    """As `Recipe.model_dump(mode="json")`, every default written out."""
    source: ModelFacts
    target: TokenizerFacts
    donor: DonorFacts | None = None
    alignment: Plain
    """As `Alignment.summary()`."""
    rows: RowCounts
    tied: bool
    """Whether the patched checkpoint has one matrix; `input` and `output` are then equal."""
    choice: tuple[ChoiceFact, ...] = ()
    """The table that `auto` chose from; empty where the methods were named."""
    choice_why: str | None = None
    """On what the choice stands."""
    stages: tuple[StageRecord, ...] = ()
    """What calibration tried, in order, and what each stage bought."""
    generated: bool = False
    """Whether the text of the calibration was written by the source."""
    body: BodyFacts = BodyFacts()
    """Whether other weights than vocabulary rows were changed."""
    untied: UntieFacts | None = None
    """Where a tied source was given two matrices."""
    tokenizer: tuple[TokenizerDecision, ...] = ()
    """What the written tokenizer took from the source and what from the target; empty where none
    was written."""
    input: SideReport
    output: SideReport
    unspellable: tuple[TokenFact, ...] = ()
    """Ordinary target tokens that no piece could answer for."""
    unmatched_controls: tuple[TokenFact, ...] = ()
    """Control tokens of the target that no role could answer for."""
    ids: Plain = Field(default_factory=dict)
    """Ids changed in the configuration files: ``{"config.json:eos_token_id": [2, 0]}``, as old and
    new; new is None where an id was removed."""
    evaluation: Plain | None = None
    """As `Evaluation.to_dict()`; None with the reason in `not_evaluated`."""
    not_evaluated: str | None = None
    trim: TrimFacts | None = None
    """Of a checkpoint whose vocabulary was cut down: what was kept, and the proof."""
    elsewhere: Plain | None = None
    """The same on text of another kind, where some was given."""
    extension: Plain | None = None
    """As `Extension.to_dict()`, where the target has all ids of the source and more."""
    new_tokens: tuple[NewTokenFact, ...] = ()
    """Where the rows of the tokens came from that `evaluation` names under `new_tokens`."""
    row_maps: tuple[RowMap, ...] = ()
    """One for each matrix; empty on a dry run."""
    cuts: tuple[CutFact, ...] = ()
    """How both tokenizers cut a few short texts of ours."""
    baselines: tuple[str, ...] = ()
    """Names of the entries of `evaluation` that are there to compare with."""
    donor_methods: tuple[str, ...] = ()
    """Methods that read the donor's rows, by their name in `evaluation`."""
    text_methods: tuple[str, ...] = ()
    """Methods that read the calibration text, by their name in `evaluation`."""
    calibration_bytes: int = 0
    """UTF-8 bytes of text that the methods and their calibration saw."""
    harness: dict[str, str] = Field(default_factory=dict)
    """What to type so that lm-evaluation-harness measures ``source`` and ``patched`` on tasks;
    empty where nothing was written, or the model is of a kind that has no tasks."""
    timings: dict[str, float] = Field(default_factory=dict)
    """Seconds by stage."""
    peak_memory: int = 0
    """Bytes, largest resident size of the process."""
    warnings: tuple[str, ...] = ()
    written_to: str | None = None
    manifest: str | None = None
    """sha256 of the checkpoint's manifest; None where nothing was written, or not yet."""
    dry_run: bool = False
    estimate: dict[str, float] | None = None
    """Of a dry run: ``seconds``, ``memory_bytes`` at the peak, ``output_bytes``."""
    steps: tuple[StepFact, ...] = ()
    """Of a dry run: what each step would take, in their order."""

    def sides(self, both: str) -> list[tuple[str, SideReport]]:
        """Return each matrix with its name, which is `both` where there is one for both sides."""
        if self.tied:
            return [(both, self.output)]
        return [("input", self.input), ("output", self.output)]

    def to_json(self) -> str:
        """Return the report as JSON, a newline at its end."""
        data = self.model_dump(mode="json")
        return json.dumps(data, ensure_ascii=False, indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, where: str = "report.json") -> SurgeryReport:
        """Read a report back; `where` names it in messages.

        Raises
        ------
        CheckpointError
            If it is not a report of this schema version.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"]) or "the file"
            raise CheckpointError(
                f"{where} is not a report of schema version 1 ({key}: {first['msg']}); "
                "transplant again with this version"
            ) from error


def versions() -> dict[str, str]:
    """Return the versions that decide a surgery's bytes, by name."""
    known = {"python": platform.python_version(), "tokensurgeon": __version__}
    for name in LIBRARIES:
        try:
            known[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            known[name] = "not installed"
    return known

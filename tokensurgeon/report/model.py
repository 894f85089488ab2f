"""What a surgery did, as data: `SurgeryReport`, which is the ``report.json`` of a checkpoint.

It holds facts and figures, never prose; `card` and `terminal` put it into words.
"""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Sequence
from importlib import metadata
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from tokensurgeon.errors import CheckpointError

LIBRARIES = (
    "tokensurgeon",
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "numpy",
    "scipy",
)


def finite(value: Any) -> Any:
    """Return plain data with tuples as lists, and None for NaN and infinities: JSON has neither."""
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


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


class TokenizerFacts(_Model):
    """The target tokenizer. `path` is None where the surgery trained it."""

    path: str | None
    fingerprint: str
    n_tokens: int


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


class LoudFact(TokenFact):
    """A new output row that states prefer far more than text has its token.

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
    """Norms of the new rows beside those of the trained source rows, and the rows to look at.

    `new` and `trained` map ``p1``, ``p50``, ``p99`` and ``max`` to Euclidean norms; they are empty
    where there are no rows. `weights` does so for the weights of the new rows that are sums of
    source rows. `long` lists the new rows longer than the longest trained one, `loud` those that
    `states` final states of the source prefer far too often (`not_probed` says why there are no
    states), `heavy` those with large weights: the worst first, at most 20 of each. `clipped`
    counts the rows that were shortened on request.
    """

    new: dict[str, float] = Field(default_factory=dict)
    trained: dict[str, float] = Field(default_factory=dict)
    weights: dict[str, float] = Field(default_factory=dict)
    nonfinite: int = 0
    long: tuple[TokenFact, ...] = ()
    loud: tuple[LoudFact, ...] = ()
    heavy: tuple[HeavyFact, ...] = ()
    n_loud: int = 0
    n_heavy: int = 0
    states: int = 0
    not_probed: str | None = None
    clipped: int = 0


class SideReport(_Model):
    """One side's matrix: which method made its rows, and how many rows came from where.

    `copied` rows are the source's bit for bit, `initialised` ones the method's; `unspellable`,
    `controls`, `padding` and `aliases` (ids that mean the same as another and are never emitted)
    got floor rows, `recalibrated` ones were the source's until a calibration changed them. The
    seven add up to the rows of the matrix.
    """

    method: str
    settings: Plain = Field(default_factory=dict)
    copied: int
    initialised: int
    unspellable: int = 0
    controls: int = 0
    padding: int = 0
    aliases: int = 0
    recalibrated: int = 0
    audit: RowAudit = RowAudit()

    @property
    def from_source(self) -> int:
        """Rows that were copied from the source, those that calibration then changed among them."""
        return self.copied + self.recalibrated


class StageFact(_Model):
    """What a stage of calibration did; see `tokensurgeon.calibration.StageRecord`."""

    stage: str
    kept: bool
    why: str
    settings: Plain = Field(default_factory=dict)
    before: float | None = None
    after: float | None = None
    other_before: float | None = None
    other_after: float | None = None
    seconds: float = 0.0
    forward_tokens: int = 0
    gradient_steps: int = 0


class ChoiceFact(_Model):
    """A method that `auto` tried for a side; see `tokensurgeon.surgery.choose.Tried`."""

    side: str
    method: str
    rebuilt: float | None = None
    bits_per_byte: float | None = None
    chosen: bool = False


class UntieFacts(_Model):
    """What a second matrix costs where the source has one.

    `extra_bytes` is its size in the checkpoint; `tied_entry` names the entry of the evaluation that
    shows the plain method on one matrix, so that what untying buys can be read off.
    """

    extra_bytes: int
    tied_entry: str


class SurgeryReport(_Model):
    """A whole surgery.

    Attributes
    ----------
    recipe : dict
        As `Recipe.model_dump(mode="json")`, every default written out.
    alignment : dict
        As `Alignment.summary()`.
    tied : bool
        Whether the patched checkpoint has one matrix; `input` and `output` are then equal.
    choice : tuple of ChoiceFact
        The table that `auto` chose from; empty where the methods were named.
    choice_why : str or None
        On what the choice stands.
    stages : tuple of StageFact
        What calibration tried, in order, and what each stage bought.
    generated : bool
        Whether the text of the calibration was written by the source.
    untied : UntieFacts or None
        Where a tied source was given two matrices.
    unspellable, unmatched_controls : tuple of TokenFact
        Target tokens that no piece and no role could answer for.
    ids : dict
        Ids changed in the configuration files: ``{"config.json:eos_token_id": [2, 0]}``, as old
        and new; new is None where an id was removed.
    evaluation : dict or None
        As `Evaluation.to_dict()`; None with the reason in `not_evaluated`.
    baselines : tuple of str
        Names of the entries of `evaluation` that are there to compare with.
    donor_methods, text_methods : tuple of str
        Methods that read the donor's rows, or the calibration text, by their name in `evaluation`.
    calibration_bytes : int
        UTF-8 bytes of text that the methods and their calibration saw.
    timings : dict
        Seconds by stage.
    peak_memory : int
        Bytes, largest resident size of the process.
    manifest : str or None
        sha256 of the checkpoint's manifest; None where nothing was written, or not yet.
    estimate : dict or None
        Of a dry run: ``{"seconds": …, "memory_bytes": …, "output_bytes": …}``, what is known.
    """

    schema_version: Literal[1] = 1
    versions: dict[str, str] = Field(default_factory=lambda: versions())
    recipe: Plain
    source: ModelFacts
    target: TokenizerFacts
    donor: DonorFacts | None = None
    alignment: Plain
    rows: RowCounts
    tied: bool
    choice: tuple[ChoiceFact, ...] = ()
    choice_why: str | None = None
    stages: tuple[StageFact, ...] = ()
    generated: bool = False
    untied: UntieFacts | None = None
    input: SideReport
    output: SideReport
    unspellable: tuple[TokenFact, ...] = ()
    unmatched_controls: tuple[TokenFact, ...] = ()
    ids: Plain = Field(default_factory=dict)
    evaluation: Plain | None = None
    not_evaluated: str | None = None
    baselines: tuple[str, ...] = ()
    donor_methods: tuple[str, ...] = ()
    text_methods: tuple[str, ...] = ()
    calibration_bytes: int = 0
    timings: dict[str, float] = Field(default_factory=dict)
    peak_memory: int = 0
    warnings: tuple[str, ...] = ()
    written_to: str | None = None
    manifest: str | None = None
    dry_run: bool = False
    estimate: dict[str, float] | None = None

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
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def norm_percentiles(rows: npt.NDArray[np.float32]) -> dict[str, float]:
    """Return percentiles of the finite rows' norms; empty where there is none.

    Parameters
    ----------
    rows : float32 (n, width)
    """
    return percentiles(row_norms(rows))


def row_norms(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return the norms of rows, summed in float64, block by block."""
    norms = np.empty(len(rows))
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK].astype(np.float64)
        norms[start : start + _BLOCK] = np.linalg.norm(block, axis=1)
    return norms


_BLOCK = 4096


def percentiles(values: npt.NDArray[np.float64]) -> dict[str, float]:
    """Return ``p1``, ``p50``, ``p99`` and ``max`` of the finite values; empty if none is."""
    values = values[np.isfinite(values)]
    if not values.size:
        return {}
    p1, p50, p99 = np.percentile(values, [1, 50, 99])
    return {"p1": float(p1), "p50": float(p50), "p99": float(p99), "max": float(values.max())}


def audit_rows(
    new: npt.NDArray[np.float32],
    ids: npt.NDArray[np.int64],
    trained: npt.NDArray[np.float32],
    spellings: Sequence[str | None],
    limit: int = 20,
) -> RowAudit:
    """Compare new rows with trained ones.

    Parameters
    ----------
    new : float32 (n, width)
    ids : int64 (n,)
        The target id of each new row.
    trained : float32 (m, width)
        The source's rows that look trained.
    spellings : sequence, by target id
    limit : int
        List at most so many long rows, the longest first.
    """
    known = norm_percentiles(trained)
    bad = ~np.isfinite(new).all(axis=1)
    norms = row_norms(new)
    made = percentiles(norms)
    norms[bad] = 0
    bound = known.get("max", np.inf)
    order = np.argsort(-norms, kind="stable")[:limit]
    long = tuple(
        TokenFact(id=int(ids[i]), spelling=spellings[int(ids[i])] or "")
        for i in order
        if norms[i] > bound
    )
    return RowAudit(new=made, trained=known, nonfinite=int(bad.sum()), long=long)

"""What a trim did, as data: the part of a `SurgeryReport` that only a trimmed checkpoint has."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

from tokensurgeon.report.json_values import finite


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class BeforeAfter(_Model):
    """A number of the source, and of the trimmed checkpoint."""

    before: int | float
    after: int | float

    @property
    def share(self) -> float:
        """What is left, as a share."""
        return self.after / self.before if self.before else 1.0


class KeptText(_Model):
    """The text whose tokens are kept: every document of it is encoded before and after.

    Whole encodings are compared, the tokens around a text included. `tokens_dropped` of its tokens
    are not kept, which only a size or `least_uses` can cause. Had each document been left out in
    turn, `documents_left_out` of them would be encoded otherwise, for `tokens_left_out` tokens that
    no other document has; None where there are too few to say, or the size decides.
    """

    n_bytes: int
    documents: int
    documents_changed: int
    tokens_before: int
    tokens_after: int
    tokens_dropped: int
    documents_left_out: int | None = None
    tokens_left_out: int | None = None


class ProofFacts(_Model):
    """As `evaluation.trimmed.Proof`."""

    compared: str
    n_sequences: int
    n_tokens: int
    max_difference: float
    largest: float
    seconds_before: float
    seconds_after: float
    bits_before: float | None = None
    bits_kept: float | None = None
    bits_after: float | None = None
    max_loss_difference: float | None = None
    max_rise: float | None = None
    removed_mass: float | None = None


class OtherText(_Model):
    """A text that was not looked at when tokens were chosen.

    The counts are those of `evaluation.trimmed.Changes`; `bits` are bits per byte by the protocol
    of evaluations, `rise` their difference with its interval; None, with the reason in
    `not_scored`, where they were not measured.
    """

    name: str
    n_bytes: int
    documents: int
    documents_changed: int
    lines: int
    lines_changed: int
    tokens_before: int
    tokens_after: int
    tokens_dropped: int
    bits: BeforeAfter | None = None
    rise: tuple[float, float, float] | None = None
    """Estimate, and the ends of its 95 % interval."""
    scored_bytes: int = 0
    not_scored: str | None = None


class TrimFacts(_Model):
    """What was kept, what that saves, and the proof that nothing else changed."""

    settings: Annotated[dict[str, Any], BeforeValidator(finite)]
    """As they were given, files by name."""
    why: dict[str, int]
    """Tokens by why they are kept, as `trainers.edits.kept.Kept`."""
    rows: BeforeAfter
    weights: BeforeAfter
    """Numbers in all vocabulary-shaped tensors, each file's copy once."""
    weight_bytes: BeforeAfter
    """Of all tensors in the files."""
    tokenizer_bytes: BeforeAfter
    """Of tokenizer.json."""
    text: KeptText | None = None
    proof: ProofFacts | None = None
    not_proven: str | None = None
    """Why no forward pass was compared."""
    others: tuple[OtherText, ...] = ()

"""Everything that the writer needs to know of a surgery."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from tokensurgeon.arrays import Float32, Ids
from tokensurgeon.checkpoint.body_update import BodyUpdate, stored_keys
from tokensurgeon.checkpoint.checkpoint import Checkpoint
from tokensurgeon.errors import CheckpointError
from tokensurgeon.vocabulary import Vocabulary


@dataclass(frozen=True)
class PatchPlan:
    """What becomes of a checkpoint.

    Attributes
    ----------
    checkpoint : Checkpoint
        The source.
    target : Vocabulary
        The tokenizer that the patched checkpoint gets.
    input_rows, output_rows : float32 (n_new, width)
        By target id, padding rows included. Equal where the result is tied.
    output_bias : float32 (n_new,) or None
        Where the model has an output bias.
    copied_input, copied_output : int64 (n_new,)
        The source row that is taken bit for bit, or -1 where the float32 row is rounded to the
        file's dtype. The bias follows `copied_output`.
    untie : bool
        Write two matrices where the source has one.
    id_map : mapping
        Source id → target id of the same meaning; absent or None where there is none.
    chat_template : str or None
        ``"source"``, ``"target"``, the path of a file, or None for no template.
    special_tokens : str
        With ``"source"``, a causal model's tokenizer ends no text with a token where the source's
        did not; with ``"target"`` it adds what the target adds.
    allow_nonfinite : bool
        Whether copied rows may hold NaN or Inf.
    body : BodyUpdate or None
        What is merged into weights of the body; the others are copied byte for byte.
    """

    checkpoint: Checkpoint
    target: Vocabulary
    input_rows: Float32
    output_rows: Float32
    copied_input: Ids
    copied_output: Ids
    output_bias: Float32 | None = None
    untie: bool = False
    id_map: Mapping[int, int | None] = field(default_factory=dict)
    chat_template: str | None = "source"
    special_tokens: str = "source"
    allow_nonfinite: bool = False
    body: BodyUpdate | None = None

    @property
    def n_new(self) -> int:
        """Rows of the patched matrices."""
        return int(self.input_rows.shape[0])

    @property
    def tied(self) -> bool:
        """Whether the result has one matrix for both sides."""
        return self.checkpoint.layout.tied and not self.untie

    @property
    def body_keys(self) -> dict[str, str]:
        """File keys of the body's weights that change, with their names in the update."""
        if self.body is None:
            return {}
        return {key: name for name, key in stored_keys(self.checkpoint, self.body).items()}

    def check(self) -> None:
        """Check shapes, ids and names before anything is written.

        Raises
        ------
        CheckpointError
            Saying which does not fit.
        """
        layout = self.checkpoint.layout
        shape = (self.n_new, layout.width)
        for name, rows in (("input", self.input_rows), ("output", self.output_rows)):
            if rows.shape != shape or rows.dtype != np.float32:
                raise CheckpointError(
                    f"the {name} rows are {rows.dtype} {rows.shape}, not float32 {shape}"
                )
        if self.n_new < self.target.n_rows:
            raise CheckpointError(
                f"{self.n_new} rows for a tokenizer with ids up to {self.target.n_rows - 1}"
            )
        for copied in (self.copied_input, self.copied_output):
            if copied.shape != (self.n_new,) or copied.min() < -1 or copied.max() >= layout.n_rows:
                raise CheckpointError(
                    f"the copied ids have shape {copied.shape} and run to "
                    f"{copied.max(initial=-1)}; {self.n_new} ids below {layout.n_rows} "
                    "were expected"
                )
        if bool(layout.bias_names) != (self.output_bias is not None):
            raise CheckpointError(
                f"the model has {'an' if layout.bias_names else 'no'} output bias, and "
                f"{'none' if self.output_bias is None else 'one'} was given"
            )
        if self.output_bias is not None and self.output_bias.shape != (self.n_new,):
            raise CheckpointError(
                f"the output bias has shape {self.output_bias.shape}, not ({self.n_new},)"
            )
        if self.tied and not (
            np.array_equal(self.copied_input, self.copied_output)
            and (
                self.input_rows is self.output_rows
                or np.array_equal(self.input_rows, self.output_rows, equal_nan=True)
            )
        ):
            raise CheckpointError(
                "the sides differ but the checkpoint is tied: give equal rows, or untie it"
            )
        _ = self.body_keys  # refuses an update that does not fit

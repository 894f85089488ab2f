"""A donor: a model that already has the target's tokenizer; only its vocabulary rows are read."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from tokensurgeon.arrays import Float32
from tokensurgeon.checkpoint.checkpoint import Checkpoint
from tokensurgeon.checkpoint.files import check_inside, find_folder
from tokensurgeon.checkpoint.trained_rows import refuse_untrained
from tokensurgeon.errors import CheckpointError


class DonorFiles(NamedTuple):
    """What is read of a donor.

    Attributes
    ----------
    vocabulary : Path
        The folder of its tokenizer.
    input, output : float32 (donor rows, donor width)
        Its rows by id, padding rows included; equal when the donor is tied.
    """

    vocabulary: Path
    input: Float32
    output: Float32


def read_donor_rows(path: str | Path, *, trust_remote_code: bool = False) -> DonorFiles:
    """Read a donor's rows from a folder (or model id) with config.json, tokenizer.json and rows.

    The rest of the model may be absent. Rows that are not finite are returned as they are.

    Raises
    ------
    CheckpointError
        As `Checkpoint.open` does, and where there is no tokenizer.
    """
    folder = find_folder(path)
    if not any((folder / name).exists() for name in ("tokenizer.json", "tokenizer.model")):
        raise CheckpointError(f"the donor {folder} has no tokenizer.json; add its tokenizer")
    for name in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json"):
        if (folder / name).exists():
            check_inside(folder, name)
    checkpoint = Checkpoint.open(folder, trust_remote_code=trust_remote_code, partial=True)
    rows = checkpoint.input_rows()
    output = rows if checkpoint.layout.tied else checkpoint.output_rows()
    refuse_untrained(rows, "donor's input")
    refuse_untrained(output, "donor's output")
    return DonorFiles(folder, rows, output)

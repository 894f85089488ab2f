r"""Tokens that a model has hardly been trained on, recognised by its vocabulary rows.

After Land & Bartolo (2024), "Fishing for Magikarp: Automatically Detecting Under-trained Tokens in
Large Language Models". Two indicators; low values mean little training:

- **norm**: the length of the input row, for untied models. Weight decay, or initial values near
  zero, make the rows of tokens that training never used short;
- **cosine**: the cosine distance of the output row to the mean of rows known to be untrained, after
  the constant direction (the first principal component of the output matrix) has been removed.
  Training pushes the output rows of tokens that never occur in one common direction.

Rows without a token, reserved tokens, and byte tokens that UTF-8 never uses are known to be
untrained. Only the tensors of the vocabulary are read and no prompt is tried, so a listed token is
a suspect.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tokensurgeon.arrays import Float32, Float64, Ids
from tokensurgeon.checkpoint import Checkpoint
from tokensurgeon.errors import UsageError
from tokensurgeon.vocabulary import Kind, Vocabulary

NEVER_IN_UTF8 = frozenset(bytes([byte]) for byte in (0xC0, 0xC1, *range(0xF5, 0x100)))
FEWEST_REFERENCES = 3
"""Untrained rows needed for a mean and a threshold; of one or two, neither says anything."""
QUANTILE = 0.95
"""Quantile of the untrained rows' indicator that is the threshold: it leaves out a few outliers."""


@dataclass(frozen=True)
class Suspect:
    """A token, the norm of its input row and the cosine distance of its output row."""

    id: int
    spelling: str
    norm: float
    cosine: float | None


@dataclass(frozen=True)
class UnderTrained:
    """The least trained tokens.

    Attributes
    ----------
    indicator : str
        What they are sorted by: "cosine" for tied models, else "norm"; also "norm" if too few rows
        are known to be untrained.
    tied : bool
    references : int
        Number of rows known to be untrained.
    threshold : float or None
        The value below which 95 % of those rows lie; None if they are too few.
    count : int or None
        Number of tokens of text below the threshold.
    median : float
        The indicator's median over tokens of text.
    suspects : tuple of Suspect
        The lowest first.
    """

    checkpoint: str
    indicator: str
    tied: bool
    references: int
    threshold: float | None
    count: int | None
    median: float
    suspects: tuple[Suspect, ...]


def find_undertrained(
    vocabulary: Vocabulary,
    checkpoint: Checkpoint | str | Path,
    *,
    limit: int = 100,
    trust_remote_code: bool = False,
) -> UnderTrained:
    """Return the tokens whose rows seem least trained.

    Parameters
    ----------
    vocabulary : Vocabulary
        The checkpoint's own tokenizer.
    checkpoint : Checkpoint or path
    limit : int
        Number of tokens to list.
    trust_remote_code : bool

    Raises
    ------
    UsageError
        If the tokenizer has more ids than the checkpoint has rows.
    CheckpointError
        As `Checkpoint.open` does.
    """
    if not isinstance(checkpoint, Checkpoint):
        checkpoint = Checkpoint.open(checkpoint, partial=True, trust_remote_code=trust_remote_code)
    rows = checkpoint.input_rows()
    if vocabulary.n_rows > len(rows):
        raise UsageError(
            f"the tokenizer has {vocabulary.n_rows:,} ids and {checkpoint.path.name} "
            f"{len(rows):,} rows; give the checkpoint that has this tokenizer"
        )
    tied = checkpoint.layout.tied
    output = rows if tied else checkpoint.output_rows()
    return judge_rows(vocabulary, rows, output, tied=tied, limit=limit, name=str(checkpoint.path))


def judge_rows(
    vocabulary: Vocabulary,
    input_rows: Float32,
    output_rows: Float32,
    *,
    tied: bool,
    limit: int = 100,
    name: str = "",
) -> UnderTrained:
    """Return the tokens whose rows, float32 (n_rows, width), seem least trained."""
    reference = untrained_rows(vocabulary, len(input_rows))
    norms = np.linalg.norm(input_rows.astype(np.float64), axis=1)
    enough = len(reference) >= FEWEST_REFERENCES
    cosine = cosine_distances(output_rows, reference) if enough else None
    indicator, score = ("norm", norms) if cosine is None or not tied else ("cosine", cosine)
    text = np.flatnonzero(vocabulary.kinds <= Kind.BYTE)
    text = text[~np.isin(text, reference)]
    order = text[np.lexsort((text, score[text]))]
    threshold = float(np.quantile(score[reference], QUANTILE)) if enough else None
    return UnderTrained(
        checkpoint=name,
        indicator=indicator,
        tied=tied,
        references=len(reference),
        threshold=threshold,
        count=None if threshold is None else int((score[text] <= threshold).sum()),
        median=float(np.median(score[text])) if len(text) else float("nan"),
        suspects=tuple(
            Suspect(
                i,
                vocabulary.spellings[i] or "",
                float(norms[i]),
                None if cosine is None else float(cosine[i]),
            )
            for i in order[:limit].tolist()
        ),
    )


def untrained_rows(vocabulary: Vocabulary, n_rows: int) -> Ids:
    """Return the rows that training cannot have used: no token, reserved, or never in UTF-8."""
    kinds = np.full(n_rows, int(Kind.PADDING))
    kinds[: vocabulary.n_rows] = vocabulary.kinds
    untrained = kinds >= Kind.UNUSED
    untrained[: vocabulary.n_rows] |= [data in NEVER_IN_UTF8 for data in vocabulary.token_bytes]
    return np.flatnonzero(untrained).astype(np.int64)


def cosine_distances(rows: Float32, reference: Ids) -> Float64:
    """Return each row's cosine distance, 0 to 2, to the mean of the reference rows.

    The first principal component of all rows, about the origin, is removed first.
    """
    values = np.nan_to_num(rows.astype(np.float64))
    _, vectors = np.linalg.eigh(values.T @ values)
    constant = vectors[:, -1]
    values -= np.outer(values @ constant, constant)
    mean = values[reference].mean(axis=0)
    lengths = np.linalg.norm(values, axis=1) * np.linalg.norm(mean)
    product = values @ mean
    cosines: Float64 = np.divide(product, lengths, out=np.zeros_like(product), where=lengths > 0)
    return 1.0 - cosines

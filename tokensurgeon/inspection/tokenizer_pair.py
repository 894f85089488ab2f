"""What two tokenizers do to one text, and examples of what the source lacks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tokensurgeon.alignment import Alignment
from tokensurgeon.evaluation.boundaries import boundaries
from tokensurgeon.inspection.spans import quoted
from tokensurgeon.text.corpus import read_documents


def pair_on_text(alignment: Alignment, files: Sequence[str | Path]) -> dict[str, float]:
    """Return what the two tokenizers do to a text: boundaries kept, bytes per token, loss.

    `source_boundaries` and `target_boundaries` count the places inside documents where each parts
    two tokens; `boundary_share` is the share of the source's that the target keeps,
    `known_boundary_share` the share of the target's that the source has, `boundary_agreement`
    those in common over those of either. `shared_token_share` is the share of the target's tokens
    on the text that the source has. Each `…_lossy_share` is of documents.
    """
    documents = [document.text for document in read_documents(list(files))]
    cuts = boundaries(alignment.source, alignment.target, documents)
    figures: dict[str, float] = {
        "source_boundaries": cuts.source,
        "target_boundaries": cuts.target,
        "boundary_share": cuts.kept,
        "known_boundary_share": cuts.known,
        "boundary_agreement": cuts.agreement,
    }
    for side, vocabulary in (("source", alignment.source), ("target", alignment.target)):
        encodings = vocabulary.encode_many(documents)
        n_tokens = sum(len(encoding) for encoding in encodings)
        n_bytes = sum(encoding.n_bytes for encoding in encodings)
        figures["n_bytes"] = n_bytes
        if side == "target":
            missing = np.zeros(vocabulary.n_rows, dtype=bool)
            missing[alignment.missing] = True
            n_missing = sum(int(missing[encoding.ids].sum()) for encoding in encodings)
            figures["shared_token_share"] = 1 - n_missing / n_tokens if n_tokens else 1.0
        figures[f"{side}_bytes_per_token"] = n_bytes / n_tokens if n_tokens else 0.0
        n_lossy = sum(not encoding.lossless for encoding in encodings)
        figures[f"{side}_lossy_share"] = n_lossy / len(encodings) if encodings else 0.0
    return figures


def missing_examples(alignment: Alignment, n: int) -> list[dict[str, Any]]:
    """Return `n` missing tokens, evenly over the ids, each with the source's pieces or None."""

    def shown(data: bytes | None) -> str:
        return quoted(data or b"", len(data or b""))

    ids = alignment.missing
    examples = []
    for i in ids[:: max(1, len(ids) // n)][:n].tolist() if n else []:
        data = alignment.target.token_bytes[i]
        pieces = alignment.source.pieces_of(data or b"")
        spelled = pieces and [shown(alignment.source.token_bytes[piece]) for piece in pieces]
        examples.append({"id": i, "text": shown(data), "pieces": spelled})
    return examples

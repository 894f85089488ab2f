"""Tokens by what a text encoder makes of them: any transformers encoder in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tokensurgeon.arrays import blocks
from tokensurgeon.errors import InitialiserError, reason
from tokensurgeon.spaces.space import Space, row_space, unit
from tokensurgeon.spaces.work import Steps, no_steps

_LONGEST = 128
"""Tokens of the encoder that are read of one text: far more than a vocabulary's token has."""


def encoder_space(
    texts: Sequence[str | None],
    path: str | Path,
    *,
    device: str = "cpu",
    batch_size: int = 256,
    progress: Steps = no_steps,
) -> Space:
    """Return each text's mean-pooled last hidden state, at length 1.

    Equal texts are encoded once. Nothing is downloaded, and no code of the folder is run.

    Parameters
    ----------
    texts : sequence of str or None, length n
        None, and text without a visible character, is unknown.
    path : path
        A folder as transformers or sentence-transformers saves it (config.json, weights and a
        tokenizer).
    device : str
    batch_size : int
    progress : callable(done, total)

    Raises
    ------
    InitialiserError
        If the folder holds no encoder that transformers can read.
    """
    import torch

    visible = [text if text is not None and text.strip() else None for text in texts]
    known = np.array([text is not None for text in visible], dtype=bool)
    number: dict[str, int] = {}
    index = np.array([number.setdefault(t, len(number)) for t in visible if t is not None], int)
    if not number:
        return row_space(np.zeros((len(texts), 1), dtype=np.float32), known)
    tokenizer, model = _load(Path(path), device)
    order = sorted(number, key=len)
    rows: list[Any] = [None] * len(order)
    with torch.no_grad():
        for part in blocks(len(order), batch_size):
            batch = order[part]
            inputs = tokenizer(
                batch, padding=True, truncation=True, max_length=_LONGEST, return_tensors="pt"
            ).to(model.device)
            states = model(**inputs).last_hidden_state.float()
            mask = inputs["attention_mask"][:, :, None].float()
            pooled = (states * mask).sum(dim=1) / mask.sum(dim=1).clamp_min(1.0)
            for text, row in zip(batch, pooled.cpu().numpy(), strict=True):
                rows[number[text]] = row
            progress(part.stop, len(order))
    table = np.asarray(rows, dtype=np.float32)
    vectors = np.zeros((len(texts), table.shape[1]), dtype=np.float32)
    vectors[known] = table[index]
    return row_space(unit(vectors), known)


def _load(path: Path, device: str) -> tuple[Any, Any]:
    if not (path / "config.json").is_file():
        raise InitialiserError(
            f"{path} holds no config.json; give the folder of a text encoder as transformers "
            "saves it"
        )
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
        model = AutoModel.from_pretrained(path, local_files_only=True)
    except MemoryError:
        raise
    except Exception as error:  # whatever transformers trips over in these files
        raise InitialiserError(
            f"no encoder can be read from {path}: {reason(error)}; give the folder of one"
        ) from error
    finally:
        if bars:
            logging.enable_progress_bar()
    return tokenizer, model.to(device).eval()

"""Calibration data on which every right answer is known, and such on which tokens are missing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.world import SENTENCES
from tokensurgeon import Recipe
from tokensurgeon.calibration import CalibrationData, Matrices, read_calibration_data
from tokensurgeon.surgery import prepare
from tokensurgeon.surgery.rows import patch_rows

TEXTS = [f"{i}. {SENTENCES[i % 5]} {SENTENCES[(i + 2) % 5]}" for i in range(40)]


@pytest.fixture(scope="module")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import json

    path = tmp_path_factory.mktemp("calibration") / "text.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in TEXTS), "utf-8")
    return path


@pytest.fixture(scope="module")
def same(tiny_source: Path) -> CalibrationData:
    """Calibration data whose target is the source's own vocabulary: every right answer is known."""
    session = prepare(Recipe(source=str(tiny_source), tokenizer=str(tiny_source)))
    context = dataclasses.replace(session.context, texts=tuple(TEXTS))
    everything = session.alignment.shared
    return read_calibration_data(
        session.model, context, new=everything[:0], shared=everything, max_bytes=6000
    )


@pytest.fixture
def own(same: CalibrationData) -> Matrices:
    return Matrices(same.context.input_rows, same.context.output_rows)


@pytest.fixture(scope="module")
def pair(tiny_source: Path, tiny_donor: Path, text_file: Path) -> tuple[CalibrationData, Matrices]:
    """Calibration data of two vocabularies, and the rows of subword-mean."""
    text = {"calibration": [str(text_file)]}
    session = prepare(
        Recipe.parse({"source": str(tiny_source), "tokenizer": str(tiny_donor), "text": text})
    )
    rows = patch_rows(session, ("subword-mean", "subword-mean"), session.recipe.init)
    return session.calibration_data, rows.matrices

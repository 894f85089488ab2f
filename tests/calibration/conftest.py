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


def same_of(folder: Path) -> CalibrationData:
    """Return calibration data whose target is a source's own vocabulary."""
    session = prepare(Recipe(source=str(folder), tokenizer=str(folder)))
    context = dataclasses.replace(session.context, texts=tuple(TEXTS))
    everything = session.alignment.shared
    return read_calibration_data(
        session.model, context, new=everything[:0], shared=everything, max_bytes=6000
    )


def pair_of(source: Path, target: Path, text: Path) -> tuple[CalibrationData, Matrices]:
    """Return calibration data of two vocabularies, and the rows of subword-mean."""
    recipe = {
        "source": str(source),
        "tokenizer": str(target),
        "text": {"calibration": [str(text)]},
    }
    session = prepare(Recipe.parse(recipe))
    rows = patch_rows(session, ("subword-mean", "subword-mean"), session.recipe.init)
    return session.calibration_data, rows.matrices


@pytest.fixture(scope="module")
def same(tiny_source: Path) -> CalibrationData:
    """Calibration data whose target is the source's own vocabulary: every right answer is known."""
    return same_of(tiny_source)


@pytest.fixture
def own(same: CalibrationData) -> Matrices:
    return Matrices(same.context.input_rows, same.context.output_rows)


@pytest.fixture(scope="module")
def pair(tiny_source: Path, tiny_donor: Path, text_file: Path) -> tuple[CalibrationData, Matrices]:
    """Calibration data of two vocabularies, and the rows of subword-mean."""
    return pair_of(tiny_source, tiny_donor, text_file)

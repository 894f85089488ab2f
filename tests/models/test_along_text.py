"""A model asked at places along a text: as if it read each text whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.world import CASES, make_model
from tokensurgeon.models.along_text import AlongText
from tokensurgeon.models.load import load_model

TEXT = [(7 * i * i + i) % 90 + 2 for i in range(28)]
PLACES = (
    TEXT[:1],
    TEXT[:9],
    TEXT[:15],
    [*TEXT[:16], 5, 6],  # its last tokens are no start of the next text
    [*TEXT[:20], 4],
    TEXT[:24],
    TEXT[:24],
    TEXT[:6],  # back
    [8, 9, *TEXT[:18]],  # another text
)


def agree_at_all_places(folder: Path) -> None:
    model = load_model(folder)
    along = AlongText(model)
    for seed, ids in enumerate(PLACES):
        for temperature in (1.0, 0.0):
            written = along.write(ids, 4, seed, temperature)
            assert written == model.generate(ids, 4, seed, temperature=temperature)[0]
        whole = model.logits([*ids, *written])[len(ids) - 1 :]
        np.testing.assert_allclose(along.logits(ids, written), whole, atol=1e-4)


@pytest.mark.parametrize(("family", "tied"), CASES)
def test_it_is_as_reading_each_text_whole(
    model_of: Callable[..., Path], family: str, tied: bool
) -> None:
    agree_at_all_places(model_of(family, tied))


def test_windows_that_slide_are_not_cut_back(tmp_path: Path) -> None:
    sliding: dict[str, Any] = {
        "use_sliding_window": True,
        "sliding_window": 8,
        "max_window_layers": 1,
    }
    folder = make_model(tmp_path, "qwen2", noise=0.1, max_position_embeddings=32, **sliding)
    kinds = load_model(folder).model.config.layer_types
    assert kinds == ["full_attention", "sliding_attention"]
    agree_at_all_places(folder)


def test_a_text_that_fills_the_model_leaves_no_room(tmp_path: Path) -> None:
    along = AlongText(load_model(make_model(tmp_path, max_position_embeddings=10)))
    assert along.room(TEXT[:9]) == 1
    assert len(along.write(TEXT[:9], 4, 0)) == 1
    assert along.room(TEXT[:10]) == 0
    assert along.write(TEXT[:10], 4, 0) == []

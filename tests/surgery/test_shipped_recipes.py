"""The recipes that ship run end to end, as they stand but for their outputs and less text."""

from __future__ import annotations

from pathlib import Path

import pytest

from tokensurgeon import Recipe, transplant
from tokensurgeon.recipe import TrainSpec

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.mark.parametrize(
    "name",
    [
        "domain-with-donor",
        "domain-from-my-text",
        "superwords-for-my-domain",
        "extend-my-model",
        "draft-model",
        "hand-over-to-a-trainer",
    ],
)
def test_a_shipped_recipe_runs_end_to_end(name: str, tmp_path: Path, few_pages: Path) -> None:
    recipe = Recipe.from_yaml(RECIPES / f"{name}.yaml")
    text = recipe.text.model_copy(update={"calibration": (str(few_pages),), "max_bytes": 6_000})
    # Little time: how the choice and all stages work together is tested elsewhere.
    changes: dict[str, object] = {"output": str(tmp_path / "out"), "text": text, "budget": 0.1}
    if isinstance(recipe.tokenizer, TrainSpec):
        # Few new tokens; an extended vocabulary has those of its base besides.
        size = 1_500 if recipe.tokenizer.base is None else 4_120
        save = {"save": str(tmp_path / "vocabulary"), "size": size, "add": None}
        changes["tokenizer"] = recipe.tokenizer.model_copy(update=save)
    result = transplant(recipe.model_copy(update=changes))
    assert (tmp_path / "out/model.safetensors").exists()
    assert result.report.recipe["source"].endswith("data/source")
    figures = {entry.name: entry.bits_per_byte for entry in result.evaluation.entries}
    assert figures["source"] < figures["patched"]
    assert (tmp_path / "out/continue").exists() == bool(recipe.hand_over)
    if recipe.donor is not None:
        assert figures["patched"] < figures["subword-mean"]

"""The sweep over families that docs/reference/model-families.md is made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scripts import script

REFUSED = ("gemma3n_text", "gemma4_text", "moshi")
NOT_BUILT = ("zamba2", "granitemoehybrid", "dbrx")


sweep = script("sweep_architectures")
USED = [one for one in (*sweep.FAMILIES, *sweep.CLASSES) if one not in (*REFUSED, *NOT_BUILT)]
SOME = (
    *("mamba", "deepseek_v3", "gpt_oss", "cohere", "opt"),
    *("BertForPreTraining", "RobertaForMaskedLM", "ElectraForMaskedLM", "XLMRobertaModel"),
    *("MarianMTModel", "UMT5ForConditionalGeneration", "Gemma3ForConditionalGeneration"),
)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", SOME)
def test_families_are_patched_right(family: str, tied: bool, tmp_path: Path) -> None:
    outcome = sweep.try_family(family, tied, tmp_path)
    assert outcome.right, outcome


@pytest.mark.sweep
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", USED)
def test_every_family_is_patched_right(family: str, tied: bool, tmp_path: Path) -> None:
    outcome = sweep.try_family(family, tied, tmp_path)
    assert outcome.right, outcome


@pytest.mark.parametrize("family", REFUSED)
def test_what_is_not_understood_is_refused(family: str, tmp_path: Path) -> None:
    outcome = sweep.try_family(family, False, tmp_path)
    assert outcome.error
    assert not outcome.built
    assert not (tmp_path / "moved").exists()

"""The sweep over families that docs/reference/model-families.md is made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scripts import script

REFUSED = ("gemma3n_text", "gemma4_text", "moshi")
NOT_BUILT = ("zamba2", "granitemoehybrid", "dbrx")


sweep = script("sweep_architectures")
classes = script("sweep_tokenizers")
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


KEPT = {
    "BertTokenizer": "TokenizersBackend",
    "CodeLlamaTokenizer": "CodeLlamaTokenizer",
    "GemmaTokenizer": "TokenizersBackend",
    "LlamaTokenizer": "TokenizersBackend",
    "MBart50Tokenizer": "MBart50Tokenizer",
    "NllbTokenizer": "NllbTokenizer",
    "Qwen2Tokenizer": "TokenizersBackend",
    "RobertaTokenizer": "TokenizersBackend",
    "T5Tokenizer": "T5Tokenizer",
    "WhisperTokenizer": "WhisperTokenizer",
    "XLMRobertaTokenizer": "TokenizersBackend",
}
"""Classes, and what is written where the target's folder names none: those with methods stay."""


@pytest.mark.parametrize("name", KEPT)
def test_tokenizer_classes_are_kept_where_they_give_the_same(name: str, tmp_path: Path) -> None:
    outcome = classes.try_class(name, classes.classes()[name], tmp_path)
    assert not outcome.failed
    assert (outcome.own, outcome.bare) == (name, KEPT[name]), outcome.lines
    assert outcome.lines == ()


@pytest.mark.sweep
def test_no_tokenizer_class_is_lost_without_a_word(tmp_path: Path) -> None:
    for name, kind in classes.classes().items():
        outcome = classes.try_class(name, kind, tmp_path / name)
        assert not any(line.startswith("refused") for line in outcome.lines), outcome
        if outcome.own not in ("", name):
            told = any(f"{name} is not kept" in line for line in outcome.lines)
            assert told == bool(outcome.methods), outcome

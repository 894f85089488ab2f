"""Drafts in the engine: transformers generates the same with one, in fewer passes."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.scripts import script
from tests.world import byte_level_bpe, make_model, save_tokenizer
from tokensurgeon import transplant
from tokensurgeon.evaluation.draft import measure_draft
from tokensurgeon.models import LanguageModel
from tokensurgeon.vocabulary import load_vocabulary

run_draft = script("run_draft")

WORDS = ["stone", "river", "winter", "garden", "silver", "morning", "letter", "window"]
TEXT = " ".join(WORDS[(i * i + i // 3) % 8] for i in range(400))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, Any]]:
    """A big model, a small one of another vocabulary, and the small one as a draft."""
    folder = tmp_path_factory.mktemp("models")
    big = make_model(folder / "big", n_rows=352, width=32, seed=1, noise=0.15)
    save_tokenizer(byte_level_bpe(340, ("<s>",), [TEXT]), big, bos_token="<s>")
    small = make_model(folder / "small", "gpt2", 300, tied=True, width=32, seed=2, noise=0.15)
    save_tokenizer(byte_level_bpe(300, ("<s>",)), small, bos_token="<s>")
    mean = {"input": "subword-mean", "output": "subword-mean"}
    transplant(source=small, for_draft=big, output=folder / "draft", init=mean)
    return {name: run_draft.load(folder / name) for name in ("big", "small", "draft")}


def prompts(tokenizer: Any) -> list[list[int]]:
    return [tokenizer(text)["input_ids"] for text in (TEXT[:40], TEXT[100:160], TEXT[300:330])]


def test_greedy_output_is_the_big_models_own(models: dict[str, tuple[Any, Any]]) -> None:
    big, tokenizer = models["big"]
    alone = run_draft.generate(big, prompts(tokenizer), new_tokens=12)
    assert alone.passes == 3 * 12
    assert alone.accepted == 0
    with_draft = run_draft.generate(
        big, prompts(tokenizer), draft=models["draft"][0], new_tokens=12
    )
    assert with_draft.outputs == alone.outputs
    both = (tokenizer, models["small"][1])
    re_encoded = run_draft.generate(
        big, prompts(tokenizer), draft=models["small"][0], tokenizers=both, new_tokens=12
    )
    assert re_encoded.outputs == alone.outputs


def test_a_model_accepts_its_own_drafts_as_the_measure_says(
    models: dict[str, tuple[Any, Any]],
) -> None:
    big, tokenizer = models["big"]
    found = run_draft.generate(
        big, prompts(tokenizer), draft=copy.deepcopy(big), new_tokens=13, drafted=4
    )
    assert found.passes == 3 * 3  # 5 tokens, 5, and the 3 that are left
    wrapped = LanguageModel(big)
    folder = Path(tokenizer.name_or_path)
    measured = measure_draft(wrapped, wrapped, load_vocabulary(folder), [TEXT[:300]])
    assert measured.accepted_greedy[4] == pytest.approx(4)


def test_perplexity_is_that_of_second_halves_of_chunks(
    models: dict[str, tuple[Any, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    big, tokenizer = models["big"]
    run_llama_cpp = script("run_llama_cpp")
    monkeypatch.setattr(run_llama_cpp, "CONTEXT", 16)
    found = run_llama_cpp.own_perplexity(Path(tokenizer.name_or_path), tokenizer, TEXT, 3)
    ids = tokenizer(TEXT)["input_ids"]
    losses = []
    for start in (0, 16, 32):
        chunk = torch.tensor([[tokenizer.bos_token_id, *ids[start + 1 : start + 16]]])
        with torch.inference_mode():
            log_p = big(input_ids=chunk).logits[0].log_softmax(1)
        losses += [-float(log_p[k, chunk[0, k + 1]]) for k in range(8, 15)]
    assert found == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-5)

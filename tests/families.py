"""Tiny real models of several families, with a tokenizer each, and plans to patch them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tokensurgeon.checkpoint import Checkpoint, PatchPlan, round_rows
from tokensurgeon.vocabulary import Vocabulary, load_vocabulary

N_TOKENS, N_ROWS, WIDTH = 290, 296, 16
TEXTS = ("the cat sat on the mat", "a hat, a bat: 1234 rats", "that is all  there\nis")

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {"intermediate_size": 24, "num_key_value_heads": 1}),
    "qwen2": ("Qwen2Config", {"intermediate_size": 24, "num_key_value_heads": 1}),
    "qwen3": ("Qwen3Config", {"intermediate_size": 24, "num_key_value_heads": 1, "head_dim": 8}),
    "gpt2": ("GPT2Config", {}),
    "gpt_neox": ("GPTNeoXConfig", {"intermediate_size": 24}),
    "phi": ("PhiConfig", {"intermediate_size": 24}),
    "gptj": ("GPTJConfig", {"rotary_dim": 4}),
}
BIASED = ("phi", "gptj")

torch.set_num_threads(1)  # tiny models only lose by sharing their work
CASES = [
    (family, tied)
    for family in FAMILIES
    for tied in (False, True)
    if not (tied and family in BIASED)
]


def make_tokenizer(folder: Path, order: list[int] | None = None, n_tokens: int = N_TOKENS) -> Path:
    """Save a byte-level BPE of `n_tokens` ids, of which 0 is BOS, 1 is EOS; `order` moves ids."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges: list[tuple[str, str]] = []
    spellings = ["<s>", "</s>", *alphabet]
    for a, b in [(a, b) for a in "Ġthacsm" for b in "thaeisnmorlcb"]:
        if len(spellings) < n_tokens and a + b not in spellings:
            merges.append((a, b))
            spellings.append(a + b)
    moved = list(range(n_tokens)) if order is None else order
    vocabulary = {spelling: moved[i] for i, spelling in enumerate(spellings)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(one, special=True) for one in ("<s>", "</s>")])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": "TokenizersBackend"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def make_model(
    folder: Path, family: str, tied: bool, *, dtype: str = "float32", shard: str = "5GB"
) -> Path:
    """Save a random model of two layers with its tokenizer; its rows are padded to N_ROWS."""
    import transformers

    name, extra = FAMILIES[family]
    config = getattr(transformers, name)(
        vocab_size=N_ROWS,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=32,
        tie_word_embeddings=tied,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=None,
        **extra,
    )
    torch.manual_seed(7)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3 + (parameter.dim() == 1) * 0.5)
    model.to(getattr(torch, dtype)).save_pretrained(folder, max_shard_size=shard)
    return make_tokenizer(folder)


@pytest.fixture(scope="session")
def model_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Make a model once per description; tests must not write into it."""
    made: dict[str, Path] = {}

    def get(family: str = "llama", tied: bool = False, **options: str) -> Path:
        key = f"{family}-{tied}-{sorted(options.items())}"
        if key not in made:
            made[key] = make_model(tmp_path_factory.mktemp(family), family, tied, **options)
        return made[key]

    return get


@pytest.fixture(scope="session")
def permutation() -> np.ndarray:
    """New id of each old id, tokens among tokens, padding rows where they are."""
    moved = np.random.default_rng(3).permutation(N_TOKENS)
    return np.concatenate([moved, np.arange(N_TOKENS, N_ROWS)])


@pytest.fixture(scope="session")
def permuted_vocabulary(
    tmp_path_factory: pytest.TempPathFactory, permutation: np.ndarray
) -> Vocabulary:
    order = [int(i) for i in permutation[:N_TOKENS]]
    return load_vocabulary(make_tokenizer(tmp_path_factory.mktemp("permuted"), order))


def plan_of(
    checkpoint: Checkpoint, target: Vocabulary, source_ids: np.ndarray, **changes: Any
) -> PatchPlan:
    """Plan rows that copy `source_ids` by target id; where it is -1, rows are small and new."""
    new = np.random.default_rng(5).normal(size=(len(source_ids), checkpoint.layout.width)) * 0.3

    def take(rows: np.ndarray) -> np.ndarray:
        fresh = round_rows(new.astype(np.float32), checkpoint.dtype)
        return np.where(source_ids[:, None] >= 0, rows[source_ids], fresh)

    bias = checkpoint.output_bias()
    known = [int(i) for i in source_ids if i >= 0]
    plan: dict[str, Any] = {
        "checkpoint": checkpoint,
        "target": target,
        "input_rows": take(checkpoint.input_rows()),
        "output_rows": take(checkpoint.output_rows()),
        "output_bias": None if bias is None else np.where(source_ids >= 0, bias[source_ids], 0),
        "copied_input": source_ids.astype(np.int64),
        "copied_output": source_ids.astype(np.int64),
        "id_map": {i: source_ids.tolist().index(i) for i in known},
    }
    return PatchPlan(**{**plan, **changes})


def permuted_plan(folder: Path, target: Vocabulary, permutation: np.ndarray) -> PatchPlan:
    """Plan the source's own vocabulary with other ids."""
    return plan_of(Checkpoint.open(folder), target, np.argsort(permutation))

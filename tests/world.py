"""Tiny real models and tokenizers, and plans to patch them, for the tests of every room."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tokensurgeon.checkpoint import BodyUpdate, Checkpoint, PatchPlan, round_rows
from tokensurgeon.checkpoint.body_update import changeable_weights
from tokensurgeon.vocabulary import Vocabulary

SENTENCES = (
    "The index is scanned from left to right, and every row that matches is returned.",
    "A table has rows and columns; a row that is locked cannot be changed by another session.",
    "If the value is not found, the query returns nothing and the index is left as it was.",
    "for row in table:\n    if row.value == 42:\n        return row\n",
    "Numbers such as 3.14159 and 2048 are stored as they are written; so is «größer».",
)

LLAMA = {"num_key_value_heads": 1}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", LLAMA),
    "qwen2": ("Qwen2Config", LLAMA),
    "qwen3": ("Qwen3Config", LLAMA),
    "gpt2": ("GPT2Config", {}),
    "gpt_neox": ("GPTNeoXConfig", {}),
    "phi": ("PhiConfig", {}),
    "gptj": ("GPTJConfig", {"rotary_dim": 4}),
}
"""The config class of each family, and what it asks for besides the common sizes."""
BIASED = ("phi", "gptj")
"""Their output rows have a bias, which a tied head cannot have."""
CASES = [(f, tied) for f in FAMILIES for tied in (False, True) if not (tied and f in BIASED)]

N_TOKENS, N_ROWS, WIDTH = 290, 296, 16
"""Of the models that `model_of` makes: six rows are padding."""


def byte_level_bpe(
    size: int,
    specials: Iterable[str] = (),
    texts: Iterable[str] = SENTENCES,
    *,
    across_words: bool = False,
) -> Tokenizer:
    """Train a byte-level BPE of `size` tokens, the special ones first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=not across_words
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(specials),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def permuted(tokenizer: Tokenizer, seed: int = 0) -> Tokenizer:
    """Return the same tokenizer with other ids for its model's tokens."""
    document = json.loads(tokenizer.to_str())
    table = document["model"]["vocab"]
    order = list(range(len(table)))
    random.Random(seed).shuffle(order)
    if isinstance(table, dict):
        document["model"]["vocab"] = {token: order[i] for token, i in table.items()}
    else:
        document["model"]["vocab"] = [table[i] for i in np.argsort(order)]
        document["model"]["unk_id"] = order[document["model"]["unk_id"]]
    for token in document["added_tokens"]:
        if token["id"] < len(order):
            token["id"] = order[token["id"]]
    document["added_tokens"].sort(key=lambda token: token["id"])
    document["post_processor"] = None
    return Tokenizer.from_str(json.dumps(document))


def save_tokenizer(tokenizer: Tokenizer, folder: Path, **config: object) -> Path:
    """Save a tokenizer as transformers would; `config` names its special tokens by role."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "TokenizersBackend", **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def make_tokenizer(
    folder: Path, size: int = N_TOKENS, bos: str = "<s>", eos: str = "</s>", **training: Any
) -> Path:
    """Train and save a byte-level BPE whose ids 0 and 1 are BOS and EOS, or 0 both."""
    tokenizer = byte_level_bpe(size, dict.fromkeys((bos, eos)), **training)
    return save_tokenizer(tokenizer, folder, bos_token=bos, eos_token=eos)


def permute(folder: Path, to: Path, seed: int = 0) -> Path:
    """Copy a tokenizer's folder with its ids shuffled."""
    shutil.copytree(folder, to)
    permuted(Tokenizer.from_file(str(folder / "tokenizer.json")), seed).save(
        str(to / "tokenizer.json")
    )
    return to


def make_model(
    folder: Path,
    family: str = "llama",
    n_rows: int = N_ROWS,
    *,
    tied: bool = False,
    width: int = WIDTH,
    seed: int = 0,
    noise: float = 0.0,
    tokenizer: Path | None = None,
    dtype: str = "float32",
    shard: str = "5GB",
    **config: Any,
) -> Path:
    """Save a random model of a family, with the files of `tokenizer` beside it.

    A fresh model's matrices are near zero and its norms are one; `noise` is the standard deviation
    of what is added to every parameter, so that each of them counts. `config` overrides fields of
    the model's config.
    """
    import torch
    import transformers

    name, more = FAMILIES[family]
    fields = {
        "vocab_size": n_rows,
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "head_dim": width // 2,
        "max_position_embeddings": 128,
        "tie_word_embeddings": tied,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": None,
    }
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(
        getattr(transformers, name)(**{**fields, **more, **config})
    )
    if noise:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * noise)
    model.to(getattr(torch, dtype)).save_pretrained(folder, max_shard_size=shard)
    if tokenizer is not None:
        shutil.copytree(tokenizer, folder, dirs_exist_ok=True)
    return folder


def model_maker(root: Path, **fixed: Any) -> Callable[..., Path]:
    """Return a `make_model` with some arguments given, which makes each model once."""

    def get(family: str = "llama", tied: bool = False, **options: Any) -> Path:
        folder = root / "-".join([family, str(tied), *map(str, sorted(options.items()))])
        if not folder.exists():
            make_model(folder, family, tied=tied, **{**fixed, **options})
        return folder

    return get


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


def body_update(folder: Path, rank: int = 2, scale: float = 0.3, seed: int = 11) -> BodyUpdate:
    """Return a random update of every weight of a model's body that can be changed."""
    checkpoint, rng = Checkpoint.open(folder), np.random.default_rng(seed)
    factors = {}
    for name, key in changeable_weights(checkpoint).items():
        n_out, n_in = checkpoint.tensors.info(key).shape
        a, b = rng.normal(size=(n_out, rank)), rng.normal(size=(rank, n_in))
        factors[name] = (scale * a).astype(np.float32), b.astype(np.float32) / n_in**0.5
    return BodyUpdate(factors)

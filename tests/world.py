"""Real tiny models, built from configs, with real tiny tokenizers."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

TEXT = [
    "The quick brown fox jumps over the lazy dog, and the dog sleeps on.",
    "Tokens are numbers; a table of rows gives each number a vector of its own.",
    "def transplant(source, target):\n    return source.rows[target]\n",
    "In 2024 there were 365 days and 12 months, said the old calendar.",
    "Small models learn little, but they learn it quickly and tell it plainly.",
] * 4


def bpe(size: int, specials: tuple[str, ...], texts: list[str] = TEXT) -> Tokenizer:
    """Train a byte-level BPE."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=list(specials),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path, **config: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "TokenizersBackend", **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def permute(folder: Path, to: Path, seed: int = 0) -> Path:
    """Copy a tokenizer with its ids shuffled."""
    data = json.loads((folder / "tokenizer.json").read_text())
    vocab = data["model"]["vocab"]
    ids = sorted(vocab.values())
    shuffled = ids[:]
    random.Random(seed).shuffle(shuffled)
    moved = dict(zip(ids, shuffled, strict=True))
    data["model"]["vocab"] = {spelling: moved[i] for spelling, i in vocab.items()}
    for token in data["added_tokens"]:
        token["id"] = moved[token["id"]]
    data["added_tokens"].sort(key=lambda token: token["id"])
    to.mkdir(parents=True)
    (to / "tokenizer.json").write_text(json.dumps(data))
    (to / "tokenizer_config.json").write_text((folder / "tokenizer_config.json").read_text())
    return to


def make_model(folder: Path, family: str, n_rows: int, tied: bool, seed: int = 0) -> Path:
    """Write a tiny model of a family with random weights that are not tiny."""
    import torch
    import transformers

    common = {"vocab_size": n_rows, "tie_word_embeddings": tied, "bos_token_id": 0}
    common["eos_token_id"] = 0
    wide = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "max_position_embeddings": 256,
    }
    llama = {**common, **wide, "num_key_value_heads": 2}
    configs = {
        "llama": lambda: transformers.LlamaConfig(**llama),
        "qwen2": lambda: transformers.Qwen2Config(**llama),
        "qwen3": lambda: transformers.Qwen3Config(**llama, head_dim=16),
        "gpt2": lambda: transformers.GPT2Config(
            **common, n_embd=32, n_layer=3, n_head=2, n_positions=256
        ),
        "gpt_neox": lambda: transformers.GPTNeoXConfig(**common, **wide),
        "phi": lambda: transformers.PhiConfig(**common, **wide),
    }
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(configs[family]())
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, 0.15)
        head = model.get_output_embeddings()
        if getattr(head, "bias", None) is not None:
            head.bias.normal_(0, 0.5)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a source tokenizer, a target tokenizer and texts."""
    root = tmp_path_factory.mktemp("world")
    save_tokenizer(
        bpe(330, ("<|endoftext|>", "<|pad|>")),
        root / "source",
        bos_token="<|endoftext|>",
        eos_token="<|endoftext|>",
        pad_token="<|pad|>",
    )
    target_texts = ["rows of a table", "the calendar says days", *TEXT[2:5]] * 5
    save_tokenizer(
        bpe(380, ("<s>", "</s>", "<|note|>"), target_texts),
        root / "target",
        bos_token="<s>",
        eos_token="</s>",
    )
    documents = [{"text": text} for text in TEXT[:5]]
    (root / "evaluation.jsonl").write_text("\n".join(json.dumps(one) for one in documents))
    return root


@pytest.fixture(scope="session")
def checkpoints(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a maker of checkpoints, each built once: ``checkpoints(family, tied)``."""
    root = tmp_path_factory.mktemp("checkpoints")

    def get(family: str = "llama", tied: bool = False, n_rows: int = 330, seed: int = 0) -> Path:
        folder = root / f"{family}-{tied}-{n_rows}-{seed}"
        if not folder.exists():
            make_model(folder, family, n_rows, tied, seed)
            for file in (world / "source").iterdir():
                (folder / file.name).write_bytes(file.read_bytes())
        return folder

    return get


@pytest.fixture(scope="session")
def donor(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A donor of another width and family that has the target tokenizer."""
    folder = make_model(tmp_path_factory.mktemp("donor") / "donor", "gpt2", 380, tied=False, seed=7)
    for file in (world / "target").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


@pytest.fixture(scope="session")
def permuted(world: Path) -> Path:
    """The source's tokenizer with other ids."""
    return permute(world / "source", world / "permuted")

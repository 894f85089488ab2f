"""What tests of every room share: an offline process, others' files, and a tiny real model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
from hypothesis import HealthCheck, settings

from tests.families import model_of, permutation, permuted_vocabulary  # noqa: F401 - fixtures
from tests.world import checkpoints, donor, permuted, world  # noqa: F401 - fixtures

# Machines are shared and noisy: no test is judged by its time, and a failure is found again.
settings.register_profile(
    "house", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("house")

ASSETS = "TOKENSURGEON_ASSETS"

SENTENCES = (
    "The index is scanned from left to right, and every row that matches is returned.",
    "A table has rows and columns; a row that is locked cannot be changed by another session.",
    "If the value is not found, the query returns nothing and the index is left as it was.",
    "for row in table:\n    if row.value == 42:\n        return row\n",
    "Numbers such as 3.14159 and 2048 are stored as they are written; so is «größer».",
)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """One torch thread: matrices here are tiny, and threads that wait for a core cost seconds."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder of other people's models, tokenizers and texts; skips without it."""
    folder = os.environ.get(ASSETS)
    if not folder or not Path(folder).is_dir():
        pytest.skip(f"{ASSETS} names no folder with other people's models and texts")
    return Path(folder)


def make_tokenizer(folder: Path, size: int, *, bos: str, eos: str, texts=SENTENCES) -> Path:
    """Train a byte-level BPE and save it as transformers would."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(dict.fromkeys([bos, eos])),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=bos, eos_token=eos)
    fast.save_pretrained(folder)
    return folder


def make_model(folder: Path, n_rows: int, *, width: int, seed: int, tied: bool = False) -> Path:
    """Save a random Llama of two layers; ids 0 and 1 are BOS and EOS."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=n_rows,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=128,
        bos_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=tied,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session", autouse=True)
def short_writing() -> Iterator[None]:
    """Let sources write less text where none is given: random models have nothing to say."""
    from tokensurgeon.calibration import calibration_texts as texts

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(texts, "GENERATED", 3_000)
        patch.setattr(texts, "MOST_OTHER", 1_000)
        yield


@pytest.fixture(scope="session")
def tiny_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of 320 tokens and width 16, untied, with its tokenizer."""
    folder = tmp_path_factory.mktemp("source")
    make_tokenizer(folder, 320, bos="<s>", eos="</s>")
    return make_model(folder, 320, width=16, seed=1)


@pytest.fixture(scope="session")
def tiny_donor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of 400 tokens and width 8, with its tokenizer, which serves as a target too."""
    folder = tmp_path_factory.mktemp("donor")
    make_tokenizer(folder, 400, bos="<|bos|>", eos="<|eos|>", texts=SENTENCES[::-1])
    return make_model(folder, 400, width=8, seed=2)


@pytest.fixture(scope="session")
def tiny_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of ten short documents to measure on."""
    import json

    path = tmp_path_factory.mktemp("text") / "text.jsonl"
    texts = [f"{i}. {SENTENCES[i % 5]} {SENTENCES[(i + 2) % 5]}" for i in range(10)]
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts), "utf-8")
    return path

"""What tests of every room share: an offline process, others' files, tiny real models and texts."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from tests.vocabulary.tiny_tokenizers import TINY, made
from tests.world import (
    N_ROWS,
    N_TOKENS,
    SENTENCES,
    byte_level_bpe,
    make_model,
    make_tokenizer,
    model_maker,
    permute,
    save_tokenizer,
)
from tokensurgeon.vocabulary import Vocabulary, load_vocabulary

# Machines are shared and noisy: no test is judged by its time, and a failure is found again.
settings.register_profile(
    "house", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("house")

ASSETS = "TOKENSURGEON_ASSETS"


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """One torch thread: matrices here are tiny, and threads that wait for a core cost seconds."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session", autouse=True)
def silent_progress() -> Iterator[None]:
    """Let no command say what it does because the machine is slow."""
    from tokensurgeon.cli import console

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(console, "SILENT_SECONDS", float("inf"))
        yield


@pytest.fixture(scope="session", autouse=True)
def short_writing() -> Iterator[None]:
    """Let sources write less text: random models have nothing to say."""
    from tokensurgeon.calibration import calibration_texts as texts
    from tokensurgeon.calibration import data

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(texts, "GENERATED", 3_000)
        patch.setattr(data, "LESSONS", 1_000)
        patch.setattr(texts, "MOST_OTHER", 1_000)
        yield


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder of other people's models, tokenizers and texts; skips without it."""
    folder = os.environ.get(ASSETS)
    if not folder or not Path(folder).is_dir():
        pytest.skip(f"{ASSETS} names no folder with other people's models and texts")
    return Path(folder)


@pytest.fixture(scope="session")
def tiny_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of 320 tokens and width 16, untied, with its tokenizer."""
    folder = make_tokenizer(tmp_path_factory.mktemp("source"), 320)
    return make_model(folder, n_rows=320, seed=1, num_key_value_heads=2)


@pytest.fixture(scope="session")
def tiny_donor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of 400 tokens and width 8, with its tokenizer, which serves as a target too."""
    folder = tmp_path_factory.mktemp("donor")
    make_tokenizer(folder, 400, "<|bos|>", "<|eos|>", texts=SENTENCES[::-1])
    return make_model(folder, n_rows=400, width=8, seed=2)


@pytest.fixture(scope="session")
def tiny_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of ten short documents to measure on."""
    path = tmp_path_factory.mktemp("text") / "text.jsonl"
    texts = [f"{i}. {SENTENCES[i % 5]} {SENTENCES[(i + 2) % 5]}" for i in range(10)]
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts), "utf-8")
    return path


@pytest.fixture(scope="session")
def few_pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A third of the calibration text that ships: as much as the shipped model needs to gain."""
    text = (resources.files("tokensurgeon") / "data/text/calibration.jsonl").read_text("utf-8")
    path = tmp_path_factory.mktemp("pages") / "calibration.jsonl"
    path.write_text("\n".join(text.splitlines()[:10]), "utf-8")
    return path


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two tokenizers whose roles differ, `source` and `target`, and of a text."""
    root = tmp_path_factory.mktemp("world")
    end = "<|endoftext|>"
    save_tokenizer(
        byte_level_bpe(330, (end, "<|pad|>")),
        root / "source",
        bos_token=end,
        eos_token=end,
        pad_token="<|pad|>",
    )
    texts = ["rows of a table", "the calendar says days", *SENTENCES[2:]]
    save_tokenizer(
        byte_level_bpe(380, ("<s>", "</s>", "<|note|>"), texts),
        root / "target",
        bos_token="<s>",
        eos_token="</s>",
    )
    documents = [json.dumps({"text": text}) for text in SENTENCES]
    (root / "evaluation.jsonl").write_text("\n".join(documents))
    return root


@pytest.fixture(scope="session")
def permuted(world: Path) -> Path:
    """The tokenizer `source` of the world with other ids."""
    return permute(world / "source", world / "permuted")


@pytest.fixture(scope="session")
def checkpoints(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a maker of models with the tokenizer `source`: ``checkpoints(family, tied)``."""
    return model_maker(
        tmp_path_factory.mktemp("checkpoints"),
        tokenizer=world / "source",
        n_rows=330,
        width=32,
        noise=0.15,
        num_hidden_layers=3,
        intermediate_size=48,
        max_position_embeddings=256,
        eos_token_id=0,
    )


@pytest.fixture(scope="session")
def donor(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A donor of another family that has the tokenizer `target`."""
    folder = tmp_path_factory.mktemp("donor")
    return make_model(folder, "gpt2", 380, width=32, seed=7, noise=0.15, tokenizer=world / "target")


@pytest.fixture(scope="session")
def model_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a maker of models with padded rows; tests must not write into them."""
    root = tmp_path_factory.mktemp("models")
    tokenizer = make_tokenizer(root / "tokenizer")
    return model_maker(root, tokenizer=tokenizer, seed=7, noise=0.1, max_position_embeddings=32)


@pytest.fixture(scope="session")
def permuted_vocabulary(
    model_of: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Vocabulary:
    """The tokenizer of `model_of`'s models with other ids."""
    moved = tmp_path_factory.mktemp("permuted") / "tokenizer"
    return load_vocabulary(permute(model_of().parent / "tokenizer", moved))


@pytest.fixture(scope="session")
def permutation(model_of: Callable[..., Path], permuted_vocabulary: Vocabulary) -> np.ndarray:
    """New id of each old id, tokens among tokens, padding rows where they are."""
    moved = permuted_vocabulary.tokenizer.get_vocab()
    own = load_vocabulary(model_of()).tokenizer
    ids = [moved[own.id_to_token(i)] for i in range(N_TOKENS)]
    return np.array([*ids, *range(N_TOKENS, N_ROWS)])


@pytest.fixture(params=sorted(TINY))
def kind(request: pytest.FixtureRequest) -> str:
    """The name of each of the tiny tokenizers."""
    return request.param


@pytest.fixture
def vocabulary(kind: str) -> Vocabulary:
    """The vocabulary of each of the tiny tokenizers."""
    return made(kind)

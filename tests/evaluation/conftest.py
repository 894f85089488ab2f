"""Tiny real models with their vocabularies, and a model whose loss is known per byte."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from tokensurgeon.evaluation import Entry
from tokensurgeon.models.load import load_model
from tokensurgeon.vocabulary import Vocabulary, load_vocabulary


class UniformBytes:
    """Spreads its belief evenly over bytes: each token costs ln 256 per byte it stands for."""

    kind = "causal"
    max_positions = None

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary

    def nll(self, batch):
        sizes = [[len(self.vocabulary.token_bytes[i] or b"") for i in ids[1:]] for ids in batch]
        return [np.array(one, dtype=np.float64) * math.log(256) for one in sizes]


@pytest.fixture(scope="session")
def source(tiny_source: Path) -> Entry:
    return Entry("source", load_model(tiny_source), load_vocabulary(tiny_source))


@pytest.fixture(scope="session")
def other(tiny_donor: Path) -> Entry:
    return Entry("other", load_model(tiny_donor), load_vocabulary(tiny_donor))


@pytest.fixture(scope="session")
def texts(tiny_text: Path) -> list[str]:
    lines = tiny_text.read_text("utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]

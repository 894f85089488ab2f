"""Vocabularies of every kind, made once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from tiny_tokenizers import TINY, made

from tokensurgeon.vocabulary import Vocabulary


@pytest.fixture(params=sorted(TINY))
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def vocabulary(kind: str) -> Vocabulary:
    return made(kind)

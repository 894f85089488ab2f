"""Models by name: from the local cache, at the revision that is named, without a network."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tokensurgeon.checkpoint import Checkpoint
from tokensurgeon.errors import CheckpointError, TokenizerError
from tokensurgeon.vocabulary import load_vocabulary
from tokensurgeon.vocabulary.hub import is_name, split_revision


@pytest.fixture
def cache(tmp_path: Path, model_of: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lay a model out as the hub's cache does: two commits, a branch each, and a tag."""
    model = tmp_path / "models--org--tiny"
    commits = {"main": "a" * 40, "v2": "b" * 40}
    for (name, commit), tied in zip(commits.items(), (False, True), strict=True):
        shutil.copytree(model_of("llama", tied), model / "snapshots" / commit)
        (model / "refs").mkdir(exist_ok=True)
        (model / "refs" / name).write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "commit", "tied"),
    [
        ("org/tiny", "a", False),
        ("org/tiny@main", "a", False),
        ("org/tiny@v2", "b", True),
        ("org/tiny@" + "b" * 40, "b", True),
    ],
)
def test_a_revision_is_taken_from_the_cache(
    cache: Path, name: str, commit: str, tied: bool
) -> None:
    checkpoint = Checkpoint.open(name)
    assert checkpoint.path.name == commit * 40
    assert checkpoint.layout.tied is tied
    assert load_vocabulary(name).folder == checkpoint.path


def test_a_revision_that_is_not_there_is_said(cache: Path) -> None:
    with pytest.raises(CheckpointError, match="org/tiny@v3"):
        Checkpoint.open("org/tiny@v3")
    with pytest.raises(TokenizerError, match="org/tiny@v3"):
        load_vocabulary("org/tiny@v3")


def test_names_are_names() -> None:
    assert split_revision("org/m@refs/pr/1") == ("org/m", "refs/pr/1")
    for good in ("gpt2", "org/m", "org/m@v1.0", "org/m@refs/pr/1"):
        assert is_name(good)
    for bad in ("", "../x", "org/m@", "org/m@../../x", "a/b/c", "org/m@-x", "/abs", ".hidden"):
        assert not is_name(bad)

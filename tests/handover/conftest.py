"""Patched checkpoints to hand over, and a hub to push one to."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.handover.hub_stand_in import TOKEN, Hub
from tests.world import SENTENCES, byte_level_bpe, make_model, save_tokenizer
from tokensurgeon import transplant
from tokensurgeon.handover.facts import TRAINERS

CARD = "---\nlicense: apache-2.0\ntags: [small]\n---\n# A source\n"


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a `source`, a `target` and what came of them, `patched`."""
    root = tmp_path_factory.mktemp("made")
    source = make_model(root / "source", n_rows=300, width=32, noise=0.15)
    save_tokenizer(byte_level_bpe(300, ("<s>",)), source, bos_token="<s>")
    (source / "README.md").write_text(CARD)
    longer = byte_level_bpe(360, ("<s>", "<extra>"), [text.upper() for text in SENTENCES])
    save_tokenizer(longer, root / "target", bos_token="<s>")
    transplant(
        source=source,
        tokenizer=root / "target",
        init={"input": "subword-mean", "output": "subword-mean"},
        output=root / "patched",
    )
    return root


@pytest.fixture
def patched(made: Path, tmp_path: Path) -> Path:
    """A copy of the patched checkpoint that a test may write into."""
    return Path(shutil.copytree(made / "patched", tmp_path / "patched"))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that the real client is pointed at, with a token that may write."""
    from huggingface_hub import constants

    stand_in = Hub()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "ENDPOINT", stand_in.url)
    yield stand_in
    stand_in.close()


MEAN = {"input": "mean", "output": "mean"}


@pytest.fixture(scope="session")
def handed_over(
    world: Path, checkpoints: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[bool], Path]:
    """Return a patched checkpoint with files for every trainer; tests must not write into it."""
    made: dict[bool, Path] = {}

    def make(tied: bool) -> Path:
        if tied not in made:
            output = tmp_path_factory.mktemp("handed-over") / "patched"
            transplant(
                source=checkpoints("llama", tied),
                tokenizer=world / "target",
                init=MEAN,
                output=output,
                hand_over=TRAINERS,
            )
            made[tied] = output
        return made[tied]

    return make

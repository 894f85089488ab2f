"""Trackers: they are told every step, change no row, and end no training by a fault of theirs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tests.world import SENTENCES
from tokensurgeon import Recipe
from tokensurgeon.calibration.training.loop import Trained, train_rows
from tokensurgeon.calibration.training.teaching import teach
from tokensurgeon.cli.main import main
from tokensurgeon.errors import MissingExtraError, OutputExistsError, UsageError
from tokensurgeon.handover import trackers
from tokensurgeon.handover.trackers import EVENTS, TrackedRun, tracked
from tokensurgeon.models import load_model
from tokensurgeon.progress import Clock, Progress, TrackedProgress, no_progress
from tokensurgeon.studies.hypernet import train_hypernet
from tokensurgeon.vocabulary import load_vocabulary

TEXTS = [f"{i}. {SENTENCES[i % 5]} {SENTENCES[(i + 2) % 5]}" for i in range(10)]
Told = list[tuple[str, int, Mapping[str, float]]]


def following(told: Told) -> Progress:
    """Return a progress that notes down what a tracker is told."""
    return TrackedProgress(no_progress, lambda *figures: told.append(figures))


def heal(folder: Path, progress: Progress) -> Trained:
    """Train all rows of a checkpoint on a few tokens; what chooses the rows prefers the last."""
    model = load_model(folder)
    every = np.ones(model.n_rows, dtype=bool)
    looks = iter(range(10, 0, -1))
    return train_rows(
        model,
        load_vocabulary(folder),
        TEXTS,
        train_input=every,
        train_output=every,
        tied=False,
        minutes=60.0,
        max_tokens=1_500,
        max_passes=None,
        tokens_per_step=256,
        learning_rate=0.5,
        selection=lambda model: float(next(looks)),
        progress=progress,
    )


def test_healing_tells_every_step_and_gives_the_same_rows(tiny_source: Path) -> None:
    told: Told = []
    plain, followed = heal(tiny_source, no_progress), heal(tiny_source, following(told))
    np.testing.assert_array_equal(plain.matrices.input, followed.matrices.input)
    np.testing.assert_array_equal(plain.matrices.output, followed.matrices.output)
    assert {what for what, _, _ in told} == {"healing"}
    steps = [(step, figures) for _, step, figures in told if "loss" in figures]
    assert [step for step, _ in steps] == list(range(1, followed.n_steps + 1))
    assert steps[-1][1]["tokens"] == followed.n_tokens
    losses = [figures["loss"] for _, figures in steps]
    assert losses[0] == pytest.approx(np.log(320), rel=0.1)  # a random model knows nothing
    assert losses[-1] < losses[0] - 0.2
    looks = [figures["bits_per_byte"] for _, _, figures in told if "bits_per_byte" in figures]
    assert looks == [value for _, value in followed.history]


def test_a_taught_training_tells_its_losses_and_its_share_of_the_rate() -> None:
    told: Told = []
    losses, n_tokens = teach(
        [0.5, 0.25, 0.125],
        lambda batch, share: (batch, 10),
        clock=Clock(),
        max_tokens=100,
        progress=following(told),
        what="distilling",
    )
    assert (losses, n_tokens) == ((0.5, 0.25, 0.125), 30)
    assert [figures["loss"] for _, _, figures in told] == list(losses)
    assert [figures["tokens"] for _, _, figures in told] == [10, 20, 30]
    assert [figures["share_of_rate"] for _, _, figures in told] == pytest.approx([0.1, 0.18, 0.24])


def test_a_hypernetwork_tells_both_of_its_trainings(tiny_source: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.jsonl"
    text.write_text("".join(json.dumps({"text": one}) + "\n" for one in TEXTS), "utf-8")
    recipe = Recipe.parse(
        {
            "source": str(tiny_source),
            "tokenizer": str(tiny_source),
            "text": {"calibration": [str(text)]},
        }
    )
    told: Told = []
    network = train_hypernet(
        recipe, tmp_path / "network", size=8, steps=(3, 2), progress=following(told)
    )
    steps = [what for what, _, figures in told if "loss" in figures]
    assert len(steps) == network.card["gradient_steps"]
    assert {what for what, _, figures in told if "validation" in figures} == set(steps)
    assert len(set(steps)) == 2
    assert all(np.isfinite(figures["loss"]) for _, _, figures in told if "loss" in figures)


# -- where figures go ------------------------------------------------------------------------------


class Faulty:
    """Takes some figures, and then has no room left."""

    def __init__(self, room: int) -> None:
        self.left, self.names = room, list[str]()

    def log(self, figures: Mapping[str, float], step: int) -> None:
        if not self.left:
            raise OSError("no space left on device")
        self.left -= 1
        self.names += figures

    def close(self) -> None:
        raise OSError("no space left on device")


@pytest.fixture
def all_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "installed", lambda name: True)


def test_a_fault_of_the_tracker_ends_the_tracking_and_not_the_training(
    tiny_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, all_installed: None
) -> None:
    faulty = Faulty(room=2)
    monkeypatch.setattr(trackers, "_begin", lambda kind, name: faulty)
    with tracked(f"tensorboard:{tmp_path / 'run'}") as run:
        trained = heal(tiny_source, TrackedProgress(no_progress, run))
    assert trained.n_steps > 2
    assert run.steps == {"healing": 1}
    assert "no space left on device" in run.failure
    assert "step 2 of healing" in run.failure or "step 1 of healing" in run.failure


def test_a_training_that_begins_anew_is_another_series(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, all_installed: None
) -> None:
    faulty = Faulty(room=99)
    monkeypatch.setattr(trackers, "_begin", lambda kind, name: faulty)
    run = TrackedRun(f"tensorboard:{tmp_path / 'run'}")
    for step in (0, 1, 1, 2, 0, 1, 0):
        run("hypernetwork: network, on rows", step, {"loss": 1.0})
    assert run.steps == {"network-on-rows": 2, "network-on-rows.2": 1, "network-on-rows.3": 0}
    assert faulty.names[0] == "network-on-rows/loss"


def test_a_tracker_that_is_not_installed_says_what_installs_it(
    tiny_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "installed", lambda name: False)
    with pytest.raises(MissingExtraError, match=r"pip install 'tokensurgeon\[trackio\]'"):
        TrackedRun("trackio:mine")
    where = f"tensorboard:{tmp_path / 'run'}"
    command = ["hypernet", "train", str(tiny_source), "-o", str(tmp_path / "n"), "--track", where]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 1
    assert "pip install 'tokensurgeon[tensorboard]'" in result.stderr
    dry = ["transplant", str(tiny_source), "--tokenizer", str(tiny_source), "--dry-run"]
    result = CliRunner().invoke(main, [*dry, "--track", where])
    assert result.exit_code == 1
    assert "pip install 'tokensurgeon[tensorboard]'" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["wandb:mine", "tensorboard", "tensorboard:", "trackio: ", ""])
def test_what_names_no_tracker_is_refused(where: str) -> None:
    with pytest.raises(UsageError, match="names no tracker"):
        TrackedRun(where)


def test_a_folder_that_cannot_take_a_run_is_refused(tmp_path: Path, all_installed: None) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / f"{EVENTS}.1").write_text("")
    with pytest.raises(UsageError, match="no folder"):
        TrackedRun(f"tensorboard:{tmp_path / 'file'}")
    with pytest.raises(OutputExistsError, match="holds a run"):
        TrackedRun(f"tensorboard:{tmp_path / 'old'}")
    with pytest.raises(UsageError, match="lies in"):
        TrackedRun(f"tensorboard:{tmp_path / 'out' / 'run'}", [tmp_path / "out"])


def test_tensorboard_holds_what_was_told(
    tiny_source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboard", reason="pip install tokensurgeon[tensorboard]")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    told: Told = []
    with tracked(f"tensorboard:{tmp_path / 'run'}") as run:

        def both(what: str, step: int, figures: Mapping[str, float]) -> None:
            told.append((what, step, figures))
            run(what, step, figures)

        trained = heal(tiny_source, TrackedProgress(no_progress, both))
    assert run.failure is None
    assert run.steps == {"healing": trained.n_steps}
    assert capsys.readouterr().out == ""
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    for key in ("loss", "rate", "tokens", "bits_per_byte"):
        written = [(event.step, event.value) for event in events.Scalars(f"healing/{key}")]
        given = [(step, figures[key]) for _, step, figures in told if key in figures]
        assert [step for step, _ in written] == [step for step, _ in given]
        np.testing.assert_allclose([v for _, v in written], [v for _, v in given], rtol=1e-6)


def test_trackio_holds_what_was_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio", reason="pip install tokensurgeon[trackio]")
    with tracked("trackio:mine") as run:
        for step in range(3):
            run("healing", step, {"loss": 3.0 - step})
    assert run.failure is None
    assert run.steps == {"healing": 2}
    assert [one.name for one in (tmp_path / "trackio").glob("mine*.db")]

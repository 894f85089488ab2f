"""A hypernetwork trained for a source: through the command, used on targets and on a variant."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.world import byte_level_bpe, make_model, save_tokenizer
from tokensurgeon import Recipe, transplant
from tokensurgeon.alignment import align
from tokensurgeon.checkpoint import Checkpoint
from tokensurgeon.cli.main import main
from tokensurgeon.errors import UsageError
from tokensurgeon.initialisers.hypernetwork.network_file import Hypernet
from tokensurgeon.recipe import InitSpec
from tokensurgeon.studies.hypernet import train_hypernet
from tokensurgeon.surgery.prepare import prepare
from tokensurgeon.surgery.rows import patch_rows
from tokensurgeon.vocabulary import load_vocabulary

WEIGHTS = "model.safetensors"
SIZES: dict[str, Any] = {"width": 32, "noise": 0.15}

WORDS = [
    "stone",
    "river",
    "winter",
    "garden",
    "silver",
    "morning",
    "letter",
    "window",
    "shadow",
    "market",
]


def texts(n: int = 80, seed: int = 0) -> str:
    rng = random.Random(seed)
    lines = []
    for i in range(n):
        some = " ".join(rng.choice(WORDS) for _ in range(30))
        lines.append(
            f"Note {i} says that {some}, and the {rng.choice(WORDS)}s were {i * 7} in all."
        )
    return "\n\n".join(lines)


@pytest.fixture
def pair(tmp_path):
    """Return a source, the folder of a target tokenizer, and a text."""
    source = byte_level_bpe(330, ("<s>",), [texts(10)])
    folder = make_model(tmp_path / "source", n_rows=source.get_vocab_size(), **SIZES)
    save_tokenizer(source, folder, bos_token="<s>")
    target = save_tokenizer(
        byte_level_bpe(420, ("<s>",), [texts(60)]), tmp_path / "target", bos_token="<s>"
    )
    (tmp_path / "text.txt").write_text(texts())
    return folder, target, tmp_path / "text.txt"


def recipe(source, target, **more) -> Recipe:
    return Recipe.model_validate({"source": str(source), "tokenizer": str(target), **more})


@pytest.mark.parametrize("family", ["llama", "gpt2", "phi"])
@pytest.mark.parametrize("tied", [False, True])
def test_training_through_the_model_leaves_it_as_it_was(tmp_path, family: str, tied: bool):
    source = byte_level_bpe(330, ("<s>",), [texts(10)])
    folder = make_model(tmp_path / "source", family, source.get_vocab_size(), tied=tied, **SIZES)
    save_tokenizer(source, folder, bos_token="<s>")
    (tmp_path / "text.txt").write_text(texts())
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    asked = recipe(folder, folder, text={"calibration": [str(tmp_path / "text.txt")]})
    found = train_hypernet(asked, tmp_path / "net", size=16, steps=(4, 30))
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert len(found.sides) == (1 if tied else 2)
    rungs = found.card["rungs"]
    assert [rung["name"] for rung in rungs][:2] == ["mean of pieces", "ridge composer"]
    assert rungs[-1]["steps"] == 30
    # It starts from the ridge composer and keeps the best it saw.
    assert rungs[-1]["bits_per_byte"] <= rungs[1]["bits_per_byte"] + 1e-5
    assert found.card["tokens"] > 0


def test_a_file_serves_the_source_and_its_variants_and_shared_rows_stay(pair, tmp_path):
    source, target, text = pair
    asked = recipe(source, source, text={"calibration": [str(text)]})
    train_hypernet(asked, tmp_path / "net", size=16, steps=(4, 8))
    settings = {"hypernetwork": {"network": str(tmp_path / "net")}}
    init = {"input": "hypernetwork", "output": "hypernetwork", "settings": settings}
    tuned = make_model(tmp_path / "tuned", n_rows=330, **SIZES)
    save_tokenizer(byte_level_bpe(330, ("<s>",), [texts(10)]), tuned, bos_token="<s>")
    weights = load_file(source / WEIGHTS)
    rng = np.random.default_rng(0)
    save_file(
        {n: w + 0.02 * rng.standard_normal(w.shape).astype(w.dtype) for n, w in weights.items()},
        tuned / WEIGHTS,
        metadata={"format": "pt"},
    )
    made = []
    for number, folder in enumerate((source, tuned)):
        out = tmp_path / f"out{number}"
        transplant(source=folder, tokenizer=target, output=out, init=init, calibrate=())
        before, after = Checkpoint.open(folder), Checkpoint.open(out)
        alignment = align(load_vocabulary(folder), load_vocabulary(target))
        shared = np.flatnonzero(alignment.source_ids >= 0)
        assert 0 < len(shared) < after.layout.n_rows
        for old, new in (
            (before.input_rows(), after.input_rows()),
            (before.output_rows(), after.output_rows()),
        ):
            assert np.array_equal(new[shared], old[alignment.source_ids[shared]])
        made.append(after.output_rows()[alignment.missing])
    assert not np.array_equal(made[0], made[1])
    transplant(source=source, tokenizer=source, output=tmp_path / "same", init=init, calibrate=())
    assert (tmp_path / "same" / WEIGHTS).read_bytes() == (source / WEIGHTS).read_bytes()


def test_trained_on_the_fly_it_says_what_it_took(pair, tmp_path):
    source, target, text = pair
    init = {
        "input": "hypernetwork",
        "output": "hypernetwork",
        "settings": {"hypernetwork": {"minutes": 0.02}},
    }
    asked = recipe(source, target, init=init, calibrate=[], text={"calibration": [str(text)]})
    session = prepare(asked)
    rows = patch_rows(session, ("hypernetwork", "hypernetwork"), InitSpec.model_validate(init))
    assert rows.gradient_steps > 0
    assert rows.forward_tokens > 0
    assert rows.used_text
    assert np.isfinite(rows.output.rows).all()


def test_the_command_trains_and_resumes_and_refuses(pair, tmp_path, capsys):
    source, _, text = pair
    net = tmp_path / "net"
    words = ["hypernet", "train", str(source), "--train-text", str(text), "--size", "16"]
    words += ["--steps", "4", "4", "-o", str(net)]
    with pytest.raises(SystemExit) as left:
        main([*words, "--json"])
    assert left.value.code == 0
    told = json.loads(capsys.readouterr().out)
    assert told["output"] == str(net)
    assert [rung["steps"] for rung in told["rungs"]] == [0, 0, 4, 4]
    assert Hypernet.load(net)[0].card["rungs"] == told["rungs"]
    for extra, message in (
        ([], "exists"),
        (["--force", "--size", "10"], "width 10"),
        (["-o", str(tmp_path / "no" / "net")], "cannot be written"),
    ):
        with pytest.raises(SystemExit) as left:
            main([*words, *extra])
        assert left.value.code == 2
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit) as left:
        main([*words, "--force"])
    assert left.value.code == 0
    assert "through the model" in capsys.readouterr().out


def test_a_path_that_cannot_be_written_costs_no_training(pair, tmp_path):
    source, _, _ = pair
    with pytest.raises(UsageError, match="cannot be written"):
        train_hypernet(recipe(source, source), tmp_path, steps=(1, 0))

"""A checkpoint is handed over when it is written or later, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import tokensurgeon
from tests.handover.conftest import MEAN
from tests.world import make_model, make_tokenizer
from tokensurgeon.cli.main import main
from tokensurgeon.errors import RecipeError, UnsupportedCheckpointError
from tokensurgeon.handover.facts import TRAINERS
from tokensurgeon.handover.trainer_files import NO_NEW_ROWS

HandedOver = Callable[[bool], Path]


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def copy(handed_over: HandedOver, tmp_path: Path) -> Path:
    """A patched checkpoint, handed over, to write into."""
    return Path(shutil.copytree(handed_over(False), tmp_path / "copy"))


@pytest.fixture(scope="module")
def never_handed_over(
    world: Path, checkpoints: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A patched checkpoint that was not handed over; tests must not write into it."""
    output = tmp_path_factory.mktemp("plain") / "patched"
    tokensurgeon.transplant(
        source=checkpoints("llama", False), tokenizer=world / "target", init=MEAN, output=output
    )
    return output


@pytest.fixture
def plain(never_handed_over: Path, tmp_path: Path) -> Path:
    """A patched checkpoint that was not handed over, to write into."""
    return Path(shutil.copytree(never_handed_over, tmp_path / "plain"))


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_verify_accepts_what_was_handed_over(handed_over: HandedOver, tied: bool) -> None:
    done = run("verify", handed_over(tied))
    assert done.exit_code == 0, done.output
    assert "all as the manifest says\n" in done.stdout


def test_handing_over_later_gives_the_same_files(plain: Path, handed_over: HandedOver) -> None:
    before = digests(plain)
    done = run("hand-over", plain, "--to", ",".join(TRAINERS))
    assert done.exit_code == 0, done.output
    assert "new rows of model.embed_tokens.weight and lm_head.weight" in done.stdout
    after = digests(plain)
    assert {n: d for n, d in after.items() if n in before and n != "manifest.json"} == {
        n: d for n, d in before.items() if n != "manifest.json"
    }
    at_once = digests(handed_over(False))
    assert {n: d for n, d in after.items() if n.startswith("continue/")} == {
        n: d for n, d in at_once.items() if n.startswith("continue/")
    }
    lists = [json.loads((f / "manifest.json").read_text()) for f in (plain, handed_over(False))]
    own = ("report.json", "report.html", "README.md")  # they hold the recipe, or where it is
    first, second = ({n: s for n, s in m["files"].items() if n not in own} for m in lists)
    assert list(first.items()) == list(second.items())
    assert run("verify", plain).exit_code == 0


def test_json_says_what_was_written(plain: Path) -> None:
    done = run("hand-over", plain, "--to", "trl,trl", "--json")
    told = json.loads(done.stdout)
    assert sorted(told["files"]) == sorted(p.name for p in (plain / "continue").iterdir())
    assert told["new_rows"] > 0
    assert told["trained_first"] == ["model.embed_tokens.weight", "lm_head.weight"]


def test_another_hand_over_takes_the_place_of_the_first_with_force(copy: Path) -> None:
    before = digests(copy)
    refused = run("hand-over", copy, "--to", "peft")
    assert refused.exit_code == 2
    assert "exists already: add --force" in refused.stderr
    assert digests(copy) == before
    done = run("hand-over", copy, "--to", "peft", "--force")
    assert done.exit_code == 0, done.output
    assert not (copy / "continue" / "train_trl.py").exists()
    assert run("verify", copy).exit_code == 0


@pytest.mark.parametrize("name", ["mine.txt", "train_peft.py", "checkpoint/optimizer.pt"])
def test_force_replaces_nothing_of_somebody_else(copy: Path, name: str) -> None:
    mine = copy / "continue" / name
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("my own work")
    before = digests(copy)
    done = run("hand-over", copy, "--to", "trl", "--force")
    assert done.exit_code == 2
    assert "was not written by a hand-over, or was changed since: move it away" in done.stderr
    assert digests(copy) == before


def test_what_a_killed_run_left_is_written_anew(copy: Path, plain: Path) -> None:
    shutil.copytree(copy / "continue", plain / "continue")  # written, and not listed yet
    assert run("verify", plain).exit_code == 1
    assert run("hand-over", plain, "--to", ",".join(TRAINERS), "--force").exit_code == 0
    assert run("verify", plain).exit_code == 0


def test_a_folder_of_another_program_is_refused(checkpoints: Callable[..., Path]) -> None:
    source = checkpoints("llama", False)
    done = run("hand-over", source, "--to", "peft")
    assert done.exit_code == 1
    assert "has no manifest.json: it was written by another program" in done.stderr
    assert not (source / "continue").exists()


@pytest.mark.parametrize(
    ("ids", "why"), [([1, 2], "has changed since it was written"), (None, "lists no new_token_ids")]
)
def test_a_list_of_new_rows_that_is_not_the_surgerys_is_refused(
    plain: Path, ids: list[int] | None, why: str
) -> None:
    if ids is None:
        manifest = json.loads((plain / "manifest.json").read_text())
        del manifest["files"]["new_token_ids.json"]
        (plain / "manifest.json").write_text(json.dumps(manifest))
    else:
        (plain / "new_token_ids.json").write_text(json.dumps({"new_token_ids": ids}))
    done = run("hand-over", plain, "--to", "peft")
    assert done.exit_code == 1
    assert why in done.stderr
    assert not (plain / "continue").exists()


def test_an_unknown_trainer_is_named_with_the_nearest(copy: Path) -> None:
    done = run("hand-over", copy, "--to", "peft,axolot", "--force")
    assert done.exit_code == 2
    assert "no trainer 'axolot'; did you mean 'axolotl'?" in done.stderr
    done = run("transplant", "model", "--tokenizer", "t", "-o", "out", "--hand-over", "pett")
    assert done.exit_code == 2
    assert "hand_over" in done.stderr
    with pytest.raises(RecipeError, match="hand_over"):
        tokensurgeon.Recipe.parse({"source": "a", "tokenizer": "b", "hand_over": ["x"]})


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("BertConfig", {}, "an encoder"),
        ("T5Config", {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_heads": 2, "num_layers": 2},
         "an encoder–decoder"),
    ],
)  # fmt: skip
def test_other_kinds_of_models_are_refused_before_anything_is_computed(
    name: str, settings: dict, words: str, world: Path, tmp_path: Path
) -> None:
    import transformers

    config = getattr(transformers, name)(
        vocab_size=330, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=24, **settings,
    )  # fmt: skip
    cls = {"BertConfig": "BertForMaskedLM", "T5Config": "T5ForConditionalGeneration"}[name]
    model = getattr(transformers, cls)(config)
    source = tmp_path / "source"
    model.save_pretrained(source)
    for path in (world / "source").iterdir():
        shutil.copy(path, source)
    with pytest.raises(UnsupportedCheckpointError, match=f"this is {words}: train it"):
        tokensurgeon.transplant(
            source=source, tokenizer=world / "target", init=MEAN, output=tmp_path / "out",
            hand_over=["trl"],
        )  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_a_surgery_without_new_rows_says_that_stage_1_is_left_out(tmp_path: Path) -> None:
    source = make_model(make_tokenizer(tmp_path / "source", 320), n_rows=320, seed=3)
    result = tokensurgeon.transplant(
        source=source, tokenizer=source, init=MEAN, output=tmp_path / "out", hand_over=["peft"]
    )
    assert NO_NEW_ROWS in result.report.warnings
    assert not (tmp_path / "out/continue/rows.json").exists()
    done = run("hand-over", tmp_path / "out", "--to", "peft", "--force")
    assert NO_NEW_ROWS in done.stdout
    assert run("verify", tmp_path / "out").exit_code == 0


def test_a_surgery_on_what_was_handed_over_leaves_its_files_out(
    handed_over: HandedOver, world: Path, tmp_path: Path
) -> None:
    result = tokensurgeon.transplant(
        source=handed_over(False), tokenizer=world / "source", init=MEAN, output=tmp_path / "out"
    )
    assert not (tmp_path / "out" / "continue").exists()
    assert not [line for line in result.report.warnings if "continue" in line]


def test_a_patched_fine_tune_can_be_handed_over(
    handed_over: HandedOver, checkpoints: Callable[..., Path], tmp_path: Path
) -> None:
    source = checkpoints("llama", False)
    patch = tmp_path / "a.patch.safetensors"
    assert (
        run("patch", "export", handed_over(False), "--source", source, "-o", patch).exit_code == 0
    )
    assert run("patch", "apply", patch, source, "-o", tmp_path / "tuned").exit_code == 0
    done = run("hand-over", tmp_path / "tuned", "--to", "axolotl")
    assert done.exit_code == 0, done.output
    assert run("verify", tmp_path / "tuned").exit_code == 0

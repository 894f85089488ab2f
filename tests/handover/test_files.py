"""What is written for trainers: it can be read, names the new rows exactly, and needs only them."""

from __future__ import annotations

import ast
import importlib.util
import json
import shutil
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tokensurgeon.checkpoint import Checkpoint
from tokensurgeon.handover.facts import TRAINERS, Facts, check_trainable
from tokensurgeon.handover.trainer_files import hand_over_files, ranges
from tokensurgeon.handover.two_stages import LENGTH, STEPS, stages

EITHER = pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
LIBRARIES = {"torch", "transformers", "peft", "trl", "datasets", "common"}
HandedOver = Callable[[bool], Path]


def new_ids(folder: Path) -> list[int]:
    return json.loads((folder / "new_token_ids.json").read_text("utf-8"))["new_token_ids"]


def read(folder: Path, name: str) -> Any:
    text = (folder / "continue" / name).read_text("utf-8")
    return json.loads(text) if name.endswith(".json") else yaml.safe_load(text)


@EITHER
def test_every_file_can_be_read(handed_over: HandedOver, tied: bool) -> None:
    names = sorted(path.name for path in (handed_over(tied) / "continue").iterdir())
    assert len(names) == 13
    for name in names:
        text = (handed_over(tied) / "continue" / name).read_text("utf-8")
        if name.endswith(".py"):
            ast.parse(text)
        elif name.endswith(".json"):
            json.loads(text)
        elif name.endswith(".yaml"):
            assert isinstance(yaml.safe_load(text), dict)
        assert "{{" not in text
        assert "{%" not in text


@EITHER
def test_the_rows_named_are_the_new_ones_exactly(handed_over: HandedOver, tied: bool) -> None:
    folder = handed_over(tied)
    ids = new_ids(folder)
    assert ids
    modules = ["embed_tokens"] if tied else ["embed_tokens", "lm_head"]
    rows = read(folder, "rows.json")["trainable_token_indices"]
    assert rows == dict.fromkeys(modules, ids)

    found: dict[str, list[int]] = {}
    for line in read(folder, "axolotl_stage1.yaml")["unfrozen_parameters"]:
        name, _, span = line.removeprefix("^").removesuffix("]").partition("$[")
        start, _, end = span.partition(":")
        found.setdefault(name, []).extend(range(int(start), int(end)))
    parameters = {"embed_tokens": "model.embed_tokens.weight", "lm_head": "lm_head.weight"}
    assert found == {parameters[module]: ids for module in modules}


@EITHER
def test_the_parameters_named_are_those_of_the_loaded_model(
    handed_over: HandedOver, tied: bool
) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(handed_over(tied))
    modules = {name.split(".")[-1]: module for name, module in model.named_modules()}
    rows = read(handed_over(tied), "rows.json")["trainable_token_indices"]
    weights = {id(modules[name].weight) for name in rows}
    sides = model.get_input_embeddings(), model.get_output_embeddings()
    assert weights == {id(side.weight) for side in sides}


@given(st.sets(st.integers(0, 60)))
def test_ranges_hold_each_id_once_and_never_touch(ids: set[int]) -> None:
    spans = ranges(sorted(ids))
    assert [i for start, end in spans for i in range(start, end)] == sorted(ids)
    assert all(end < start for (_, end), (start, _) in pairwise(spans))


def test_the_same_facts_give_the_same_bytes() -> None:
    facts = Facts((3, 4, 9), ("model.embed_tokens.weight", "lm_head.weight"), "bfloat16", 2048)
    assert hand_over_files(facts, TRAINERS) == hand_over_files(facts, TRAINERS)
    backwards = hand_over_files(facts, TRAINERS[::-1])
    assert {n for n in backwards if backwards[n] != hand_over_files(facts, TRAINERS)[n]} == {
        "continue/README.md"  # it names them in the order asked for
    }


@pytest.mark.parametrize("name", TRAINERS)
def test_one_trainer_alone_has_all_that_it_reads(name: str, tmp_path: Path) -> None:
    facts = Facts((3, 4), ("transformer.wte.weight",), "float32", None)
    files = hand_over_files(facts, [name])
    for other in TRAINERS:
        assert any(other in file for file in files) == (other == name)
    for file, text in files.items():
        if file.endswith(".py"):
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.ImportFrom) and node.module == "common":
                    assert "continue/common.py" in files
    readme = str(files["continue/README.md"])
    named = [word for word in readme.split() if word.endswith((".py", ".yaml"))]
    assert named
    assert {f"continue/{word}" for word in named} <= set(files)


def test_without_new_rows_there_is_no_first_stage() -> None:
    files = hand_over_files(Facts((), ("a.weight",), "float32", None), TRAINERS)
    assert not [name for name in files if "stage1" in name or "rows" in name or "merge" in name]
    data = json.loads(files["continue/stages.json"])
    assert list(data) == ["stage 2"]
    assert data["stage 2"]["steps"] == sum(STEPS)
    axolotl = yaml.safe_load(files["continue/axolotl_stage2.yaml"])
    llamafactory = yaml.safe_load(files["continue/llamafactory_stage2.yaml"])
    assert axolotl["base_model"] == llamafactory["model_name_or_path"] == ".."
    assert "--stage 1" not in str(files["continue/README.md"])


def test_no_trainer_is_no_file() -> None:
    assert hand_over_files(Facts((1,), ("a.weight",), "float32", None), ()) == {}


def test_sequences_are_no_longer_than_the_model_takes() -> None:
    assert [stage.length for stage in stages(True, 128)] == [128, 128]
    assert [stage.length for stage in stages(True, None)] == [LENGTH, LENGTH]


@EITHER
def test_all_trainers_are_told_the_same_numbers(handed_over: HandedOver, tied: bool) -> None:
    folder = handed_over(tied)
    told = read(folder, "stages.json")
    for number, axolotl in enumerate(
        (read(folder, "axolotl_stage1.yaml"), read(folder, "axolotl_stage2.yaml")), start=1
    ):
        stage = told[f"stage {number}"]
        llamafactory = read(folder, f"llamafactory_stage{number}.yaml")
        batch = axolotl["micro_batch_size"] * axolotl["gradient_accumulation_steps"]
        assert (axolotl["learning_rate"], axolotl["max_steps"]) == (stage["rate"], stage["steps"])
        assert (axolotl["sequence_len"], batch) == (stage["length"], stage["batch"])
        assert axolotl["weight_decay"] == llamafactory["weight_decay"] == 0
        same = {"learning_rate": "learning_rate", "max_steps": "max_steps",
                "warmup_steps": "warmup_steps", "cutoff_len": "sequence_len"}  # fmt: skip
        assert {k: llamafactory[k] for k in same} == {k: axolotl[v] for k, v in same.items()}


@EITHER
def test_a_moved_folder_needs_the_trainers_alone(
    handed_over: HandedOver, tied: bool, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(handed_over(tied), tmp_path / "elsewhere" / "moved"))
    for path in (moved / "continue").iterdir():
        text = path.read_text("utf-8")
        assert str(handed_over(tied)) not in text
        if path.suffix == ".py":
            assert imported(text) <= LIBRARIES | set(sys.stdlib_module_names)
    common = load_common(moved)
    assert moved / "continue" == common.HERE
    model, _, stored = common.load(str(moved))
    common.save(model, stored, str(moved), str(tmp_path / "again"))
    same = Checkpoint.open(tmp_path / "again")
    assert (same.output_rows() == Checkpoint.open(moved).output_rows()).all()
    for name in ("tokenizer.json", "new_token_ids.json"):
        assert (tmp_path / "again" / name).read_bytes() == (moved / name).read_bytes()


def imported(text: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module).split(".")[0])
    return found


def load_common(folder: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("common", folder / "continue" / "common.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@EITHER
def test_under_the_mask_only_the_new_rows_change(handed_over: HandedOver, tied: bool) -> None:
    folder = handed_over(tied)
    common = load_common(folder)
    model, _, _ = common.load(str(folder))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    common.train_new_rows_alone(model)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert len(trained) == (1 if tied else 2)
    steps = torch.optim.AdamW(trained, lr=1e-2, weight_decay=0.0)
    ids = torch.arange(model.config.vocab_size)[None, :64]
    for _ in range(3):
        model(input_ids=ids, labels=ids).loss.backward()
        steps.step()
        steps.zero_grad()
    new = torch.zeros(model.config.vocab_size, dtype=torch.bool)
    new[new_ids(folder)] = True
    for name, value in model.state_dict().items():
        if name.endswith(("embed_tokens.weight", "lm_head.weight")):
            changed = (value != before[name]).any(dim=1)
            assert changed.any()
            assert not (changed & ~new).any()
        else:
            assert torch.equal(value, before[name])


def test_the_text_is_cut_into_sequences_that_give_it_back(
    handed_over: HandedOver, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = load_common(handed_over(False))
    _, tokenizer, _ = common.load(str(handed_over(False)))
    lines, plain = tmp_path / "lines.jsonl", tmp_path / "plain.txt"
    lines.write_text('{"text": "rows of a table"}\n\n"the index"\n', "utf-8")
    plain.write_text("every row is returned", "utf-8")
    found = common.sequences([str(lines), str(plain)], tokenizer, 4)
    assert {len(ids) for ids in found} == {4}
    joined = tokenizer.decode([i for ids in found for i in ids])
    whole = "".join(
        tokenizer.decode(tokenizer(text)["input_ids"]) + tokenizer.eos_token
        for text in ("rows of a table", "the index", "every row is returned")
    )
    assert whole.startswith(joined)
    with pytest.raises(SystemExit, match=r"less than one sequence of 1000; give more"):
        common.sequences([str(plain)], tokenizer, 1000)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--stage", "1", "--batch", "8", "--at-once", "3"], "is no multiple of --at-once 3"),
        (["--stage", "1", "--output", "FULL"], "is not empty"),
        (["--stage", "3"], "invalid choice"),
    ],
)
def test_a_script_refuses_what_it_cannot_do(
    words: list[str], why: str, handed_over: HandedOver, monkeypatch, capsys, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    words = [str(tmp_path) if word == "FULL" else word for word in words]
    output = [] if "--output" in words else ["--output", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["train", "--text", "a.txt", *output, *words])
    with pytest.raises(SystemExit):
        load_common(handed_over(False)).arguments("peft")
    assert why in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_bias_of_output_rows_is_refused_by_those_that_would_leave_it_out(
    checkpoints: Callable[..., Path],
) -> None:
    biased = Checkpoint.open(checkpoints("phi", False))
    check_trainable(biased, ["trl", "axolotl"])
    for name in ("peft", "llamafactory"):
        with pytest.raises(Exception, match=f"so {name} would train another model .*lm_head.bias"):
            check_trainable(biased, [name])

"""A patch file is believed in nothing: each number is checked, and all of it has a checksum."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import tokensurgeon
from tests.test_patches import WEIGHTS, tune
from tests.world import model_maker
from tokensurgeon.checkpoint import Checkpoint
from tokensurgeon.cli.main import main
from tokensurgeon.errors import CheckpointError
from tokensurgeon.patches import apply_patch, export_patch
from tokensurgeon.patches.patch_file import checksum, read_patch

N_SOURCE, WIDTH = 330, 16
Arrays = dict[str, np.ndarray]
Facts = dict[str, Any]


@pytest.fixture(scope="module")
def source(world, tmp_path_factory) -> Path:
    """A small untied model; `make` gives others of its shape."""
    return model_maker(
        tmp_path_factory.mktemp("patch"),
        tokenizer=world / "source",
        n_rows=N_SOURCE,
        width=WIDTH,
        noise=0.15,
        eos_token_id=0,
    )()


@pytest.fixture(scope="module")
def patch(source, world, tmp_path_factory) -> Path:
    """A patch with sums, remainders and copies."""
    folder = tmp_path_factory.mktemp("made")
    init = {"input": "hidden-residual", "output": "subword-mean"}
    tokensurgeon.transplant(
        source=source, tokenizer=world / "target", output=folder / "out", init=init
    )
    return export_patch(folder / "out", folder / "a.safetensors").path


def taken_apart(path: Path) -> tuple[Facts, Arrays]:
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        return json.loads(file.metadata()["patch"]), {
            name: file.get_tensor(name).copy()
            for name in file.keys()  # noqa: SIM118
        }


def put_together(path: Path, facts: Facts, arrays: Arrays) -> Path:
    """Write a patch whose checksum is right, as an attacker would."""
    from safetensors.numpy import save_file

    if "sha256" in facts:
        facts = {**facts, "sha256": ""}
        facts["sha256"] = checksum(facts, arrays)
    save_file(arrays, path, {"patch": json.dumps(facts)})
    return path


def as_older(facts: Facts) -> Facts:
    """Return the facts as releases before the checksum wrote them."""
    new = ("sha256", "sketch")
    rest = {key: value for key, value in facts.items() if key not in new}
    return {**rest, "format": "tokensurgeon patch 1"}


def one(name: str, at: int, value: float) -> Callable[[Facts, Arrays], None]:
    def change(facts: Facts, arrays: Arrays) -> None:
        arrays[name][at] = value

    return change


def fact(key: str, value: Any) -> Callable[[Facts, Arrays], None]:
    def change(facts: Facts, arrays: Arrays) -> None:
        facts[key] = value

    return change


def array(name: str, make: Callable[[np.ndarray], np.ndarray]) -> Callable[[Facts, Arrays], None]:
    def change(facts: Facts, arrays: Arrays) -> None:
        arrays[name] = make(arrays.get(name, np.zeros(3, np.float32)))

    return change


def drop(name: str) -> Callable[[Facts, Arrays], None]:
    return lambda facts, arrays: arrays.__delitem__(name)


def text(content: str) -> Callable[[np.ndarray], np.ndarray]:
    return lambda old: np.frombuffer(content.encode(), np.uint8)


def remainder_of_a_copy(facts: Facts, arrays: Arrays) -> None:
    arrays["input.remainder_ids"][0] = int(np.flatnonzero(arrays["input.copied"] >= 0)[0])


TAMPERED = {
    "an index past the source": one("input.weights.indices", 0, 600),
    "an index far past it": one("output.weights.indices", -1, 2**31 - 1),
    "a negative index": one("input.weights.indices", 5, -1),
    "pointers that go back": one("input.weights.indptr", 3, 10**6),
    "pointers below zero": one("input.weights.indptr", 1, -5),
    "pointers that start late": one("input.weights.indptr", 0, 1),
    "pointers that end early": one("input.weights.indptr", -1, 2),
    "too few pointers": array("input.weights.indptr", lambda a: a[:-1]),
    "fewer weights than indices": array("input.weights.data", lambda a: a[:-1]),
    "a weight that is NaN": one("input.weights.data", 0, np.nan),
    "a remainder that is infinite": array("input.remainder", lambda a: a + np.inf),
    "a remainder of another width": array("input.remainder", lambda a: a[:, :-1].copy()),
    "a remainder twice": array("input.remainder_ids", lambda a: np.concatenate([a[:1], a[:-1]])),
    "a remainder of a copied row": remainder_of_a_copy,
    "a remainder of no row": one("input.remainder_ids", -1, 10**9),
    "a copy of no row": one("input.copied", 3, N_SOURCE),
    "a copy of row -2": one("output.copied", 3, -2),
    "sides of two lengths": array("output.copied", lambda a: a[:-1]),
    "no rows": array("input.copied", lambda a: a[:0]),
    "another dtype": array("input.copied", lambda a: a.astype(np.int32)),
    "another shape": array("input.copied", lambda a: a[:, None]),
    "a scalar": array("input.copied", lambda a: np.array(a[0])),
    "an unknown tensor": array("output.extra", lambda a: a),
    "an unknown file": array("file:../x.py", lambda a: a.astype(np.uint8)),
    "half of a change of the body": array("body:A:x", lambda a: a[None]),
    "a bias of another length": array("bias.remainder", lambda a: a),
    "no weights": drop("output.weights.data"),
    "no tokenizer": drop("file:tokenizer.json"),
    "no records": drop("file:surgery/tokens.json"),
    "records of other rows": array("file:surgery/tokens.json", text('{"input": {"copied": [1]}}')),
    "records that are no JSON": array("file:new_token_ids.json", text("[")),
    "a record of an id that is not there": array(
        "file:new_token_ids.json", text('{"new_token_ids": [100000]}')
    ),
    "a deep tokenizer_config": array("file:tokenizer_config.json", text("[" * 50_000)),
    "an unknown fact": fact("code", "x.py"),
    "no fact of the width": lambda facts, arrays: facts.__delitem__("width"),
    "rows that are no number": fact("source_rows", True),
    "more rows than any source": fact("source_rows", 10**30),
    "fewer rows than are copied": fact("source_rows", 3),
    "one matrix of two": fact("tied", True),
    "an id mapped past the target": fact("id_map", {"0": 10**6}),
    "an id mapped from no source row": fact("id_map", {"330": 0}),
    "an id that is no number": fact("id_map", {"a": 0}),
    "an id with more digits than Python reads": fact("id_map", {"1" * 5000: 0}),
    "a template from a file": fact("chat_template", "/etc/passwd"),
    "a sketch that is none": fact("sketch", {"rows": {"input": "zz"}, "body": {}}),
    "no sketch": fact("sketch", None),
}


OF_NEW_ONES = ("a sketch that is none", "no sketch")


@pytest.mark.parametrize(
    ("how", "older"),
    [(how, old) for how in TAMPERED for old in (False, True) if not (old and how in OF_NEW_ONES)],
)
def test_what_was_tampered_with_is_refused_though_its_checksum_is_right(
    how, older, patch, tmp_path
):
    facts, arrays = taken_apart(patch)
    assert len(arrays["input.remainder_ids"]) > 1
    TAMPERED[how](facts, arrays)
    if older:
        facts = as_older(facts)
    path = put_together(tmp_path / "b.safetensors", facts, arrays)
    with pytest.raises(CheckpointError, match="is a damaged patch: ") as caught:
        read_patch(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(("export it anew", "'patch export'"))


def test_any_changed_byte_is_noticed(patch, tmp_path):
    data, rng = patch.read_bytes(), random.Random(0)
    for _ in range(60):
        at = rng.randrange(8, len(data))
        changed = bytearray(data)
        changed[at] ^= 1 << rng.randrange(8)
        (tmp_path / "b.safetensors").write_bytes(changed)
        with pytest.raises(CheckpointError, match="patch"):
            read_patch(tmp_path / "b.safetensors")


def test_a_bad_index_ends_the_command_in_one_line_and_writes_nothing(patch, source, tmp_path):
    facts, arrays = taken_apart(patch)
    arrays["input.weights.indices"][0] = 600
    path = put_together(tmp_path / "b.safetensors", as_older(facts), arrays)
    done = CliRunner().invoke(
        main, ["patch", "apply", str(path), str(source), "-o", str(tmp_path / "x")]
    )
    assert done.exit_code == 1
    assert "sums over row 600 of a source that has 330" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "x").exists()


def test_a_newer_format_says_what_to_do(patch, tmp_path):
    facts, arrays = taken_apart(patch)
    path = put_together(
        tmp_path / "b.safetensors", {**facts, "format": "tokensurgeon patch 4"}, arrays
    )
    with pytest.raises(CheckpointError, match="this release reads 1 to 3: update tokensurgeon"):
        read_patch(path)


def test_a_patch_of_an_older_release_is_applied_and_the_user_told(patch, source, tmp_path):
    facts, arrays = taken_apart(patch)
    old = put_together(tmp_path / "old.safetensors", as_older(facts), arrays)
    arguments = ["patch", "apply", str(old), str(source), "-o", str(tmp_path / "old")]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert "has the older format 1, without a checksum" in done.stderr
    new = apply_patch(patch, source, tmp_path / "new")
    assert (tmp_path / "old" / WEIGHTS).read_bytes() == (new / WEIGHTS).read_bytes()


def test_another_model_with_the_same_tokenizer_is_refused_unless_asked(
    patch, source, world, tmp_path
):
    other = model_maker(
        tmp_path / "others",
        tokenizer=world / "source",
        n_rows=N_SOURCE,
        width=WIDTH,
        noise=0.15,
        eos_token_id=0,
        seed=9,
    )()
    arguments = ["patch", "apply", str(patch), str(other), "-o", str(tmp_path / "x")]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 1
    assert "is no fine-tune of the source of" in done.stderr
    assert not (tmp_path / "x").exists()
    done = CliRunner().invoke(main, [*arguments, "--allow-other-model"])
    assert done.exit_code == 0, done.output
    assert "warning: " in done.stderr
    tuned = tune(source, tmp_path / "tuned")
    told: list[str] = []
    apply_patch(patch, tuned, tmp_path / "y", warnings=told)
    assert told == []
    assert Checkpoint.open(tmp_path / "y").layout.n_rows == read_patch(patch).sides[0].copied.size


@pytest.mark.parametrize("name", ["zero", "fifo", "folder", "none"])
def test_what_is_no_file_is_said_at_once(name, tmp_path):
    import os

    paths = {"zero": Path("/dev/zero"), "fifo": tmp_path / "fifo", "folder": tmp_path}
    os.mkfifo(tmp_path / "fifo")
    said = "is a folder; give a patch file" if name == "folder" else "there is no patch file"
    with pytest.raises(CheckpointError, match=said):
        read_patch(paths.get(name, tmp_path / "none"))


def test_a_tokenizer_that_cannot_be_read_is_blamed_on_the_patch(patch, source, tmp_path):
    facts, arrays = taken_apart(patch)
    name = next(one for one in arrays if one.endswith("tokenizer.json"))
    document = json.loads(arrays[name].tobytes())
    document["added_tokens"] = 5
    arrays[name] = np.frombuffer(json.dumps(document).encode(), np.uint8)
    path = put_together(tmp_path / "b.safetensors", facts, arrays)
    with pytest.raises(CheckpointError, match="added tokens that are no list") as refused:
        apply_patch(path, source, tmp_path / "x")
    assert str(refused.value).startswith(f"{path} holds a tokenizer that cannot be read (tokenizer")
    assert str(refused.value).endswith("export it anew")

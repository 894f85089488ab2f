"""The contract that transformers' internals must keep for us, and what we do without them."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.world import CASES
from tokensurgeon.checkpoint import Checkpoint
from tokensurgeon.checkpoint import transformers_internals as internals
from tokensurgeon.checkpoint.files import open_tensors
from tokensurgeon.errors import UnsupportedCheckpointError


@pytest.mark.parametrize("key", ["num_hidden_layers", "num_local_experts"])
def test_more_layers_than_any_model_has_are_refused_at_once(
    model_of: Callable[..., Path], tmp_path: Path, key: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model_of("qwen2"), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "nested": {key: 2**40}}))
    with pytest.raises(UnsupportedCheckpointError, match=f"nested.{key} {2**40}"):
        Checkpoint.open(folder)
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 2**31}))
    with pytest.raises(UnsupportedCheckpointError, match="num_hidden_layers"):
        Checkpoint.open(folder)


@pytest.mark.parametrize(("family", "tied"), CASES)
def test_every_file_key_finds_its_parameter_and_back(
    model_of: Callable[..., Path], family: str, tied: bool
) -> None:
    folder = model_of(family, tied)
    model = internals.skeleton(internals.load_config(folder))
    assert all(parameter.device.type == "meta" for parameter in model.parameters())
    keys = list(open_tensors(folder).where)
    names = internals.module_names(model, keys)
    assert set(names.values()) <= set(model.state_dict())
    assert len(set(names.values())) == len(keys)
    for key, name in names.items():
        assert internals.file_key(model, name) == key


def test_a_checkpoint_of_the_body_alone_lacks_the_prefix(model_of: Callable[..., Path]) -> None:
    model = internals.skeleton(internals.load_config(model_of("gpt2")))
    assert internals.module_names(model, ["wte.weight"]) == {"wte.weight": "transformer.wte.weight"}


def test_without_the_internals_names_are_matched_by_their_prefix(
    model_of: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = internals.skeleton(internals.load_config(model_of("gpt2")))
    monkeypatch.setitem(sys.modules, "transformers.conversion_mapping", None)
    keys = ["wte.weight", "transformer.wte.weight", "lm_head.weight", "other.weight"]
    assert list(internals.module_names(model, keys).values()) == [
        "transformer.wte.weight",
        "transformer.wte.weight",
        "lm_head.weight",
        "other.weight",
    ]
    assert internals.file_key(model, "lm_head.weight") == "lm_head.weight"

"""What stands beside the weights of a source is carried over, changed, or named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.world import N_ROWS, permuted_plan, plan_of
from tokensurgeon.checkpoint import Checkpoint, PatchPlan, WriteResult, write_checkpoint
from tokensurgeon.errors import (
    CheckpointError,
    UnsafeCheckpointError,
    UnsupportedCheckpointError,
)
from tokensurgeon.vocabulary import Vocabulary, load_vocabulary

ST = "sentence_transformers.models"
POOLED = [
    {"idx": 0, "name": "0", "path": "", "type": f"{ST}.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{ST}.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Dense", "type": f"{ST}.Dense"},
    {"idx": 3, "name": "3", "path": "3_Normalize", "type": f"{ST}.Normalize"},
]


def put(folder: Path, files: dict[str, Any]) -> Path:
    """Write files, JSON where they are not text."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(data if isinstance(data, str) else json.dumps(data))
    return folder


@pytest.fixture
def folder(model_of: Callable[..., Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_of("llama"), tmp_path / "model"))


@pytest.fixture
def write(
    folder: Path, tmp_path: Path, permuted_vocabulary: Vocabulary, permutation: np.ndarray
) -> Callable[..., WriteResult]:
    """Write the folder's model with other ids, once files are put beside it."""

    def run(files: dict[str, Any] | None = None, **changes: Any) -> WriteResult:
        put(folder, files or {})
        plan = permuted_plan(folder, permuted_vocabulary, permutation)
        plan = PatchPlan(**{**vars(plan), **changes})
        return write_checkpoint(plan, tmp_path / "out")

    return run


def names_in(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_the_modules_of_a_sentence_model_are_carried_over(
    folder: Path, tmp_path: Path, write: Callable[..., WriteResult]
) -> None:
    files = {
        "modules.json": POOLED,
        "config_sentence_transformers.json": {"prompts": {"query": "query: "}},
        "sentence_bert_config.json": {"max_seq_length": 64, "do_lower_case": False},
        "1_Pooling/config.json": {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True},
        "2_Dense/config.json": {"in_features": 16, "out_features": 4},
    }
    put(folder, files)
    save_file({"linear.weight": torch.ones(4, 16)}, folder / "2_Dense/model.safetensors")
    (folder / "2_Dense/pytorch_model.bin").write_bytes(b"pickle")
    result = write()
    for name in (*files, "2_Dense/model.safetensors"):
        assert (tmp_path / "out" / name).read_bytes() == (folder / name).read_bytes(), name
        assert name in result.manifest["files"]
    assert not (tmp_path / "out/2_Dense/pytorch_model.bin").exists()
    assert result.warnings == (
        "left behind in the source's folder: 2_Dense/pytorch_model.bin; copy by hand what still "
        "holds",
    )


def test_ids_in_modules_and_processors_move(
    tmp_path: Path, write: Callable[..., WriteResult], permutation: np.ndarray
) -> None:
    kind = "sentence_transformers.cross_encoder.modules.LogitScore"
    modules = [POOLED[0], {"idx": 1, "name": "1", "path": "1_LogitScore/", "type": kind}]
    score = {"true_token_id": 40, "false_token_id": 41}
    result = write(
        {
            "modules.json": modules,
            "1_LogitScore/config.json": score,
            "processor_config.json": {"fill_token_id": 42, "image_seq_length": 43},
            "preprocessor_config.json": {"size": 44},
        }
    )
    out = tmp_path / "out"
    assert json.loads((out / "1_LogitScore/config.json").read_text()) == {
        key: int(permutation[token]) for key, token in score.items()
    }
    assert json.loads((out / "processor_config.json").read_text()) == {
        "fill_token_id": int(permutation[42]), "image_seq_length": 43,
    }  # fmt: skip
    assert (out / "preprocessor_config.json").read_text() == '{"size": 44}'
    assert result.ids["1_LogitScore/config.json:true_token_id"] == [40, int(permutation[40])]


def test_vectors_with_a_number_for_every_token_get_their_new_size(
    folder: Path, tmp_path: Path
) -> None:
    module = {"idx": 1, "name": "1", "path": "1_SpladePooling",
              "type": "sentence_transformers.sparse_encoder.models.SpladePooling"}  # fmt: skip
    put(folder, {
        "modules.json": [POOLED[0], module],
        "1_SpladePooling/config.json": {"word_embedding_dimension": N_ROWS},
    })  # fmt: skip
    ids = np.where(np.arange(304) < N_ROWS, np.arange(304), -1)
    write_checkpoint(plan_of(Checkpoint.open(folder), load_vocabulary(folder), ids), tmp_path / "o")
    stored = json.loads((tmp_path / "o/1_SpladePooling/config.json").read_text())
    assert stored == {"word_embedding_dimension": 304}


def test_everything_else_is_named(
    folder: Path, tmp_path: Path, write: Callable[..., WriteResult]
) -> None:
    before = names_in(folder)
    carried = {
        "LICENSE": "a",
        "license.txt": "b",
        "NOTICE.md": "c",
        "USE_POLICY.md": "d",
        "normalizer.json": {"colour": "color"},
        "video_preprocessor_config.json": {},
    }
    behind = ("model.gguf", "onnx/model.onnx", "onnx/model.onnx_data", "openvino/a.bin",
              "original/params.json", "modeling_x.py", "training_args.bin", "pytorch_model.bin",
              "eval/results.txt", "README.md")  # fmt: skip
    unsaid = (".gitattributes", ".cache/x", "vocab.json", "merges.txt", "tokenizer.model",
              "report.json")  # fmt: skip
    result = write({**carried, **dict.fromkeys((*behind, *unsaid), "{}")})
    told = next(line for line in result.warnings if line.startswith("left behind"))
    assert told == (
        "left behind in the source's folder: README.md, eval/ (1 file), model.gguf, "
        "modeling_x.py, onnx/ (2 files), openvino/ (1 file), original/ (1 file), "
        "pytorch_model.bin, training_args.bin; copies of the model in other formats have the old "
        "vocabulary: export them anew"
    )
    assert names_in(tmp_path / "out") == {*before, *carried, "manifest.json"}


def test_a_card_of_ours_replaces_the_sources(
    folder: Path, tmp_path: Path, permuted_vocabulary: Vocabulary, permutation: np.ndarray
) -> None:
    put(folder, {"README.md": "of the source", "notes.txt": ""})
    plan = permuted_plan(folder, permuted_vocabulary, permutation)
    told: list[str] = []

    def extra(ids: dict[str, Any], warnings: Any) -> dict[str, str]:
        told.extend(warnings)
        return {"README.md": "ours"}

    write_checkpoint(plan, tmp_path / "out", extra_files=extra)
    assert (tmp_path / "out/README.md").read_text() == "ours"
    assert told == ["left behind in the source's folder: notes.txt; copy by hand what still holds"]


@pytest.mark.parametrize("choice", ["source", "target", None])
def test_further_chat_templates_follow_the_first(
    tmp_path: Path, write: Callable[..., WriteResult], choice: str | None
) -> None:
    result = write({"additional_chat_templates/rag.jinja": "{{ 1 }}"}, chat_template=choice)
    path = tmp_path / "out/additional_chat_templates/rag.jinja"
    assert path.exists() is (choice == "source")
    told = any("additional_chat_templates/" in line for line in result.warnings)
    assert told is (choice != "source")


def test_a_token_that_a_processor_names_is_looked_for(write: Callable[..., WriteResult]) -> None:
    result = write({"processor_config.json": {"image_token": "<image>", "pad_token": "<s>"}})
    assert any(
        line.startswith("processor_config.json names tokens that the target tokenizer lacks: "
                        "image_token '<image>'; ")
        for line in result.warnings
    )  # fmt: skip


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"modules.json": [{**POOLED[0], "path": "0_Transformer"}]}, "keeps its transformer in"),
        ({"modules.json": [POOLED[0], {**POOLED[1], "type": f"{ST}.WordWeights"}]},
         "is a WordWeights, which has a vocabulary"),
        ({"modules.json": POOLED, "2_Dense/pytorch_model.bin": ""}, "as pickle only"),
    ],
)  # fmt: skip
def test_what_cannot_be_carried_over_is_refused_by_name(
    folder: Path, tmp_path: Path, write: Callable[..., WriteResult], files: Any, said: str
) -> None:
    with pytest.raises(UnsupportedCheckpointError, match=said):
        write(files)
    assert {path.name for path in tmp_path.iterdir()} == {"model"}


def test_a_module_with_a_row_for_every_token_is_refused(
    folder: Path, write: Callable[..., WriteResult]
) -> None:
    put(folder, {"modules.json": POOLED, "2_Dense/config.json": {}})
    save_file({"linear.weight": torch.ones(4, N_ROWS)}, folder / "2_Dense/model.safetensors")
    with pytest.raises(UnsupportedCheckpointError, match=r"linear\.weight of 2_Dense/model"):
        write()


def test_a_file_that_nests_without_end_is_refused(write: Callable[..., WriteResult]) -> None:
    for name in ("processor_config.json", "generation_config.json"):
        with pytest.raises(UnsafeCheckpointError, match=f"{name} nests more than 100 deep"):
            write({name: '{"a": ' * 300 + "{}" + "}" * 300})


@pytest.mark.parametrize(
    "modules",
    ["{", {}, [1], [{"path": 3, "type": "x"}], [{**POOLED[0], "path": "../up"}],
     [{**POOLED[0], "path": "/abs"}], [POOLED[0], {**POOLED[1], "path": "a\\b"}]],
)  # fmt: skip
def test_a_list_of_modules_that_is_none_is_refused(
    write: Callable[..., WriteResult], modules: Any
) -> None:
    with pytest.raises(UnsafeCheckpointError, match=r"modules\.json"):
        write({"modules.json": modules})


def test_a_link_out_of_a_module_is_refused(
    folder: Path, tmp_path: Path, write: Callable[..., WriteResult]
) -> None:
    put(folder, {"modules.json": POOLED, "1_Pooling/x.json": {}})
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "1_Pooling/y.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(UnsafeCheckpointError, match="link out of"):
        write()


def test_code_of_modules_is_named(write: Callable[..., WriteResult]) -> None:
    result = write({"modules.json": [{**POOLED[0], "type": "custom_st.Transformer"}]})
    assert any("names code of its own (custom_st.Transformer)" in w for w in result.warnings)


def test_a_model_in_a_subfolder_is_named(model_of: Callable[..., Path], tmp_path: Path) -> None:
    folder = put(tmp_path, {"modules.json": [POOLED[1], {**POOLED[0], "path": "0_Transformer"}]})
    put(folder / "1_Pooling", {"config.json": {}, "model.safetensors": ""})
    shutil.copytree(model_of("llama"), folder / "0_Transformer")
    with pytest.raises(CheckpointError, match=r"give .*0_Transformer, and put the result in its"):
        Checkpoint.open(folder)

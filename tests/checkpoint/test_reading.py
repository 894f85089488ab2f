"""What is read of a checkpoint is what transformers loads of it."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoModelForCausalLM

from tests.world import BIASED, CASES, N_ROWS, WIDTH, make_tokenizer
from tokensurgeon.checkpoint import Checkpoint, read_donor_rows
from tokensurgeon.errors import CheckpointError, UnsafeCheckpointError, UnsupportedCheckpointError

INDEX = "model.safetensors.index.json"


@pytest.mark.parametrize(("family", "tied"), CASES)
@pytest.mark.parametrize("options", [{}, {"shard": "10KB", "dtype": "bfloat16"}])
def test_rows_read_are_the_loaded_modules_rows(
    model_of: Callable[..., Path], family: str, tied: bool, options: dict[str, str]
) -> None:
    folder = model_of(family, tied, **options)
    checkpoint = Checkpoint.open(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    inner, outer = model.get_input_embeddings(), model.get_output_embeddings()
    assert (checkpoint.layout.n_rows, checkpoint.layout.width) == (N_ROWS, WIDTH)
    assert checkpoint.layout.tied is tied
    assert checkpoint.dtype == options.get("dtype", "float32")
    assert checkpoint.max_positions == 32
    np.testing.assert_array_equal(checkpoint.input_rows(), inner.weight.detach().numpy())
    np.testing.assert_array_equal(checkpoint.output_rows(), outer.weight.detach().numpy())
    bias = checkpoint.output_bias()
    assert (bias is not None) == (family in BIASED)
    if bias is not None:
        np.testing.assert_array_equal(bias, outer.bias.detach().numpy())


def test_the_file_key_of_a_head_is_not_its_module_name(model_of: Callable[..., Path]) -> None:
    assert Checkpoint.open(model_of("gpt_neox", False)).layout.output_names == ("embed_out.weight",)
    assert Checkpoint.open(model_of("gpt_neox", True)).layout.head_key == "embed_out.weight"
    assert Checkpoint.open(model_of("gpt2", True)).layout.head_key == "lm_head.weight"


def test_tied_is_read_from_the_tensors_not_the_flag(
    model_of: Callable[..., Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(model_of("llama", False), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["tie_word_embeddings"] = True
    (folder / "config.json").write_text(json.dumps(config))
    layout = Checkpoint.open(folder).layout
    assert layout.tied_flag
    assert not layout.tied


def test_an_equal_head_that_is_stored_is_tied(
    model_of: Callable[..., Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(model_of("llama", True), tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    layout = Checkpoint.open(folder).layout
    assert layout.tied
    assert layout.output_names == ("lm_head.weight",)


def test_a_donor_may_hold_its_vocabulary_tensors_only(
    model_of: Callable[..., Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(model_of("gpt_neox", False), tmp_path / "donor")
    tensors = load_file(folder / "model.safetensors")
    rows = {key: value for key, value in tensors.items() if value.shape[0] == N_ROWS}
    save_file(rows, folder / "model.safetensors")
    donor, whole = read_donor_rows(folder), Checkpoint.open(model_of("gpt_neox", False))
    np.testing.assert_array_equal(donor.input, whole.input_rows())
    np.testing.assert_array_equal(donor.output, whole.output_rows())
    assert donor.vocabulary == folder


def test_an_unclaimed_tensor_of_the_vocabularys_size_is_refused_by_name(
    model_of: Callable[..., Path], tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(model_of(), tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.extra_head.weight"] = torch.zeros(WIDTH, N_ROWS)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UnsupportedCheckpointError, match=r"model\.extra_head\.weight"):
        Checkpoint.open(folder)


def test_a_chance_dimension_of_the_same_size_is_not_refused(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=64, n_positions=64, n_embd=16, n_layer=1, n_head=2, bos_token_id=0,
        eos_token_id=1,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "model")
    assert Checkpoint.open(tmp_path / "model").layout.input_names == ("transformer.wte.weight",)


@pytest.mark.parametrize("size", [N_ROWS, N_ROWS + 8])
def test_a_second_table_by_token_is_refused_whatever_its_size(tmp_path: Path, size: int) -> None:
    import transformers

    config = transformers.Gemma4TextConfig(
        vocab_size=N_ROWS,
        vocab_size_per_layer_input=size,
        hidden_size_per_layer_input=8,
        num_kv_shared_layers=0,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=None,
    )
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    make_tokenizer(tmp_path)
    with pytest.raises(UnsupportedCheckpointError, match="embed_tokens_per_layer"):
        Checkpoint.open(tmp_path)


def test_an_unknown_architecture_is_refused_by_its_name(tmp_path: Path) -> None:
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(
        vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16,
    )  # fmt: skip
    BertForMaskedLM(config).save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    told = json.loads(path.read_text())
    for name in ("BertForGuessing", "logging", "AutoModel"):
        path.write_text(json.dumps({**told, "architectures": [name]}))
        with pytest.raises(CheckpointError, match=name):
            Checkpoint.open(tmp_path / "model")


def _sharded(model_of: Callable[..., Path], tmp_path: Path) -> Path:
    return shutil.copytree(model_of(shard="10KB"), tmp_path / "model")


@pytest.mark.parametrize(
    "name",
    ["../x.safetensors", "/etc/x.safetensors", "a\\b.safetensors", "x\0.safetensors",
     "sub/x.safetensors", "model.bin", 3],
)  # fmt: skip
def test_an_index_that_leaves_its_folder_is_refused(
    model_of: Callable[..., Path], tmp_path: Path, name: object
) -> None:
    folder = _sharded(model_of, tmp_path)
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"]["lm_head.weight"] = name
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(UnsafeCheckpointError):
        Checkpoint.open(folder)


def test_a_name_that_no_file_system_has_is_a_missing_file(
    model_of: Callable[..., Path], tmp_path: Path
) -> None:
    folder = _sharded(model_of, tmp_path)
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"]["lm_head.weight"] = "a" * 900 + ".safetensors"
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="lacks aaa"):
        Checkpoint.open(folder)


def test_a_missing_shard_and_a_key_the_shard_lacks_are_named(
    model_of: Callable[..., Path], tmp_path: Path
) -> None:
    folder = _sharded(model_of, tmp_path)
    index = json.loads((folder / INDEX).read_text())
    shard = index["weight_map"]["lm_head.weight"]
    index["weight_map"]["lm_tail.weight"] = shard
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"lm_tail\.weight"):
        Checkpoint.open(folder)
    (folder / shard).unlink()
    with pytest.raises(CheckpointError, match=shard):
        Checkpoint.open(folder)


def test_links_out_of_the_folder_are_refused_and_the_hub_caches_own_are_not(
    model_of: Callable[..., Path], tmp_path: Path
) -> None:
    source = model_of()
    cache = tmp_path / "models--a--b"
    snapshot, blobs = cache / "snapshots" / "abc", cache / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for path in source.iterdir():
        shutil.copyfile(path, blobs / path.name)
        (snapshot / path.name).symlink_to(blobs / path.name)
    assert Checkpoint.open(snapshot).layout.n_rows == N_ROWS
    stray = shutil.copytree(source, tmp_path / "stray")
    (stray / "model.safetensors").unlink()
    (stray / "model.safetensors").symlink_to(source / "model.safetensors")
    with pytest.raises(UnsafeCheckpointError, match="link"):
        Checkpoint.open(stray)


@pytest.mark.parametrize(
    ("files", "error", "words"),
    [
        (["pytorch_model.bin"], UnsafeCheckpointError, "save_pretrained"),
        (["adapter_config.json", "adapter_model.safetensors"], UnsupportedCheckpointError, "merge"),
        ([], CheckpointError, "model.safetensors"),
    ],
)
def test_folders_without_plain_weights_are_refused_with_the_next_step(
    model_of: Callable[..., Path],
    tmp_path: Path,
    files: list[str],
    error: type[Exception],
    words: str,
) -> None:
    folder = shutil.copytree(model_of(), tmp_path / "model")
    (folder / "model.safetensors").unlink()
    for name in files:
        (folder / name).write_bytes(b"{}")
    with pytest.raises(error, match=words):
        Checkpoint.open(folder)


def test_quantised_tensors_are_refused_by_name(
    model_of: Callable[..., Path], tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(model_of(), tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.qweight"] = torch.zeros(2, 2, dtype=torch.int32)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UnsupportedCheckpointError, match=r"up_proj\.qweight"):
        Checkpoint.open(folder)


def _header(**changes: object) -> bytes:
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}
    return json.dumps({"a": entry}).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\1\2",
        struct.pack("<Q", 1 << 60) + b"{}",
        struct.pack("<Q", 4) + b"[[[[" + b"\0" * 8,
        struct.pack("<Q", 2) + b"{}" + b"\0",
        *(
            struct.pack("<Q", len(header)) + header + b"\0" * 8
            for header in (
                _header(shape=[1 << 40, 0]),
                _header(shape=[-2]),
                _header(shape=[1 << 62, 1 << 62]),
                _header(data_offsets=[0, 16]),
                _header(data_offsets=[8, 0]),
                _header(dtype="F99"),
                _header(more=1),
                b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
                b'"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
                b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
                b'"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
            )
        ),
    ],
)
def test_broken_headers_are_refused(
    model_of: Callable[..., Path], tmp_path: Path, content: bytes
) -> None:
    folder = shutil.copytree(model_of(), tmp_path / "model")
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(UnsafeCheckpointError):
        Checkpoint.open(folder)


def test_a_name_that_is_nothing_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no folder and no model id"):
        Checkpoint.open(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="neither a folder nor a model"):
        Checkpoint.open("nobody/nothing")

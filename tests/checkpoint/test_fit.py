"""A model that is not what its configuration says is refused by name, and a harmless one is not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.world import N_ROWS, WIDTH
from tokensurgeon import Recipe
from tokensurgeon.checkpoint import Checkpoint, read_donor_rows
from tokensurgeon.errors import CheckpointError, UnsupportedCheckpointError
from tokensurgeon.surgery import prepare

INDEX = "model.safetensors.index.json"
OTHER = "give the config.json that was saved with these weights"


@pytest.fixture
def model(model_of: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """Return a maker of copies of a model, whose tensors and configuration may be changed."""

    def make(family: str = "llama", tied: bool = False, **changes: Any) -> Path:
        folder = shutil.copytree(model_of(family, tied), tmp_path / "model")
        tell(folder, **changes)
        return folder

    return make


def tell(folder: Path, **changes: Any) -> None:
    """Change what the configuration says."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def store(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """Change what the file holds."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("family", "key", "says", "words"),
    [
        ("llama", "num_hidden_layers", 1, "describes 1 of model.layers, and the files hold 2"),
        ("llama", "num_hidden_layers", 3, "describes 3 of model.layers, and the files hold 2"),
        ("gpt2", "n_layer", 1, "describes 1 of transformer.h, and the files hold 2"),
        ("gpt_neox", "num_hidden_layers", 3, "describes 3 of gpt_neox.layers, and the files hold"),
        ("qwen2", "num_key_value_heads", 2, r"k_proj\.\w+ has the shape \[8"),
        ("llama", "num_attention_heads", 4, r"has the shape \[16, 16\], and by config"),
        ("qwen3", "intermediate_size", 48, r"_proj.weight has the shape \[\d+, \d+\], and by con"),
        ("gptj", "n_inner", 48, r"fc_\w+\.\w+ has the shape"),
        ("llama", "hidden_size", 32, "has the shape"),
        ("llama", "attention_bias", True, "lack 8 of the 29 tensors .* such as .*bias"),
    ],
)  # fmt: skip
def test_a_configuration_of_another_model_is_refused_by_what_differs(
    model: Callable[..., Path], family: str, key: str, says: int, words: str
) -> None:
    folder = model(family, **{key: says})
    with pytest.raises(CheckpointError, match=words) as refused:
        Checkpoint.open(folder)
    assert OTHER in str(refused.value)
    assert str(refused.value).startswith(f"{folder}: ")  # of two checkpoints, this one


def test_biases_that_the_configuration_leaves_out_are_refused(model: Callable[..., Path]) -> None:
    """As where ``attention_bias`` was lost: the model would run without them."""
    folder = model("llama")
    name = "model.layers.1.self_attn.q_proj.bias"
    store(folder, lambda tensors: tensors.update({name: torch.ones(WIDTH)}))
    with pytest.raises(CheckpointError, match=rf"{name}, one of 1 .* {OTHER}"):
        Checkpoint.open(folder)
    store(folder, lambda tensors: tensors.pop(name))
    store(folder, lambda tensors: tensors.update({"model.emb_norm.weight": torch.ones(WIDTH)}))
    with pytest.raises(CheckpointError, match=r"model\.emb_norm\.weight, one of 1 in"):
        Checkpoint.open(folder)


def test_a_lacking_tensor_is_named_before_anything_is_loaded(model: Callable[..., Path]) -> None:
    folder = model("qwen3")
    store(folder, lambda tensors: tensors.pop("model.layers.0.self_attn.q_norm.weight"))
    with pytest.raises(CheckpointError, match=r"lack 1 of the .*layers\.0\.self_attn\.q_norm"):
        Checkpoint.open(folder)
    assert len(read_donor_rows(folder).input) == N_ROWS  # of a donor the rows alone count


BESIDE: dict[str, dict[str, tuple[int, ...]]] = {
    "buffers of older releases": {
        "model.layers.0.self_attn.rotary_emb.inv_freq": (4,),
        "model.rotary_emb.inv_freq": (4,),
        "model.layers.1.self_attn.masked_bias": (),
        "model.layers.1.self_attn.bias": (1, 1, 32, 32),
        "model.position_ids": (1, 32),
    },
    "heads": {"score.weight": (2, WIDTH), "v_head.summary.bias": (1,)},
    "a tower": {"model.visual.blocks.0.mlp.weight": (4, 4), "vision_tower.layers.9.bias": (4,)},
    "a pooler": {"model.pooler.dense.weight": (WIDTH, WIDTH)},
    "a block that predicts further tokens": {
        "model.layers.2.eh_proj.weight": (WIDTH, 2 * WIDTH),
        "model.layers.2.self_attn.q_proj.weight": (WIDTH, WIDTH),
        "mtp.layers.0.norm.weight": (WIDTH,),
    },
}


@pytest.mark.parametrize("what", BESIDE)
def test_what_stands_beside_the_model_is_named_and_not_refused(
    model: Callable[..., Path], what: str
) -> None:
    folder = model("llama")
    more = {name: torch.ones(shape) for name, shape in BESIDE[what].items()}
    store(folder, lambda tensors: tensors.update(more))
    unused = Checkpoint.open(folder).layout.unused
    assert set(unused) == (set() if "buffers" in what else set(more))


def test_a_further_head_of_an_encoder_is_not_refused(tmp_path: Path) -> None:
    """As in the files of BERT itself: saved with both heads, declared with one."""
    from transformers import BertConfig, BertForPreTraining

    config = BertConfig(
        vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=32,
    )  # fmt: skip
    BertForPreTraining(config).save_pretrained(tmp_path)
    tell(tmp_path, architectures=["BertForMaskedLM"])
    unused = Checkpoint.open(tmp_path).layout.unused
    assert {name.rpartition(".")[0] for name in unused} == {
        "bert.pooler.dense", "cls.seq_relationship",
    }  # fmt: skip
    tell(tmp_path, num_hidden_layers=2)
    with pytest.raises(CheckpointError, match=r"describes 2 of bert\.encoder\.layer, .* hold 1"):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn, torch.int32])
@pytest.mark.parametrize("name", ["model.layers.1.mlp.up_proj.weight", "model.norm.weight"])
def test_weights_in_whole_numbers_or_eight_bits_are_refused(
    model: Callable[..., Path], dtype: torch.dtype, name: str
) -> None:
    folder = model("llama")
    store(folder, lambda tensors: tensors.update({name: tensors[name].to(dtype)}))
    with pytest.raises(UnsupportedCheckpointError, match=rf"{name} is stored as [IUF]\w+.*unquant"):
        Checkpoint.open(folder)


@pytest.mark.parametrize("where", [(), ("text_config",)])
def test_a_quantisation_that_the_weights_do_not_have_is_told_from_one_that_they_have(
    model: Callable[..., Path], where: tuple[str, ...]
) -> None:
    said: Any = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}
    for key in where:
        said = {key: said}
    folder = model("llama", **said)
    with pytest.raises(UnsupportedCheckpointError, match=r"all weights are plain F32, .* remove"):
        Checkpoint.open(folder)
    store(folder, lambda tensors: tensors.update({"x": torch.ones(2, dtype=torch.int8)}))
    with pytest.raises(UnsupportedCheckpointError, match="quantised; patch the unquantised"):
        Checkpoint.open(folder)


def test_an_adapter_beside_a_model_is_refused_for_loaders_take_its_base(
    model: Callable[..., Path],
) -> None:
    folder = model("llama")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "someone/else"}')
    with pytest.raises(UnsupportedCheckpointError, match=r"beside a model.*merge the two"):
        Checkpoint.open(folder)


@pytest.mark.parametrize("metadata", [[], None, 3])
def test_an_index_without_its_metadata_is_told_what_to_add(
    model_of: Callable[..., Path], tmp_path: Path, metadata: object
) -> None:
    folder = shutil.copytree(model_of(shard="10KB"), tmp_path / "model")
    index = json.loads((folder / INDEX).read_text())
    (folder / INDEX).write_text(json.dumps({**index, "metadata": metadata}))
    with pytest.raises(CheckpointError, match='add "metadata"'):
        Checkpoint.open(folder)


@pytest.mark.parametrize("side", ["input", "output"])
@pytest.mark.parametrize(("value", "said"), [(0, "zero"), (0.3, "equal"), (np.nan, "NaN or Inf")])
def test_a_matrix_that_nothing_was_trained_into_is_refused(
    model: Callable[..., Path], side: str, value: float, said: str
) -> None:
    name = {"input": "model.embed_tokens.weight", "output": "lm_head.weight"}[side]
    folder = model("llama")
    store(folder, lambda tensors: tensors[name].fill_(value))
    words = f"the {{}}'s {side} rows are all {said}, {N_ROWS} of them, .* give a trained"
    with pytest.raises(CheckpointError, match=words.format("donor")):
        read_donor_rows(folder)
    asked = {"source": str(folder), "tokenizer": str(folder), "allow_nonfinite": True}
    with pytest.raises(CheckpointError, match=words.format("source")):
        _ = prepare(Recipe.parse(asked)).source_rows
    store(folder, lambda tensors: tensors[name][7].fill_(1))  # one other finite row
    if said != "NaN or Inf":
        assert len(read_donor_rows(folder).input) == N_ROWS


def test_what_stands_beside_the_source_is_noted(model: Callable[..., Path]) -> None:
    folder = model("llama")
    store(folder, lambda tensors: tensors.update({"score.weight": torch.ones(2, WIDTH)}))
    inputs = prepare(Recipe.parse({"source": str(folder), "tokenizer": str(folder)})).inputs
    assert any(
        "holds 1 tensor that" in note and "such as score.weight" in note for note in inputs.notes
    )


ODD: tuple[Any, ...] = (None, [], {}, "x", -1, 3.5, [None], 10**30, float("inf"), True, [[]], 0)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_whatever_a_configuration_says_is_read_or_refused_in_a_line(
    model: Callable[..., Path], family: str
) -> None:
    folder = model(family)
    told = json.loads((folder / "config.json").read_text())
    keys = [*told, "text_config", "quantization_config", "layer_types", "rope_parameters"]
    refused = {}
    for number, key in enumerate(keys):
        for value in ODD[number % 4 :: 4]:
            (folder / "config.json").write_text(json.dumps({**told, key: value}))
            try:
                Checkpoint.open(folder)
            except CheckpointError as error:
                refused[key, str(value)] = str(error)
    assert len(refused) > len(keys) / 2
    assert not {case: said for case, said in refused.items() if said[-1] in ":," or ";" not in said}

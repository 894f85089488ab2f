"""The laws that the framework keeps, whatever an initialiser does."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from tokensurgeon import InitContext, NewRows, SideRows, transplant
from tokensurgeon.errors import (
    InitialiserError,
    OutputExistsError,
    SettingError,
    TokenizerError,
    UsageError,
)
from tokensurgeon.surgery.row_origins import CONTROL, ORIGINS, PADDING

FAMILIES = ("llama", "qwen2", "qwen3", "gpt2", "gpt_neox", "phi")
Checkpoints = Callable[..., Path]


def tensors(folder: Path) -> dict[str, bytes]:
    from safetensors.numpy import load_file

    found = load_file(folder / "model.safetensors")
    return {name: tensor.tobytes() for name, tensor in found.items()}


def logits(folder: Path, ids: list[int]) -> np.ndarray:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].numpy()


@dataclass(frozen=True)
class Constant:
    """A plug-in whose every row is one value."""

    name: ClassVar[str] = "constant"
    value: float = 0.25

    def __call__(self, context: InitContext) -> NewRows:
        rows = np.full((context.n_missing, context.width), self.value, dtype=np.float32)
        return NewRows(input=SideRows(dense=rows), output=SideRows(dense=rows))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_source_s_own_vocabulary_gives_byte_identical_tensors(
    family: str, tied: bool, checkpoints: Checkpoints, world: Path, tmp_path: Path
) -> None:
    source = checkpoints(family, tied, n_rows=344)  # 14 padding rows
    transplant(
        source=str(source),
        tokenizer=str(world / "source"),
        output=str(tmp_path / "out"),
        allow_autotokenizer_mismatch=family == "qwen2",
    )
    assert tensors(tmp_path / "out") == tensors(source)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_permuted_vocabulary_permutes_the_logits(
    family: str, tied: bool, checkpoints: Checkpoints, permuted: Path, tmp_path: Path
) -> None:
    source = checkpoints(family, tied)
    result = transplant(
        source=str(source),
        tokenizer=str(permuted),
        output=str(tmp_path / "out"),
        allow_autotokenizer_mismatch=family == "qwen2",
    )
    moved = result.alignment.source_ids
    back = np.argsort(moved)
    ids = [5, 17, 200, 3, 99, 301]
    before, after = logits(source, ids), logits(tmp_path / "out", [int(back[i]) for i in ids])
    np.testing.assert_allclose(after, before[:, moved], atol=1e-5)


def test_a_tokenizer_that_autotokenizer_would_replace_is_an_error(
    checkpoints: Checkpoints, world: Path, tmp_path: Path
) -> None:
    # transformers loads its own class for qwen2, whatever tokenizer_config.json says.
    with pytest.raises(TokenizerError, match="--allow-autotokenizer-mismatch"):
        transplant(
            source=str(checkpoints("qwen2")),
            tokenizer=str(world / "target"),
            output=str(tmp_path / "out"),
        )
    assert list(tmp_path.iterdir()) == []


def test_the_order_of_a_dictionary_does_not_matter(
    checkpoints: Checkpoints, world: Path, tmp_path: Path
) -> None:
    source = checkpoints()
    shuffled = tmp_path / "shuffled"
    shutil.copytree(world / "target", shuffled)
    data = json.loads((shuffled / "tokenizer.json").read_text())
    items = list(data["model"]["vocab"].items())
    random.Random(3).shuffle(items)
    data["model"]["vocab"] = dict(items)
    (shuffled / "tokenizer.json").write_text(json.dumps(data))
    for name, target in (("a", world / "target"), ("b", shuffled)):
        transplant(source=str(source), tokenizer=str(target), output=str(tmp_path / name))
    assert tensors(tmp_path / "a") == tensors(tmp_path / "b")


@pytest.mark.parametrize("tied", [False, True])
def test_shared_rows_are_copied_and_others_are_the_initialiser_s(
    tied: bool, checkpoints: Checkpoints, world: Path
) -> None:
    result = transplant(
        source=str(checkpoints(tied=tied)), tokenizer=str(world / "target"), initialiser=Constant()
    )
    from tokensurgeon.checkpoint import Checkpoint

    source_rows = Checkpoint.open(str(checkpoints(tied=tied))).input_rows()
    side, alignment = result.rows.input, result.alignment
    here = side.copied >= 0
    assert np.array_equal(side.rows[here], source_rows[side.copied[here]])
    assert np.array_equal(np.flatnonzero(side.origin == 1), alignment.missing)
    assert (side.rows[alignment.missing] == 0.25).all()
    assert result.rows.tied == tied


def test_weights_reproduce_the_rows(checkpoints: Checkpoints, world: Path) -> None:
    result = transplant(
        source=str(checkpoints()),
        tokenizer=str(world / "target"),
        init={"input": "subword-mean", "output": "subword-mean"},
    )
    from tokensurgeon.checkpoint import Checkpoint

    side = result.rows.output
    said = side.weights @ Checkpoint.open(str(checkpoints())).output_rows()
    made = np.isin(side.origin, [0, 1])
    np.testing.assert_allclose(side.rows[made], said[made], atol=1e-6)


def test_untying_writes_two_matrices_and_the_flag(
    checkpoints: Checkpoints, world: Path, tmp_path: Path
) -> None:
    source = checkpoints(tied=True)
    result = transplant(
        source=str(source),
        tokenizer=str(world / "target"),
        init={"input": "subword-last", "output": "subword-first"},
        untie=True,
        output=str(tmp_path / "out"),
    )
    assert not result.rows.tied
    assert json.loads((tmp_path / "out/config.json").read_text())["tie_word_embeddings"] is False
    written = tensors(tmp_path / "out")
    assert written["lm_head.weight"] == result.rows.output.rows.tobytes()
    assert written["model.embed_tokens.weight"] == result.rows.input.rows.tobytes()
    assert written["lm_head.weight"] != written["model.embed_tokens.weight"]


def test_two_methods_are_refused_while_there_is_one_matrix(
    checkpoints: Checkpoints, world: Path
) -> None:
    with pytest.raises(UsageError, match="--untie"):
        transplant(
            source=str(checkpoints(tied=True)),
            tokenizer=str(world / "target"),
            init={"input": "subword-last", "output": "subword-first"},
        )


def test_padding_and_unmatched_controls_get_rows_that_draw_no_mass(
    checkpoints: Checkpoints, world: Path, tmp_path: Path
) -> None:
    result = transplant(
        source=str(checkpoints()),
        tokenizer=str(world / "target"),
        output=str(tmp_path / "out"),
        pad_to_multiple_of=64,
    )
    n_rows = result.rows.output.rows.shape[0]
    assert n_rows == 384
    used = result.alignment.target.n_rows
    assert used < n_rows
    assert (result.rows.output.origin[used:] == PADDING).all()
    note = result.alignment.target.id_of("<|note|>")
    assert ORIGINS[result.rows.output.origin[note]] == ORIGINS[CONTROL]
    assert [fact.spelling for fact in result.report.unmatched_controls] == ["<|note|>"]
    found = logits(tmp_path / "out", [0, 40, 50, 60])
    quiet = np.flatnonzero(np.isin(result.rows.output.origin, [PADDING, CONTROL]))
    share = np.exp(found - np.logaddexp.reduce(found, axis=1, keepdims=True))[:, quiet].sum(axis=1)
    assert (share < 1e-3).all()


def test_start_and_end_tokens_take_the_rows_of_the_source_s(
    checkpoints: Checkpoints, world: Path
) -> None:
    result = transplant(source=str(checkpoints()), tokenizer=str(world / "target"), calibrate=())
    target, source = result.alignment.target, result.alignment.source
    assert result.rows.input.copied[target.bos_id] == source.bos_id
    assert result.rows.output.copied[target.eos_id] == source.eos_id


def test_one_token_for_start_and_end_takes_input_from_start_and_output_from_end(
    world: Path, donor: Path
) -> None:
    # The other way round: a source with two tokens (the donor's model) and a target with one.
    result = transplant(source=str(donor), tokenizer=str(world / "source"), calibrate=())
    target, source = result.alignment.target, result.alignment.source
    assert target.bos_id == target.eos_id
    assert source.bos_id != source.eos_id
    assert result.rows.input.copied[target.bos_id] == source.bos_id
    assert result.rows.output.copied[target.eos_id] == source.eos_id


def test_the_same_recipe_gives_the_same_bytes(
    checkpoints: Checkpoints, world: Path, donor: Path, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        transplant(
            source=str(checkpoints()),
            donor=str(donor),
            init={"input": "random", "output": "omp", "settings": {"omp": {"k": 4}}},
            output=str(tmp_path / name),
            seed=5,
        )
    assert tensors(tmp_path / "a") == tensors(tmp_path / "b")


def test_non_finite_rows_of_an_initialiser_are_never_written(
    checkpoints: Checkpoints, world: Path, tmp_path: Path
) -> None:
    with pytest.raises(InitialiserError, match="NaN or Inf"):
        transplant(
            source=str(checkpoints()),
            tokenizer=str(world / "target"),
            initialiser=Constant(float("nan")),
            output=str(tmp_path / "out"),
        )
    assert not (tmp_path / "out").exists()


def test_an_existing_output_is_refused_before_anything_is_read(world: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match="--force"):
        transplant(source="/nowhere", tokenizer=str(world / "target"), output=str(tmp_path / "out"))


def test_settings_are_checked_before_anything_is_read(world: Path) -> None:
    with pytest.raises(SettingError, match="kk"):
        transplant(
            source="/nowhere",
            tokenizer=str(world / "target"),
            init={"input": "omp", "output": "omp", "settings": {"*": {"kk": 3}}},
        )

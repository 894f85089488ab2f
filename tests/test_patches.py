"""Laws of portable patches: on the source the surgery itself, on a fine-tune what it would be."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import tokensurgeon
from tokensurgeon.checkpoint import Checkpoint, recheck
from tokensurgeon.cli.main import main
from tokensurgeon.errors import CheckpointError, OutputExistsError
from tokensurgeon.patches import apply_patch, export_patch

FAMILIES = [("llama", False), ("llama", True), ("gpt2", True), ("phi", False)]
WEIGHTS = "model.safetensors"


def operate(source: Path, world: Path, out: Path, **recipe) -> Path:
    """Transplant the world's target tokenizer onto a checkpoint."""
    recipe = {"init": {"input": "subword-mean", "output": "subword-mean"}} | recipe
    tokensurgeon.transplant(source=source, tokenizer=world / "target", output=out, **recipe)
    return out


def tune(source: Path, out: Path, seed: int = 3) -> Path:
    """Change every weight of a checkpoint, as training on would."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(source, out)
    tensors = load_file(out / WEIGHTS)
    import torch

    torch.manual_seed(seed)
    for name, tensor in tensors.items():
        tensors[name] = tensor + 0.05 * torch.randn_like(tensor)
    save_file(tensors, out / WEIGHTS, metadata={"format": "pt"})
    return out


@pytest.mark.parametrize(("family", "tied"), FAMILIES)
@pytest.mark.parametrize("method", ["subword-mean", "hidden-residual"])
def test_on_the_source_a_patch_is_the_surgery_byte_for_byte(
    family, tied, method, checkpoints, world, tmp_path
):
    source = checkpoints(family, tied)
    out = operate(source, world, tmp_path / "out", init={"input": method, "output": method})
    made = export_patch(out, tmp_path / "a.safetensors")
    applied = apply_patch(made.path, source, tmp_path / "applied")
    assert (applied / WEIGHTS).read_bytes() == (out / WEIGHTS).read_bytes()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (applied / name).read_bytes() == (out / name).read_bytes()
    assert recheck(applied).problems == []
    if method == "subword-mean":
        # All but floor rows are sums; the file needs no row of the model for them.
        assert made.remainders < made.rows / 10


@pytest.mark.parametrize(("family", "tied"), FAMILIES)
def test_on_a_fine_tune_it_gives_the_rows_of_a_direct_surgery(
    family, tied, checkpoints, world, tmp_path
):
    source = checkpoints(family, tied)
    out = operate(source, world, tmp_path / "out")
    tuned = tune(source, tmp_path / "tuned")
    direct = Checkpoint.open(operate(tuned, world, tmp_path / "direct"))
    made = export_patch(out, tmp_path / "a.safetensors")
    applied = Checkpoint.open(apply_patch(made.path, tuned, tmp_path / "applied"))
    for side in ("input_rows", "output_rows", "output_bias"):
        got, wanted = getattr(applied, side)(), getattr(direct, side)()
        if wanted is None:
            assert got is None
            continue
        # Floor rows are remainders of the source's own; all others are the fine-tune's.
        same = np.isclose(got, wanted, atol=1e-6)
        same = same if same.ndim == 1 else same.all(axis=1)
        assert same.mean() > 0.97
    body = [name for name in direct.tensors.where if "embed" not in name and "lm_head" not in name]
    assert applied.tensors.info(body[0]) == direct.tensors.info(body[0])


def test_a_fine_tune_gets_what_calibration_changed(checkpoints, world, tmp_path):
    source = checkpoints("llama", False)
    text = [str(world / "evaluation.jsonl")]
    recipe = {"calibrate": ["unigram"], "text": {"calibration": text}}
    out = operate(source, world, tmp_path / "out", **recipe)
    made = export_patch(out, tmp_path / "a.safetensors")
    applied = apply_patch(made.path, source, tmp_path / "applied")
    assert (applied / WEIGHTS).read_bytes() == (out / WEIGHTS).read_bytes()


def test_the_commands_say_what_they_did_and_explain_still_knows(checkpoints, world, tmp_path):
    source = checkpoints("llama", False)
    out = operate(source, world, tmp_path / "out")
    file, applied = str(tmp_path / "a.safetensors"), str(tmp_path / "applied")

    def run(*arguments):
        return CliRunner().invoke(main, list(arguments))

    done = run("patch", "export", str(out), "-o", file)
    assert done.exit_code == 0, done.output
    assert "are sums of source rows alone" in done.stdout
    done = run("patch", "apply", file, str(source), "-o", applied)
    assert done.exit_code == 0, done.output
    stories = [run("explain", str(each), "300", "--json").stdout for each in (out, applied)]
    assert stories[0] == stories[1] != ""
    again = run("patch", "apply", file, str(source), "-o", applied)
    assert again.exit_code == 2
    assert "--force" in again.stderr


def test_what_does_not_fit_is_named_and_nothing_is_written(checkpoints, world, tmp_path):
    source = checkpoints("llama", False)
    out = operate(source, world, tmp_path / "out")
    file = tmp_path / "a.safetensors"
    with pytest.raises(CheckpointError, match="no records of a surgery"):
        export_patch(source, file)
    with pytest.raises(CheckpointError, match="is not the checkpoint that"):
        export_patch(out, file, source=checkpoints("llama", False, seed=5))
    assert not file.exists()
    export_patch(out, file)
    with pytest.raises(OutputExistsError, match="--force"):
        export_patch(out, file)
    with pytest.raises(CheckpointError, match="has another tokenizer"):
        apply_patch(file, out, tmp_path / "x")
    with pytest.raises(CheckpointError, match="has 330 tied rows"):
        apply_patch(file, checkpoints("llama", True), tmp_path / "x")
    with pytest.raises(CheckpointError, match="is no patch file of this version"):
        apply_patch(source / WEIGHTS, source, tmp_path / "x")
    (tmp_path / "b.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="is no patch file"):
        apply_patch(tmp_path / "b.safetensors", source, tmp_path / "x")
    assert not (tmp_path / "x").exists()

"""What is written loads as the model that was meant, or is not there at all."""

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
from transformers import AutoTokenizer

from tests.world import (
    CASES,
    N_ROWS,
    N_TOKENS,
    make_tokenizer,
    permuted_plan,
    plan_of,
)
from tokensurgeon.checkpoint import (
    Checkpoint,
    PatchPlan,
    WriteResult,
    round_rows,
    verify_manifest,
    write_checkpoint,
)
from tokensurgeon.checkpoint import write as writer
from tokensurgeon.checkpoint.verify import check_autotokenizer
from tokensurgeon.errors import (
    CheckpointError,
    OutputExistsError,
    TokenizerError,
    UnsafeCheckpointError,
)
from tokensurgeon.models.language_model import LanguageModel
from tokensurgeon.models.load import load_model
from tokensurgeon.models.reload import reload_check
from tokensurgeon.vocabulary import Vocabulary, load_vocabulary

TEXTS = ("the cat sat on the mat", "a hat, a bat: 1234 rats", "that is all  there\nis")
# the tiny tokenizer is not of Qwen2's form, and AutoTokenizer insists on that form
OTHER_CLASS = ("qwen2",)


def _identity(folder: Path, **changes: Any) -> PatchPlan:
    return plan_of(Checkpoint.open(folder), load_vocabulary(folder), np.arange(N_ROWS), **changes)


def write_and_run(
    plan: PatchPlan, output: Path, expected: LanguageModel | None = None, **options: object
) -> WriteResult:
    """Write a checkpoint that is loaded and run before it is published."""
    return write_checkpoint(plan, output, check=reload_check(plan, expected), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("family", "tied"), CASES)
@pytest.mark.parametrize("options", [{}, {"shard": "10KB", "dtype": "bfloat16"}])
def test_an_identity_transplant_gives_the_same_files(
    model_of: Callable[..., Path],
    tmp_path: Path,
    family: str,
    tied: bool,
    options: dict[str, str],
) -> None:
    folder = model_of(family, tied, **options)
    plan = _identity(folder)
    write_checkpoint(
        plan,
        tmp_path / "out",
        allow_autotokenizer_mismatch=True,
        check=None if options else reload_check(plan),
    )
    for path in folder.iterdir():
        if path.name != "tokenizer_config.json":
            assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize(("family", "tied"), CASES)
def test_a_permuted_vocabulary_gives_permuted_logits(
    model_of: Callable[..., Path],
    tmp_path: Path,
    permuted_vocabulary: Vocabulary,
    permutation: np.ndarray,
    family: str,
    tied: bool,
) -> None:
    folder = model_of(family, tied)
    plan = permuted_plan(folder, permuted_vocabulary, permutation)
    model = load_model(folder)
    patched = model.patched(plan.input_rows, plan.output_rows, plan.output_bias)
    result = write_and_run(
        plan,
        tmp_path / "out",
        probe_texts=TEXTS,
        expected=patched,
        allow_autotokenizer_mismatch=family in OTHER_CLASS,
    )
    written = load_model(tmp_path / "out")
    ids = [3, 40, 5, 9, 288]
    moved = [int(permutation[i]) for i in ids]
    found = written.logits(moved)
    np.testing.assert_allclose(found[:, permutation], model.logits(ids), atol=1e-5)
    np.testing.assert_allclose(found, patched.logits(moved), atol=1e-5)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["vocab_size"] == N_ROWS
    assert (config["bos_token_id"], config["eos_token_id"]) == tuple(
        int(i) for i in permutation[:2]
    )
    assert Checkpoint.open(tmp_path / "out").layout.tied is tied
    assert result.ids["config.json:eos_token_id"] == [1, int(permutation[1])]
    names = set(load_file(folder / "model.safetensors"))
    assert set(load_file(tmp_path / "out" / "model.safetensors")) == names


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
@pytest.mark.parametrize("options", [{}, {"shard": "10KB"}])
def test_untying_writes_a_head_and_the_flag(
    model_of: Callable[..., Path], tmp_path: Path, family: str, options: dict[str, str]
) -> None:
    folder = model_of(family, True, **options)
    plan = _identity(folder)
    source = Checkpoint.open(folder)
    head = source.output_rows() * 2
    changed = np.where(np.arange(N_ROWS) < 10, -1, np.arange(N_ROWS))
    head[10:] = source.output_rows()[10:]
    plan = plan_of(
        source, plan.target, np.arange(N_ROWS), output_rows=head, copied_output=changed, untie=True
    )
    expected = load_model(folder).patched(plan.input_rows, plan.output_rows)
    write_and_run(plan, tmp_path / "out", probe_texts=TEXTS, expected=expected)
    written = Checkpoint.open(tmp_path / "out")
    assert not written.layout.tied
    assert not written.layout.tied_flag
    assert written.config["tie_word_embeddings"] is False
    assert written.layout.output_names == (source.layout.head_key,)
    np.testing.assert_array_equal(written.input_rows(), source.input_rows())
    np.testing.assert_array_equal(written.output_rows(), head)
    if options:
        index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
        assert index["metadata"]["total_size"] == written.n_bytes


def test_a_flag_that_the_tensors_belie_is_corrected(
    model_of: Callable[..., Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(model_of("llama", False), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["tie_word_embeddings"] = True
    (folder / "config.json").write_text(json.dumps(config))
    write_and_run(_identity(folder), tmp_path / "out", probe_texts=TEXTS)
    written = tmp_path / "out"
    assert json.loads((written / "config.json").read_text())["tie_word_embeddings"] is False
    name = "model.safetensors"
    assert (written / name).read_bytes() == (folder / name).read_bytes()


def test_rows_that_differ_are_refused_while_tied(
    model_of: Callable[..., Path], tmp_path: Path
) -> None:
    folder = model_of("llama", True)
    rows = Checkpoint.open(folder).input_rows() * 2
    with pytest.raises(CheckpointError, match="tied"):
        write_and_run(_identity(folder, output_rows=rows), tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("n_new", [280, 304, 512])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("options", [{"dtype": "bfloat16"}, {"dtype": "float16", "shard": "10KB"}])
def test_rows_grow_and_shrink_in_the_files_dtype(
    model_of: Callable[..., Path],
    tmp_path: Path,
    n_new: int,
    tied: bool,
    options: dict[str, str],
) -> None:
    folder = model_of("llama", tied, **options)
    source = Checkpoint.open(folder)
    n_tokens = min(n_new, N_TOKENS) - 4
    target = load_vocabulary(make_tokenizer(tmp_path / "target", n_tokens))
    ids = np.where(np.arange(n_new) < n_tokens, np.arange(n_new) % N_ROWS, -1)
    plan = plan_of(source, target, ids)
    expected = load_model(folder).patched(plan.input_rows, plan.output_rows)
    write_and_run(plan, tmp_path / "out", probe_texts=TEXTS, expected=expected)
    written = Checkpoint.open(tmp_path / "out")
    assert (written.layout.n_rows, written.dtype) == (n_new, options["dtype"])
    np.testing.assert_array_equal(written.input_rows(), plan.input_rows)
    np.testing.assert_array_equal(written.output_rows(), plan.output_rows)
    if "shard" in options:
        index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
        assert index["metadata"]["total_size"] == written.n_bytes


def test_copied_rows_keep_their_bits_even_where_float32_would_not(
    model_of: Callable[..., Path], tmp_path: Path
) -> None:
    """A signalling NaN changes on a trip through float32 arithmetic; a copied row does not."""
    from safetensors.torch import save_file

    folder = shutil.copytree(model_of("llama", False, dtype="bfloat16"), tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"].view(torch.int16)[5, 0] = 0x7F81
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UnsafeCheckpointError, match=r"id 5.*allow-nonfinite"):
        write_and_run(_identity(folder), tmp_path / "out")
    plan = _identity(folder, allow_nonfinite=True)
    write_and_run(plan, tmp_path / "out", probe_texts=TEXTS)
    found = load_file(tmp_path / "out" / "model.safetensors")["lm_head.weight"]
    assert found.view(torch.int16)[5, 0] == 0x7F81


def test_a_new_row_is_never_written_if_it_is_not_finite(
    model_of: Callable[..., Path], tmp_path: Path
) -> None:
    folder = model_of("llama", False, dtype="float16")
    rows = Checkpoint.open(folder).input_rows()
    rows[7, 0] = 1e6  # finite in float32, not in the file's float16
    copied = np.where(np.arange(N_ROWS) == 7, -1, np.arange(N_ROWS))
    plan = _identity(folder, input_rows=rows, copied_input=copied, allow_nonfinite=True)
    with pytest.raises(UnsafeCheckpointError, match="id 7"):
        write_and_run(plan, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_rounding_beforehand_is_what_the_file_does() -> None:
    rows = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
    for dtype in ("float32", "float16", "bfloat16", "float64"):
        wanted = torch.tensor(rows).to(getattr(torch, dtype)).float().numpy()
        np.testing.assert_array_equal(round_rows(rows, dtype), wanted)


def test_users_get_the_targets_tokenizer_and_nothing_of_the_sources(
    model_of: Callable[..., Path], tmp_path: Path, permuted_vocabulary: Vocabulary,
    permutation: np.ndarray,
) -> None:  # fmt: skip
    folder = shutil.copytree(model_of("gpt_neox"), tmp_path / "model")
    for name in ("vocab.json", "merges.txt", "tokenizer.model", "modeling_x.py", "README.md"):
        (folder / name).write_text("{}")
    (folder / "LICENSE").write_text("do as you like")
    (folder / "chat_template.jinja").write_text("{% for m in x %}<|im_start|>{{ m }}</s>")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_x.X"}
    (folder / "config.json").write_text(json.dumps(config))
    plan = permuted_plan(folder, permuted_vocabulary, permutation)
    result = write_and_run(
        plan, tmp_path / "out", probe_texts=TEXTS, extra_files={"README.md": "ours"}
    )
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "LICENSE", "README.md", "chat_template.jinja", "config.json", "generation_config.json",
        "manifest.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    assert (tmp_path / "out" / "README.md").read_text() == "ours"
    assert "auto_map" not in json.loads((tmp_path / "out" / "config.json").read_text())
    stored = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert stored["tokenizer_class"] == "TokenizersBackend"
    assert stored["model_max_length"] == 32
    assert any("<|im_start|>" in warning for warning in result.warnings)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    for text in TEXTS:
        assert tokenizer(text)["input_ids"] == permuted_vocabulary.encode(text)
    assert tokenizer.eos_token_id == permutation[1]


@pytest.mark.parametrize("choice", ["source", "target", "file", None])
def test_the_chat_template_is_chosen_and_copied(
    model_of: Callable[..., Path], tmp_path: Path, choice: str | None
) -> None:
    folder = shutil.copytree(model_of(), tmp_path / "model")
    other = make_tokenizer(tmp_path / "target")
    (tmp_path / "file").write_text("from a file {{")
    (folder / "chat_template.jinja").write_text("from the source {% while")
    config = json.loads((other / "tokenizer_config.json").read_text())
    (other / "tokenizer_config.json").write_text(
        json.dumps({**config, "chat_template": "from the target"})
    )
    named = str(tmp_path / "file") if choice == "file" else choice
    plan = plan_of(
        Checkpoint.open(folder), load_vocabulary(other), np.arange(N_ROWS), chat_template=named
    )
    write_checkpoint(plan, tmp_path / "out")
    path = tmp_path / "out" / "chat_template.jinja"
    wanted = {
        "source": "from the source {% while",
        "target": "from the target",
        "file": "from a file {{",
    }
    assert (path.read_text() if path.exists() else None) == wanted.get(choice or "")
    stored = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert "chat_template" not in stored


def test_a_tokenizer_that_autotokenizer_changes_is_an_error_unless_allowed(
    model_of: Callable[..., Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(model_of("qwen2"), tmp_path / "model")
    stored = json.loads((folder / "tokenizer.json").read_text())
    stored["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [{"type": "Digits", "individual_digits": True}, stored["pre_tokenizer"]],
    }
    stored["pre_tokenizer"]["pretokenizers"][1]["use_regex"] = False
    (folder / "tokenizer.json").write_text(json.dumps(stored))
    plan = _identity(folder)
    with pytest.raises(TokenizerError, match=r"TokenizersBackend\.from_pretrained"):
        write_and_run(plan, tmp_path / "out", probe_texts=TEXTS)
    assert not (tmp_path / "out").exists()
    result = write_and_run(
        plan, tmp_path / "out", probe_texts=TEXTS, allow_autotokenizer_mismatch=True
    )
    assert any("AutoTokenizer" in warning for warning in result.warnings)


class _Stop(BaseException):
    """Stands for KeyboardInterrupt, which pytest would take for its own."""


@pytest.mark.parametrize(
    "step", ["write_tensors", "_write_configs", "tokenizer_files", "check_autotokenizer",
             "check", "_write_extra"],
)  # fmt: skip
@pytest.mark.parametrize("error", [_Stop, OSError, CheckpointError])
@pytest.mark.parametrize("existing", [False, True])
def test_a_failure_at_any_step_leaves_the_output_as_it_was(
    model_of: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    error: type[BaseException],
    existing: bool,
) -> None:
    plan = _identity(model_of())
    output = tmp_path / "out"
    if existing:
        write_checkpoint(plan, output, extra_files={"old.txt": "old"})

    def fail(*args: object, **options: object) -> None:
        raise error("no space left")

    def passes(*args: object, **options: object) -> None:
        """Stand for the checks, which have their own tests."""

    monkeypatch.setattr(writer, "check_autotokenizer", passes)
    if step != "check":
        monkeypatch.setattr(writer, step, fail)
    with pytest.raises(_Stop if error is _Stop else CheckpointError):
        write_checkpoint(plan, output, force=existing, check=fail if step == "check" else passes)
    assert [path.name for path in tmp_path.iterdir()] == (["out"] if existing else [])
    if existing:
        assert (output / "old.txt").read_text() == "old"
        assert verify_manifest(output) == []


def test_an_existing_output_is_replaced_by_force_only(
    model_of: Callable[..., Path], tmp_path: Path
) -> None:
    plan, output = _identity(model_of()), tmp_path / "out"
    write_checkpoint(plan, output, extra_files={"old.txt": "old"})
    with pytest.raises(OutputExistsError, match="--force"):
        write_checkpoint(plan, output)
    assert (output / "old.txt").exists()
    write_checkpoint(plan, output, force=True)
    assert not (output / "old.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert verify_manifest(output) == []


def test_force_replaces_checkpoints_and_nothing_else(
    model_of: Callable[..., Path], tmp_path: Path
) -> None:
    """Another tool's checkpoint is somebody's work; so is a document beside one of ours."""
    plan, output = _identity(model_of()), tmp_path / "home"
    shutil.copytree(model_of(), output)
    with pytest.raises(OutputExistsError, match=r"holds no list of ours, and config\.json"):
        write_and_run(plan, output, force=True)
    assert sorted(p.name for p in output.iterdir()) == sorted(p.name for p in model_of().iterdir())
    shutil.rmtree(output)
    write_checkpoint(plan, output)
    (output / "letters.txt").write_text("dear")
    with pytest.raises(OutputExistsError, match=r"holds letters\.txt, which manifest\.json"):
        write_and_run(plan, output, force=True)
    assert (output / "letters.txt").exists()


def test_the_output_and_the_source_may_not_lie_in_each_other(
    model_of: Callable[..., Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(model_of(), tmp_path / "a" / "model")
    plan = _identity(folder)
    (tmp_path / "a" / "config.json").write_text("{}")
    for output in (folder, folder / "out", tmp_path / "a"):
        with pytest.raises(CheckpointError, match="lie in each other"):
            write_and_run(plan, output, force=True)


def test_the_manifest_finds_one_flipped_byte(model_of: Callable[..., Path], tmp_path: Path) -> None:
    output = tmp_path / "out"
    extra = {"report.json": "{}", "surgery/tokens.json": b"[]"}
    result = write_and_run(
        _identity(model_of()), output, extra_files=extra, recipe_yaml="source: x\n", seed=3
    )
    assert verify_manifest(output) == []
    assert set(result.manifest["files"]) >= {"surgery/tokens.json", "model.safetensors"}
    assert (result.manifest["seed"], result.manifest["recipe"]) == (3, "source: x\n")
    path = output / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    (output / "modeling_evil.py").write_text("")
    (output / "report.json").unlink()
    problems = verify_manifest(output)
    assert len(problems) == 3
    assert any("model.safetensors has changed" in problem for problem in problems)


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "config.json", "manifest.json"])
def test_extra_files_stay_inside_and_replace_nothing(
    model_of: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    with pytest.raises(CheckpointError, match="extra file"):
        write_checkpoint(_identity(model_of()), tmp_path / "out", extra_files={name: "x"})
    assert not list(tmp_path.iterdir())


def test_the_same_plan_gives_the_same_bytes(model_of: Callable[..., Path], tmp_path: Path) -> None:
    plan = _identity(model_of())
    first = write_checkpoint(plan, tmp_path / "a")
    second = write_checkpoint(plan, tmp_path / "b")
    assert first.manifest == second.manifest


def test_a_model_that_computes_something_else_is_not_published(
    model_of: Callable[..., Path], tmp_path: Path
) -> None:
    folder = model_of()
    plan = _identity(folder)
    other = load_model(folder).patched(plan.input_rows, plan.output_rows * 1.01)
    with pytest.raises(CheckpointError, match="other logits"):
        write_and_run(plan, tmp_path / "out", probe_texts=TEXTS, expected=other)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("tied", [False, True])
def test_copies_that_the_model_does_not_load_are_patched_too(
    model_of: Callable[..., Path],
    tmp_path: Path,
    tied: bool,
    permuted_vocabulary: Vocabulary,
    permutation: np.ndarray,
) -> None:
    """As in files of models that predict several tokens, whose extra block has its own copies."""
    folder = shutil.copytree(model_of("llama", tied), tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    embed = tensors["model.embed_tokens.weight"]
    tensors["model.layers.2.embed_tokens.weight"] = embed.clone()
    tensors["model.layers.2.shared_head.head.weight"] = tensors.get("lm_head.weight", embed).clone()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    layout = Checkpoint.open(folder).layout
    assert len(layout.names) == 3 + (not tied)
    write_and_run(permuted_plan(folder, permuted_vocabulary, permutation), tmp_path / "out")
    made = load_file(tmp_path / "out" / "model.safetensors")
    copies = ("model.layers.2.embed_tokens.weight", "model.layers.2.shared_head.head.weight")
    wanted = (
        "model.embed_tokens.weight",
        "model.embed_tokens.weight" if tied else "lm_head.weight",
    )
    for copy, original in zip(copies, wanted, strict=True):
        assert torch.equal(made[copy], made[original])
        assert not torch.equal(made[copy], tensors[copy])
    tensors[copies[0]][3] += 1
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"layers\.2\.embed_tokens.* is not understood"):
        Checkpoint.open(folder)


def test_a_marker_that_the_file_does_not_call_special_is_no_difference(tmp_path: Path) -> None:
    folder = make_tokenizer(tmp_path / "target")
    stored = json.loads((folder / "tokenizer.json").read_text())
    marker = {**stored["added_tokens"][0], "id": N_TOKENS, "content": "<|user|>", "special": False}
    stored["added_tokens"].append(marker)
    (folder / "tokenizer.json").write_text(json.dumps(stored))
    vocabulary = load_vocabulary(folder)
    text = "a cat <|user|> a hat"
    loaded = AutoTokenizer.from_pretrained(folder)
    theirs = loaded(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert N_TOKENS in theirs
    assert N_TOKENS not in vocabulary.encode(text)
    assert check_autotokenizer(folder, vocabulary, [*TEXTS, text]) is None

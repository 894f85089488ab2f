"""Targets in files of other kinds, or with settings of their own, as a checkpoint has them."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.world import SENTENCES, make_model, make_tokenizer, plan_of
from tokensurgeon.checkpoint import Checkpoint, write_checkpoint
from tokensurgeon.checkpoint.draft_target import big_rows
from tokensurgeon.checkpoint.recheck import recheck
from tokensurgeon.checkpoint.verify import check_autotokenizer
from tokensurgeon.vocabulary import Vocabulary, load_vocabulary


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_tokenizer(tmp_path_factory.mktemp("model"))
    return make_model(folder, noise=0.2)


def written(model: Path, target: Vocabulary, out: Path) -> Path:
    """Write a checkpoint whose rows for the target are new, and its first rows copied."""
    source_ids = np.arange(target.n_rows)
    source_ids[200:] = -1
    plan = plan_of(Checkpoint.open(model), target, source_ids)
    write_checkpoint(plan, out, probe_texts=SENTENCES)
    return out


def change(file: Path, part: str, **values: object) -> None:
    document = json.loads(file.read_text("utf-8"))
    whole = {**document, part: {**(document[part] or {}), **values}}
    file.write_text(json.dumps(whole), "utf-8")


def test_dropout_of_a_target_is_not_written(model: Path, tmp_path: Path) -> None:
    target = make_tokenizer(tmp_path / "target")
    change(target / "tokenizer.json", "model", dropout=0.9)
    # AutoTokenizer is compared with the target when it is written: an error where ids differ.
    out = written(model, load_vocabulary(target), tmp_path / "out")
    stored = json.loads((out / "tokenizer.json").read_text("utf-8"))
    assert stored["model"]["dropout"] is None
    assert load_vocabulary(out).notes == ()
    assert json.loads((target / "tokenizer.json").read_text("utf-8"))["model"]["dropout"] == 0.9


def test_verify_says_that_a_file_drops_merges(model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "model"))
    change(folder / "tokenizer.json", "model", dropout=0.9)
    problems = recheck(folder, without_manifest=True).problems
    (problem,) = [one for one in problems if "AutoTokenizer" in one]
    assert "drops merges at random" in problem
    assert problem.endswith("set dropout to null in tokenizer.json")


@pytest.mark.parametrize("token", [5, {"lstrip": False}, "<nope>"])
def test_a_configuration_that_no_class_reads_right_is_blamed(
    model: Path, tmp_path: Path, token: object
) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "model"))
    stored = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    (folder / "tokenizer_config.json").write_text(json.dumps({**stored, "eos_token": token}))
    problem = check_autotokenizer(folder, load_vocabulary(model), SENTENCES) or ""
    advice = "; correct tokenizer_config.json, which names its class and special tokens"
    assert problem.endswith(advice)


def test_a_folder_with_a_table_of_ranks_is_a_target_to_draft_for(
    model: Path, tmp_path: Path
) -> None:
    target = tmp_path / "big"
    target.mkdir()
    tokens = [*(bytes([i]) for i in range(256)), b"th", b"the", b" the"]
    lines = [f"{base64.b64encode(token).decode()} {i}\n" for i, token in enumerate(tokens)]
    (target / "tiktoken.model").write_text("".join(lines))
    added = {str(259 + i): {"content": name} for i, name in enumerate(("[BOS]", "[EOS]"))}
    own = {"tokenizer_class": "Own", "bos_token": "[BOS]", "eos_token": "[EOS]"}
    (target / "tokenizer_config.json").write_text(
        json.dumps({**own, "added_tokens_decoder": added})
    )
    (target / "config.json").write_text('{"model_type": "llama", "vocab_size": 300}')
    vocabulary = load_vocabulary(target)
    assert big_rows(str(target), vocabulary) == 300
    out = written(model, vocabulary, tmp_path / "out")
    again = load_vocabulary(out)
    assert again.fingerprint == vocabulary.fingerprint
    assert (again.bos_id, again.eos_id) == (259, 260)


def test_verify_finds_an_id_put_around_texts_that_is_none(model: Path, tmp_path: Path) -> None:
    out = written(model, load_vocabulary(make_tokenizer(tmp_path / "target")), tmp_path / "out")
    assert not recheck(out).problems
    post = {"type": "BertProcessing", "cls": ["<s>", 0], "sep": ["</s>", 900]}
    change(out / "tokenizer.json", "post_processor", **post)
    problems = recheck(out).problems
    assert any("'</s>' around texts as id 900, which is no id" in line for line in problems)

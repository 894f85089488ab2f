"""What engines compare of a draft and a big model, on real tiny checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.world import byte_level_bpe, make_model, save_tokenizer
from tokensurgeon import transplant
from tokensurgeon.checkpoint.draft_engines import engine_rules
from tokensurgeon.cli.main import main

TEXT = "stone river winter garden silver morning letter window " * 40


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A big model with padded rows."""
    folder = make_model(tmp_path_factory.mktemp("big") / "big", n_rows=640, width=32, seed=1)
    save_tokenizer(byte_level_bpe(340, ("<s>",), [TEXT]), folder, bos_token="<s>")
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model of another vocabulary."""
    folder = make_model(
        tmp_path_factory.mktemp("small") / "small", "gpt2", 300, tied=True, width=32
    )
    save_tokenizer(byte_level_bpe(300, ("<s>",)), folder, bos_token="<s>")
    return folder


def broken(draft: Path, big: Path) -> dict[str, str | None]:
    return {rule.engine: rule.broken for rule in engine_rules(draft, big)}


def test_a_draft_that_was_made_for_it_is_taken_by_all(
    small: Path, big: Path, tmp_path: Path
) -> None:
    mean = {"input": "subword-mean", "output": "subword-mean"}
    transplant(source=small, for_draft=big, output=tmp_path / "draft", init=mean)
    rules = engine_rules(tmp_path / "draft", big)
    assert [rule.engine for rule in rules] == ["transformers", "vLLM", "SGLang", "llama.cpp"]
    assert all(rule.holds for rule in rules)


def test_a_draft_without_the_padding_is_refused_for_its_size(
    small: Path, big: Path, tmp_path: Path
) -> None:
    mean = {"input": "subword-mean", "output": "subword-mean"}
    transplant(source=small, tokenizer=big, output=tmp_path / "draft", init=mean)
    found = broken(tmp_path / "draft", big)
    assert all("640" in str(reason) for reason in found.values())  # 128 may differ, 299 do


def test_another_text_for_an_id_is_named(small: Path, big: Path) -> None:
    found = broken(small, big)
    assert "300 in the draft and 640" in str(found["vLLM"])
    assert broken(big, big) == dict.fromkeys(found)


def test_llama_cpp_takes_a_few_rows_more_and_the_first_ids_as_they_are(
    big: Path, tmp_path: Path
) -> None:
    draft = make_model(tmp_path / "draft", n_rows=512, width=32, seed=2)
    save_tokenizer(byte_level_bpe(340, ("<a>",), [TEXT]), draft, bos_token="<a>")
    found = broken(draft, big)
    assert found["llama.cpp"] is None
    assert "vocab_size is 512" in str(found["SGLang"])


def test_another_start_is_named(big: Path, tmp_path: Path) -> None:
    from tokenizers.processors import TemplateProcessing

    draft = make_model(tmp_path / "draft", n_rows=640, width=32, seed=2)
    tokenizer = byte_level_bpe(340, ("<s>",), [TEXT])
    tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    save_tokenizer(tokenizer, draft, bos_token="<s>")
    found = broken(draft, big)
    assert found["transformers"] is None
    assert "a text stands between the ids ([0], [])" in str(found["llama.cpp"])


@pytest.mark.parametrize("as_json", [True, False])
def test_the_command_says_which_engines_take_the_draft(
    small: Path, big: Path, tmp_path: Path, as_json: bool
) -> None:
    asked = ["transplant", str(small), "--for-draft", str(big), "-o", str(tmp_path / "draft")]
    asked += ["--init", "subword-mean", "--calibrate", "none", *(["--json"] if as_json else [])]
    result = CliRunner().invoke(main, asked)
    assert result.exit_code == 0, result.output
    engines = [rule.engine for rule in engine_rules(tmp_path / "draft", big)]
    if as_json:
        facts = json.loads(result.stdout)["engines"]
        assert [one["engine"] for one in facts] == engines
        assert all(one["broken"] is None for one in facts)
    else:
        assert all(f"{name}: takes the draft" in result.stdout for name in engines)

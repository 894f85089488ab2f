"""`tokensurgeon align`: what it prints, as a table and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.vocabulary.tiny_tokenizers import TINY
from tokensurgeon.alignment import align
from tokensurgeon.cli.align import command
from tokensurgeon.cli.recipe_options import parse_pair
from tokensurgeon.errors import UnknownNameError
from tokensurgeon.vocabulary import load_vocabulary


@pytest.fixture
def pair(tmp_path: Path) -> list[str]:
    for name in ("byte_level", "sentencepiece_bpe"):
        (tmp_path / name).mkdir()
        TINY[name]().save(str(tmp_path / name / "tokenizer.json"))
    return [str(tmp_path / "byte_level"), str(tmp_path / "sentencepiece_bpe")]


def run(*arguments: str) -> str:
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_table_says_what_is_shared_and_missing(pair: list[str], tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat\n")
    out = run(*pair, "--text", str(text))
    for word in ("shared", "missing", "unmatched controls", "bytes per token", "Missing, for"):
        assert word in out


def test_json_counts_every_id(pair: list[str]) -> None:
    data = json.loads(run(*pair, "--json", "--examples", "3"))
    parts = ("shared", "missing", "unmatched_controls", "padding")
    assert sum(data[part] for part in parts) == data["target_rows"]
    assert len(data["missing_examples"]) == 3
    assert data["text"] is None


def test_what_the_target_keeps_of_the_sources_boundaries(pair: list[str], tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat, the dog did not\n")
    source, target = (load_vocabulary(one) for one in pair)
    words = text.read_text()
    cuts = [
        {int(end) for end in vocabulary.encode_with_bytes(words).ends if 0 < end < len(words)}
        for vocabulary in (source, target)
    ]
    data = json.loads(run(*pair, "--text", str(text), "--json"))["text"]
    both = cuts[0] & cuts[1]
    assert [data[f"{side}_boundaries"] for side in ("source", "target")] == list(map(len, cuts))
    assert data["known_boundary_share"] == pytest.approx(len(both) / len(cuts[1]))
    assert data["boundary_agreement"] == pytest.approx(len(both) / len(cuts[0] | cuts[1]))
    assert data["boundary_share"] == pytest.approx(len(both) / len(cuts[0]))
    missing = set(align(source, target).missing.tolist())
    ids = target.encode(words)
    shared = [i not in missing for i in ids]
    assert data["shared_token_share"] == pytest.approx(sum(shared) / len(ids))
    out = run(*pair, "--text", str(text))
    assert f"Of the {len(cuts[0])} places where the source parts two tokens" in out
    same = json.loads(run(pair[0], pair[0], "--text", str(text), "--json"))["text"]
    assert same["boundary_share"] == same["shared_token_share"] == 1


def test_a_map_is_counted(pair: list[str]) -> None:
    data = json.loads(run(*pair, "--json", "--map", "<s>=<|im_start|>"))
    assert data["by_match"]["map"] == 1


def test_a_map_of_an_unknown_spelling_is_an_error(pair: list[str]) -> None:
    with pytest.raises(UnknownNameError, match="nearest"):
        run(*pair, "--map", "<sss>=<|im_start|>")


def test_one_vocabulary_is_said_to_be_one(pair: list[str]) -> None:
    assert "the same ids" in run(pair[0], pair[0])


def test_a_map_is_split_at_the_first_sign_that_leaves_no_side_empty() -> None:
    assert parse_pair("<s>=<|x|>") == ("<s>", "<|x|>")
    assert parse_pair("===") == ("=", "=")
    for wrong in ("=a", "a=", "a", ""):
        with pytest.raises(Exception, match="not TARGET=SOURCE"):
            parse_pair(wrong)

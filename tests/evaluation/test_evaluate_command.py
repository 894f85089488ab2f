"""``tokensurgeon evaluate``: figures on stdout, one line of error, code 3 beyond a bound."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from tokensurgeon.cli.main import main
from tokensurgeon.evaluation import evaluate_checkpoint


def run(*arguments):
    return CliRunner().invoke(main, ["evaluate", *map(str, arguments)])


def test_json_holds_what_the_library_measures(tiny_source, tiny_donor, tiny_text):
    result = run(tiny_donor, tiny_text, "--against", tiny_source, "--json")
    assert result.exit_code == 0, result.output
    expected = evaluate_checkpoint(tiny_donor, [tiny_text], tiny_source).to_dict()
    assert json.loads(result.stdout) == json.loads(json.dumps(expected))
    assert [e["name"] for e in expected["entries"]] == [str(tiny_source), str(tiny_donor)]
    assert set(expected["entries"][1]["by_match"]) == {"shared", "missing"}


def test_the_table_shows_the_headline(tiny_source, tiny_text):
    result = run(tiny_source, tiny_text, "--generate", "1")
    assert result.exit_code == 0, result.output
    measured = evaluate_checkpoint(tiny_source, [tiny_text]).entries[0]
    assert f"{measured.bits_per_byte:.4f}" in result.stdout
    assert "bytes per token, generated" in result.stdout


def test_a_checkpoint_against_itself_rises_by_nothing(tiny_source, tiny_text):
    result = run(tiny_source, tiny_text, "--against", tiny_source, "--max-rise", "0")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(("bound", "code"), [("100", 0), ("-100", 3)])
def test_a_rise_beyond_the_bound_ends_with_code_three(
    tiny_source, tiny_donor, tiny_text, bound, code
):
    result = run(tiny_donor, tiny_text, "--against", tiny_source, "--max-rise", bound)
    assert result.exit_code == code
    assert "bits per byte" in result.stdout
    if code:
        assert "--max-rise allows -100" in result.stderr


def test_a_bound_needs_something_to_rise_above(tiny_source, tiny_text):
    result = run(tiny_source, tiny_text, "--max-rise", "0.1")
    assert result.exit_code == 2
    assert "--max-rise needs --against" in result.stderr


def test_a_missing_text_is_one_line(tiny_source):
    result = run(tiny_source, "nowhere.txt")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "there is no text file nowhere.txt" in result.stderr


def test_a_third_partys_model_costs_what_others_measured(assets):
    """0.894 bits per byte on the first 511 tokens of each of 150 stories."""
    from tokensurgeon.text.corpus import corpus_of_texts, read_corpus

    stories = read_corpus([assets / "corpora" / "tinystories-valid.json"]).texts[:150]
    result = evaluate_checkpoint(
        assets / "models" / "stories260K", corpus_of_texts(stories), chunk_bytes=1000
    )
    assert result.entries[0].bits_per_byte == pytest.approx(0.894, abs=0.004)
    assert result.n_too_long == 0

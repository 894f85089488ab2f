"""``tokensurgeon evaluate``: figures on stdout, one line of error, code 3 beyond a bound."""

from __future__ import annotations

import gzip
import json
import shutil

import pytest
from click.testing import CliRunner

from tokensurgeon.cli.main import main
from tokensurgeon.evaluation import EntryResult, evaluate_checkpoint


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


def test_exact_bytes_stand_beside_the_canonical_figure_and_are_never_worse(
    tiny_source, tiny_donor, tiny_text
):
    result = run(tiny_donor, tiny_text, "--against", tiny_source, "--exact-bytes", "90", "--json")
    assert result.exit_code == 0, result.output
    written = json.loads(result.stdout)
    for entry in written["entries"]:
        exact = entry["exact_bytes"]
        assert exact["n_bytes"] == 90
        assert exact["bits_per_byte"] <= exact["at_most"] <= exact["canonical"] + 1e-6
        assert exact["bits_per_byte"] <= exact["spelled"]
    table = run(tiny_donor, tiny_text, "--exact-bytes", "90")
    assert f"{written['entries'][1]['exact_bytes']['bits_per_byte']:.4f}" in table.stdout
    entries = map(EntryResult.from_dict, written["entries"])
    assert [entry.to_dict()["exact_bytes"] for entry in entries] == [
        entry["exact_bytes"] for entry in written["entries"]
    ]


def test_exact_bytes_need_a_causal_model_with_a_start(tiny_source, tiny_text, tmp_path):
    folder = shutil.copytree(tiny_source, tmp_path / "bare")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    names = {"bos_token": None, "eos_token": None}
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, **names}))
    result = run(folder, tiny_text, "--exact-bytes", "9")
    assert result.exit_code == 1
    assert "neither BOS nor EOS" in result.stderr


def test_exact_bytes_are_about_a_text(tiny_source):
    result = run(tiny_source, "--tasks", "t", "--exact-bytes", "9")
    assert result.exit_code == 2
    assert "--exact-bytes is about a text" in result.stderr


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


def test_text_in_another_encoding_is_refused_or_counted_in_table_and_json(tiny_source, tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes("né à né à la carte ".encode("latin-1") * 30)
    refused = run(tiny_source, path)
    assert refused.exit_code == 1
    assert refused.stderr.count("\n") == 1
    assert "is no text: of 570 characters 120 are not UTF-8" in refused.stderr
    for arguments, said in (
        ([], "120 characters of the text that was read are not UTF-8"),
        (["--json"], '"replaced_characters": 120'),
    ):
        result = run(tiny_source, path, "--allow-invalid-text", *arguments)
        assert result.exit_code == 0, result.output
        assert said in " ".join(result.stdout.split())


def test_a_few_broken_bytes_are_said_and_no_reason_to_refuse(tiny_source, tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"one \xff byte " + b"in a text that is plain " * 40)
    result = run(tiny_source, path)
    assert result.exit_code == 0, result.output
    assert "1 characters of the text that was read are not UTF-8" in " ".join(result.stdout.split())


def test_no_more_of_a_packed_text_is_read_than_is_measured_on(tiny_source, tmp_path):
    """The figures are those of the whole file, though its second half is cut off."""
    text = "".join(f"Line {i} of a text of many lines.\n" for i in range(60_000))
    whole, half = tmp_path / "whole.txt", tmp_path / "half.txt.gz"
    whole.write_text(text)
    data = gzip.compress(text.encode())
    half.write_bytes(data[: len(data) // 2])
    figures = [
        evaluate_checkpoint(tiny_source, [path], max_bytes=2000).to_dict()["entries"][0]
        for path in (whole, half)
    ]
    assert figures[0] == figures[1]


def test_a_third_partys_model_costs_what_others_measured(assets):
    """0.894 bits per byte on the first 511 tokens of each of 150 stories."""
    from tokensurgeon.text.corpus import corpus_of_texts, read_corpus

    stories = read_corpus([assets / "corpora" / "tinystories-valid.json"]).texts[:150]
    result = evaluate_checkpoint(
        assets / "models" / "stories260K", corpus_of_texts(stories), chunk_bytes=1000
    )
    assert result.entries[0].bits_per_byte == pytest.approx(0.894, abs=0.004)
    assert result.n_too_long == 0


def test_dropout_that_is_off_while_a_model_is_measured_is_said_once(
    tiny_source, tiny_text, tmp_path
):
    dropping = tmp_path / "dropping"
    shutil.copytree(tiny_source, dropping)
    document = json.loads((dropping / "tokenizer.json").read_text("utf-8"))
    document["model"]["dropout"] = 0.3
    (dropping / "tokenizer.json").write_text(json.dumps(document), "utf-8")
    result = run(dropping, tiny_text, "--against", dropping)
    assert result.exit_code == 0, result.output
    assert " ".join(result.stdout.split()).count("dropping stores a BPE dropout of 0.3") == 1
    (note,) = json.loads(run(dropping, tiny_text, "--json").stdout)["notes"]
    assert "it is off here" in note
    assert "notes" in json.loads(run(tiny_source, tiny_text, "--json").stdout)

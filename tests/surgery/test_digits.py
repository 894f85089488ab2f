"""Transplants that give the target the source's cut of digits."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from tokenizers import pre_tokenizers
from transformers import AutoTokenizer

from tests.world import SENTENCES, byte_level_bpe, make_model, save_tokenizer
from tokensurgeon.cli.main import main
from tokensurgeon.errors import RecipeError, TokenizerError
from tokensurgeon.recipe import Recipe
from tokensurgeon.report import SurgeryReport, model_card
from tokensurgeon.report.records import Records
from tokensurgeon.surgery import transplant
from tokensurgeon.surgery.row_origins import UNREACHED
from tokensurgeon.vocabulary import load_vocabulary

NUMBERS = tuple(f"In {n} there were {n * 37} rows, {n / 8:.3f} of them new.\n" for n in range(90))
ROLES = {"bos_token": "<s>", "eos_token": "</s>"}
MEAN = {"input": "subword-mean", "output": "subword-mean"}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return a source that cuts single digits, a target that merges them, and text."""
    folder = tmp_path_factory.mktemp("digits")
    names = tuple(ROLES.values())
    single = byte_level_bpe(290, names)
    single.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), single.pre_tokenizer]
    )
    tokenizer = save_tokenizer(single, folder / "single", **ROLES)
    target = byte_level_bpe(400, names, [*SENTENCES, *NUMBERS])
    (folder / "text.txt").write_text("".join(NUMBERS[:40]))
    (folder / "words.txt").write_text("There is no such thing in here. " * 40)
    return {
        "source": str(make_model(folder / "source", tokenizer=tokenizer, noise=0.1)),
        "tokenizer": str(save_tokenizer(target, folder / "target", **ROLES)),
        "text": str(folder / "text.txt"),
        "words": str(folder / "words.txt"),
        "folder": str(folder),
    }


@pytest.fixture(scope="module")
def report(pair: dict[str, str]) -> SurgeryReport:
    return transplant(
        source=pair["source"],
        tokenizer=pair["tokenizer"],
        digits="source",
        init=MEAN,
        output=pair["folder"] + "/out",
        text={"evaluation": [pair["text"]]},
    ).report


def test_the_patched_tokenizer_cuts_as_the_source(
    pair: dict[str, str], report: SurgeryReport
) -> None:
    out = Path(pair["folder"]) / "out"
    before, after = load_vocabulary(pair["tokenizer"]), load_vocabulary(out)
    assert (before.number_scheme, after.number_scheme) == ("any", "single")
    assert after.spellings == before.spellings
    assert report.alignment["number_schemes"] == {"source": "single", "target": "single"}
    assert not any("arithmetic" in line for line in report.warnings)
    text = NUMBERS[7] + "x12345"
    ids = AutoTokenizer.from_pretrained(out).encode(text, add_special_tokens=False)
    assert ids == after.encode(text)
    assert after.decode(ids) == text
    assert all(len(re.findall(rb"\d", after.bytes_of([i]))) <= 1 for i in ids)


def test_tokens_that_are_no_longer_written_get_no_row_of_a_method(
    pair: dict[str, str], report: SurgeryReport
) -> None:
    result = transplant(
        source=pair["source"], tokenizer=pair["tokenizer"], digits="source", init=MEAN
    )
    assert result.rows is not None
    target, output = result.alignment.target, result.rows.output
    lost = np.flatnonzero(output.origin == UNREACHED)
    long = {i for i in result.alignment.missing if re.search(rb"\d\d", target.token_bytes[i])}
    assert long <= set(lost.tolist())
    assert all(re.search(rb"\d", target.token_bytes[i]) for i in lost)
    assert len(np.unique(output.rows[lost], axis=0)) == 1
    for side in (report.input, report.output):
        assert side.unreached == lost.size > 0
        assert side.copied + side.initialised + side.fallback == report.rows.total
    note = next(line for line in report.warnings if "never written any more" in line)
    assert f"{lost.size} of them missing" in note
    assert f"{lost.size:,} that are never written" in model_card(report)
    story = Records(Path(pair["folder"]) / "out").explain(int(lost[0]))
    assert [side.origin for side in story.sides] == ["unreached", "unreached"]


def test_the_loss_on_numbers_is_told_before_and_after(
    pair: dict[str, str], report: SurgeryReport
) -> None:
    assert report.evaluation is not None
    n_digits = len(re.findall(r"\d", "".join(NUMBERS[:40])))
    numbers = {entry["name"]: entry["numbers"] for entry in report.evaluation["entries"]}
    assert {one["digits"] for one in numbers.values()} == {n_digits}
    bits = [f"{numbers[name]['bits_per_digit']:.4f}" for name in ("source", "patched")]
    line = f"Numbers: {bits[0]} bits per digit in the source, {bits[1]} patched"
    assert line in model_card(report)
    arguments = ["evaluate", pair["folder"] + "/out", pair["text"], "--against", pair["source"]]
    shown = CliRunner().invoke(main, arguments)
    assert re.search(rf"bits per digit +{bits[0]} +{bits[1]}", shown.output)
    arguments[2] = pair["words"]
    assert "bits per digit" not in CliRunner().invoke(main, arguments).output


def test_without_the_option_the_target_stays_as_it_is(pair: dict[str, str]) -> None:
    out = Path(pair["folder"]) / "plain"
    plain = transplant(
        source=pair["source"], tokenizer=pair["tokenizer"], init=MEAN, output=str(out)
    ).report
    given = Path(pair["tokenizer"]) / "tokenizer.json"
    assert (out / "tokenizer.json").read_bytes() == given.read_bytes()
    assert plain.output.unreached == 0
    assert any("arithmetic" in line for line in plain.warnings)


def test_what_cannot_be_done_is_refused(pair: dict[str, str]) -> None:
    source = pair["source"]
    same = transplant(source=source, tokenizer=source, digits="source", init=MEAN).report
    assert same.output.unreached == 0  # cut so already
    with pytest.raises(RecipeError, match="'for_draft' cuts digits"):
        Recipe.parse({"source": "a", "for_draft": "b", "digits": "source"})
    other = Path(pair["folder"]) / "other"
    make_model(other, n_rows=400, tokenizer=Path(pair["tokenizer"]))
    with pytest.raises(TokenizerError, match="leave 'digits' at 'target'"):
        transplant(source=str(other), tokenizer=source, digits="source", init=MEAN)


def test_the_command_takes_it(pair: dict[str, str]) -> None:
    arguments = ["transplant", pair["source"], "--tokenizer", pair["tokenizer"]]
    arguments += ["--digits", "source", "--init", "mean", "--dry-run", "--json"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["output"]["unreached"] > 0

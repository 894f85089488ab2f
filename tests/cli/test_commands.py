"""transplant and compare from the command line, on a tiny real pair; wrong inputs write nothing."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from safetensors.numpy import load_file, save_file

from tokensurgeon.cli.main import main
from tokensurgeon.report import SurgeryReport


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def done(
    tmp_path_factory: pytest.TempPathFactory, tiny_source: Path, tiny_donor: Path, tiny_text: Path
) -> tuple[Path, Result]:
    """A surgery with everything, and what it printed."""
    output = tmp_path_factory.mktemp("done") / "patched"
    result = run(
        "transplant", tiny_source, "--donor", tiny_donor, "-o", output, "--text", tiny_text,
        "--set", "omp.k=4", "--baseline", "mean",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    return output, result


def test_a_transplant_prints_its_table_on_stdout_and_nothing_on_stderr(
    done: tuple[Path, Result],
) -> None:
    output, result = done
    assert result.stderr == ""
    for word in ("bits/byte", "source", "patched: auto", "mean", f"{output}"):
        assert word in result.stdout, word


def test_a_transplant_leaves_a_report_a_card_and_records(done: tuple[Path, Result]) -> None:
    output, _ = done
    report = SurgeryReport.from_json((output / "report.json").read_text("utf-8"))
    assert report.input.method == "auto"
    assert report.recipe["init"]["settings"] == {"omp": {"k": 4}}
    assert "bits per byte" in (output / "README.md").read_text("utf-8")
    assert (output / "surgery" / "tokens.json").is_file()


def test_every_row_of_a_patched_checkpoint_can_be_explained(done: tuple[Path, Result]) -> None:
    output, _ = done
    report = SurgeryReport.from_json((output / "report.json").read_text("utf-8"))
    made = json.loads((output / "new_token_ids.json").read_text("utf-8"))["new_token_ids"]
    assert made
    for token in (0, made[0], made[-1], report.rows.used - 1):
        result = run("explain", output, token)
        assert result.exit_code == 0, result.stderr
        assert "input: " in result.stdout
        assert "output: " in result.stdout


def test_a_recipe_and_options_make_the_same_surgery(
    done: tuple[Path, Result], tmp_path: Path, tiny_source: Path, tiny_donor: Path
) -> None:
    output, _ = done
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"source: {tiny_source}\ndonor: {tiny_donor}\noutput: here\n", "utf-8")
    result = run("transplant", "--recipe", recipe, "--set", "init.k=4", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["recipe"]["output"] == str(tmp_path / "here")
    same = "model.safetensors"
    assert (tmp_path / "here" / same).read_bytes() == (output / same).read_bytes()


def test_a_dry_run_writes_nothing(tmp_path: Path, tiny_source: Path, tiny_donor: Path) -> None:
    result = run(
        "transplant", tiny_source, "--donor", tiny_donor, "-o", tmp_path / "a", "--dry-run"
    )
    assert result.exit_code == 0, result.stderr
    assert "dry run" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_exists_is_replaced_only_with_force_and_only_if_it_is_a_checkpoint(
    tmp_path: Path, tiny_source: Path, tiny_donor: Path
) -> None:
    output = tmp_path / "mine"
    output.mkdir()
    (output / "precious").write_text("mine")
    arguments = ["transplant", tiny_source, "--tokenizer", tiny_donor, "--init", "mean", "-o"]
    for flags in ([], ["--force"]):
        result = run(*arguments, output, *flags)
        assert result.exit_code == 2
        assert "--force" in result.stderr
        assert [path.name for path in output.iterdir()] == ["precious"]
    assert run(*arguments, tmp_path / "new").exit_code == 0
    assert run(*arguments, tmp_path / "new").exit_code == 2
    assert run(*arguments, tmp_path / "new", "--force").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "no SOURCE"),
        (["SOURCE"], 2, "no target: give 'tokenizer', or a 'donor'"),
        (["SOURCE", "--tokenizer", "DONOR"], 2, "no output: give -o DIR, or --dry-run"),
        (["SOURCE", "--tokenizer", "DONOR", "-o", "OUT", "--init", "opm"], 2, "omp"),
        (["SOURCE", "--tokenizer", "DONOR", "-o", "OUT", "--set", "omp.kk=3"], 2, "k"),
        (["SOURCE", "--tokenizer", "DONOR", "-o", "OUT", "--init", "omp"], 1, "donor"),
        (["EMPTY", "--tokenizer", "DONOR", "-o", "OUT"], 1, "empty has no"),
        (["SOURCE", "--tokenizer", "EMPTY", "-o", "OUT"], 1, "tokenizer.json"),
        (["SOURCE", "--tokenizer", "DONOR", "-o", "OUT", "--donor", "EMPTY"], 1, "empty has no"),
        (["SOURCE", "--tokenizer", "DONOR", "-o", "OUT", "--text", "NONE"], 1, "none.txt"),
        (["SOURCE", "--tokenizer", "DONOR", "-o", "OUT", "--text", "BLANK"], 1, ""),
        (["--recipe", "NONE"], 2, "cannot read the recipe"),
        (["--recipe", "BLANK"], 2, "holds no mapping"),
        (["SOURCE", "--tokenizer", "DONOR", "-o", "OUT", "--map", "no such=<s>"], 2, "no such"),
        (["SOURCE", "--tokenizer", "DONOR", "-o", "OUT", "--plugin", "NONE"], 1, "none.txt"),
    ],
)
def test_a_wrong_input_is_one_line_and_nothing_is_written(
    tmp_path: Path,
    tiny_source: Path,
    tiny_donor: Path,
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    empty, blank = tmp_path / "empty", tmp_path / "blank.txt"
    empty.mkdir()
    blank.write_text("")
    names = {
        "SOURCE": tiny_source, "DONOR": tiny_donor, "OUT": tmp_path / "out", "EMPTY": empty,
        "BLANK": blank, "NONE": tmp_path / "none.txt",
    }  # fmt: skip
    result = run("transplant", *(names.get(argument, argument) for argument in arguments))
    assert message in result.stderr
    assert result.stderr.count("\n") == 1, result.stderr
    assert "unexpected" not in result.stderr
    assert result.exit_code == code
    assert result.stdout == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["blank.txt", "empty"]


def test_a_comparison_puts_the_source_first_and_then_sorts(
    tmp_path: Path, tiny_source: Path, tiny_donor: Path, tiny_text: Path
) -> None:
    table = tmp_path / "table.csv"
    result = run(
        "compare", tiny_source, "--tokenizer", tiny_donor, "--text", tiny_text,
        "--methods", "mean,subword-mean,omp,subword-last/subword-first", "--json", "--csv", table,
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    rows = json.loads(result.stdout)["rows"]
    assert rows[0]["method"] == "source"
    assert rows[-1]["method"] == "omp"
    assert "donor" in rows[-1]["error"]
    measured = [row["bits_per_byte"] for row in rows[1:-1]]
    assert measured == sorted(measured)
    assert len(measured) == 3
    assert all(row["gap"] is not None and row["interval"] is not None for row in rows[1:-1])
    with table.open(encoding="utf-8") as file:
        assert [row["method"] for row in csv.DictReader(file)] == [row["method"] for row in rows]
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


def test_a_comparison_as_a_table_names_the_reason_of_a_failure(
    tiny_source: Path, tiny_donor: Path, tiny_text: Path
) -> None:
    result = run(
        "compare", tiny_source, "--tokenizer", tiny_donor, "--text", tiny_text,
        "--methods", "mean,omp",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert "\nomp: " in result.stdout
    assert "mean" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no text to compare on"),
        (["--text", "TEXT", "--methods", ","], "names no method"),
        (["--text", "TEXT", "--methods", "mean,mean"], "twice"),
        (["--text", "TEXT", "--csv", "FULL"], "exists already"),
        (["--text", "TEXT", "--csv", "nowhere/at/all.csv"], "no folder nowhere/at"),
    ],
)
def test_a_wrong_comparison_is_one_line(
    tiny_source: Path, tiny_donor: Path, tiny_text: Path, arguments: list[str], message: str
) -> None:
    names = {"TEXT": str(tiny_text), "FULL": str(tiny_text)}
    result = run(
        "compare", tiny_source, "--tokenizer", tiny_donor, *(names.get(a, a) for a in arguments)
    )
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["evaluate", "TEXT", "MODEL"], "is a file; give a checkpoint's folder in this place"),
        (["inspect", "TEXT"], "is no tokenizer file"),
        (["align", "TEXT", "MODEL"], "is no tokenizer file"),
        (["patch", "apply", "MODEL", "TEXT", "-o", "OUT"], "is a folder; give a patch file"),
        (["evaluate", "ROWS", "TEXT"], "the files hold rows of a vocabulary and no model"),
        (
            ["transplant", "MODEL", "--tokenizer", "ROWS", "--text", "nowhere.txt", "--dry-run"],
            "there is no text file nowhere.txt",
        ),
    ],
)
def test_a_path_in_the_place_of_another_is_named(
    tmp_path: Path,
    tiny_source: Path,
    tiny_donor: Path,
    tiny_text: Path,
    command: list[str],
    message: str,
) -> None:
    rows = tmp_path / "rows"
    shutil.copytree(tiny_donor, rows)
    tensors = load_file(rows / "model.safetensors")
    kept = {name: own for name, own in tensors.items() if "embed" in name or "head" in name}
    save_file(kept, rows / "model.safetensors", metadata={"format": "pt"})
    names = {"TEXT": tiny_text, "MODEL": tiny_source, "ROWS": rows, "OUT": tmp_path / "out"}
    result = run(*(names.get(word, word) for word in command))
    assert result.exit_code in (1, 2)
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_whole_of_it_in_a_process_is_silent_on_stderr(
    tmp_path: Path, tiny_source: Path, tiny_donor: Path
) -> None:
    """What libraries print when they are loaded by the command, too."""
    words = ["transplant", tiny_source, "--tokenizer", tiny_donor, "-o", tmp_path / "out"]
    command = [sys.executable, "-m", "tokensurgeon", "-q", *words, "--json"]
    command += ["--init", "subword-mean"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert json.loads(done.stdout)["output"]["method"] == "subword-mean"


@pytest.mark.parametrize("option", ["--other-text", "--calibration-text", "--text"])
@pytest.mark.parametrize("more", [["--dry-run"], ["--calibrate", "none"]])
def test_a_text_that_is_not_there_is_told_though_nothing_reads_it(
    tmp_path: Path, tiny_source: Path, tiny_donor: Path, option: str, more: list[str]
) -> None:
    words = ["transplant", tiny_source, "--tokenizer", tiny_donor, "--init", "mean", *more]
    done = run(*words, option, tmp_path / "nowhere.txt", "-o", tmp_path / "a")
    assert done.exit_code == 1
    assert "there is no text file" in done.stderr
    assert not (tmp_path / "a").exists()


def test_a_dry_run_tells_what_becomes_of_the_tokenizer(
    tmp_path: Path, tiny_source: Path, tiny_donor: Path
) -> None:
    donor = Path(shutil.copytree(tiny_donor, tmp_path / "donor"))
    (donor / "chat_template.jinja").write_text("{{ messages[0].content }}")
    done = run("transplant", tiny_source, "--tokenizer", donor, "--init", "mean", "--dry-run")
    assert done.exit_code == 0, done.output
    assert "no chat template is written: the source has none" in " ".join(done.output.split())

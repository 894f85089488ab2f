"""compare from the command line: what it keeps and what it draws."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.report.test_surgery_page import Tree
from tokensurgeon.cli.main import main
from tokensurgeon.evaluation import evaluate_checkpoints


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_a_comparison_is_kept_and_drawn(
    tmp_path: Path, tiny_source: Path, tiny_donor: Path, tiny_text: Path
) -> None:
    base = ["compare", tiny_source, "--donor", tiny_donor, "--text", tiny_text]
    base += ["--set", "omp.k=4", "--seeds", 2, "-o", tmp_path / "state"]
    first = run(*base, "--methods", "omp,random", "--plot", tmp_path / "a.html", "--floor", "0.1")
    assert first.exit_code == 0, first.stderr
    assert first.stderr == ""
    assert "random is random" in first.stdout
    assert "'subword-mean' is not compared" in first.stdout
    assert "donor rows" in first.stdout
    kept = {path.name for path in (tmp_path / "state").iterdir()}
    assert len(kept) == 1 + 2 * 2  # the source, and two seeds of two methods
    page = (tmp_path / "a.html").read_text("utf-8")
    second = run(*base, "--methods", "omp,random", "--json")
    assert second.exit_code == 0, second.stderr
    for row in json.loads(second.stdout)["rows"]:
        assert f"{row['bits_per_byte']:.4f}" in page
    assert {path.name for path in (tmp_path / "state").iterdir()} == kept


def test_the_figure_after_further_training_stands_beside_the_first_wherever_it_is_read(
    tmp_path: Path, tiny_source: Path, tiny_donor: Path, tiny_text: Path
) -> None:
    text = tmp_path / "calibration.txt"
    text.write_text("A row is read from the table, and then it is kept as it was before. " * 20)
    base = ["compare", tiny_source, "--tokenizer", tiny_donor, "--text", tiny_text]
    base += ["--calibration-text", text, "--methods", "mean,subword-mean,zero"]
    base += ["--after-steps", 2, "--after-steps-rows", "--choose-by", "after-steps"]
    files = ["--plot", tmp_path / "a.html", "--csv", tmp_path / "a.csv"]
    shown = run(*base, "-o", tmp_path / "state", *files)
    assert shown.exit_code == 0, shown.stderr
    assert "after 2 steps" in shown.stdout.splitlines()[0]
    told = json.loads(run(*base, "-o", tmp_path / "state", "--json").stdout)
    page = (tmp_path / "a.html").read_text("utf-8")
    table = (tmp_path / "a.csv").read_text("utf-8")
    facts, rows = told["facts"]["after_steps"], told["rows"]
    later = [row["after_steps"] for row in rows[1:]]
    assert later == sorted(later)
    for row in rows:
        line = next(one for one in shown.stdout.splitlines() if one.startswith(row["method"]))
        cells = [f"{row[key]:.4f}" for key in ("bits_per_byte", "after_steps")]
        assert line.split()[1:3] == cells
        assert "".join(f"<td>{cell}</td>" for cell in cells) in page.replace("\n", "")
        assert str(row["after_steps"]) in table
    correlation = "Spearman rank correlation of the two figures, 3 methods: "
    correlation += f"{facts['rank_correlation']:+z.2f}"
    best = f"best after 2 steps: {rows[1]['method']}; the table is in order of the figure after 2"
    for said in (correlation, best, "the vocabulary rows were trained", "seed 0"):
        assert said in shown.stdout
        assert said in page
    assert page.count(correlation) == 2  # in the picture too


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "mean+fold"], "+calibration, +heal=MINUTES"),
        (["--methods", "maen"], "did you mean 'mean'"),
        (["--plot", "nowhere/a.png"], "no folder nowhere"),
        (["--plot", "a.pdf"], "must end in .png"),
        (["--trained-limit", "low"], "is no trained limit"),
        (["--floor", "low"], "is no trained limit"),
        (["--seeds", "0"], "seeds"),
        (["--after-steps", "5"], "give --calibration-text"),
        (["--after-steps", "-5"], "after-steps"),
        (["--after-steps", "5", "--after-steps-rate", "0"], "give a number above 0"),
        (["--choose-by", "after-steps"], "give --after-steps N"),
        (["--choose-by", "luck"], "'bits-per-byte', 'after-steps'"),
        (["--state", "TEXT"], "name another folder"),
    ],
)
def test_a_wrong_comparison_is_one_line(
    tiny_source: Path, tiny_donor: Path, tiny_text: Path, arguments: list[str], message: str
) -> None:
    result = run(
        "compare", tiny_source, "--tokenizer", tiny_donor, "--text", tiny_text,
        *(str(tiny_text) if argument == "TEXT" else argument for argument in arguments),
    )  # fmt: skip
    assert result.exit_code == 2, result.stderr
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_a_checkpoint_is_no_place_for_what_was_measured(
    tmp_path: Path, tiny_source: Path, tiny_donor: Path, tiny_text: Path
) -> None:
    copy = Path(shutil.copytree(tiny_source, tmp_path / "model"))
    before = sorted(path.name for path in copy.iterdir())
    words = ["compare", tiny_source, "--tokenizer", tiny_donor, "--text", tiny_text]
    done = run(*words, "--methods", "mean", "-o", copy, "--force")
    assert done.exit_code == 2
    assert "holds a checkpoint or a tokenizer (config.json); name a folder" in done.stderr
    assert sorted(path.name for path in copy.iterdir()) == before


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, tiny_source: Path, tiny_donor: Path
) -> list[Path]:
    """Three checkpoints: the source, another model, and the source again under another name."""
    folder = tmp_path_factory.mktemp("finished")
    made = {"source": tiny_source, "other": tiny_donor, "twin": tiny_source}
    return [Path(shutil.copytree(path, folder / name)) for name, path in made.items()]


@pytest.fixture(scope="module")
def two_files(tmp_path_factory: pytest.TempPathFactory, tiny_text: Path) -> list[Path]:
    folder = tmp_path_factory.mktemp("files")
    lines = tiny_text.read_text("utf-8").splitlines()
    paths = [folder / "flores-en.jsonl", folder / "deu_Latn.jsonl"]
    for path, own in zip(paths, (lines[:6], lines[6:]), strict=True):
        path.write_text("\n".join(own), "utf-8")
    return paths


def test_finished_checkpoints_stand_beside_the_source_in_one_table(
    finished: list[Path], two_files: list[Path], tmp_path: Path
) -> None:
    source, other, twin = finished
    words = ["compare", source, "--checkpoints", f"{other},{twin}", "--by", "language"]
    words += [part for path in two_files for part in ("--text", path)]
    files = ["--plot", tmp_path / "a.html", "--csv", tmp_path / "a.csv"]
    done = run(*words, *files)
    assert done.exit_code == 0, done.stderr
    told = json.loads(run(*words, "--json").stdout)
    rows = {row["method"]: row for row in told["rows"]}
    assert next(iter(rows)) == "source"
    assert rows["twin"]["gap"] == 0.0
    assert rows["twin"]["interval"] == [0.0, 0.0]
    assert list(told["groups"]) == ["en", "deu_Latn"]
    expected = evaluate_checkpoints([source, other], two_files, by="language")[str(other)]
    assert rows["other"]["bits_per_byte"] == expected.bits_per_byte
    assert rows["other"]["gap"] == expected.difference.estimate
    of_group = {row["method"]: row for row in told["groups"]["en"]}
    assert of_group["other"]["bits_per_byte"] == expected.by_group["en"].bits_per_byte
    page = (tmp_path / "a.html").read_text("utf-8")
    table = (tmp_path / "a.csv").read_text("utf-8")
    every = [*told["rows"], *(row for rows in told["groups"].values() for row in rows)]
    assert len(table.splitlines()) == 1 + len(every) == 1 + 3 + 2 * 3
    for row in every:
        shown = f"{row['bits_per_byte']:.4f}"
        assert shown in done.stdout
        assert shown in page
        assert str(row["bits_per_byte"]) in table
    assert "en, other" in page  # in the picture
    assert not re.search(r"(fill|stroke): #", page), "a colour that no scheme knows"
    style = Tree(page).all("style")[0].text
    assert "prefers-color-scheme: dark" in style
    assert {*re.findall(r"var\(--(\w+)\)", page)} <= {*re.findall(r"--(\w+):", style)}


def test_without_a_source_the_first_checkpoint_is_what_is_compared_with(
    finished: list[Path], tiny_text: Path
) -> None:
    _, other, twin = finished
    words = ["--text", tiny_text, "--json"]
    alone = json.loads(run("compare", "--checkpoints", f"{other},{twin}", *words).stdout)
    against = json.loads(run("evaluate", twin, tiny_text, "--against", other, "--json").stdout)
    assert alone["rows"][1]["gap"] == against["entries"][1]["difference"]["estimate"]
    assert alone["facts"]["source"] == "other"
    assert alone["groups"] == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checkpoints", "ONE"], "nothing beside it: name another, or a SOURCE"),
        (["--checkpoints", "ONE,ONE", "--methods", "mean"], "--methods is about a surgery"),
        (["--checkpoints", "ONE,ONE", "--tokenizer", "ONE"], "--tokenizer is about a surgery"),
        (["--checkpoints", "ONE,nowhere"], "nowhere"),
        (["--checkpoints", "ONE,ONE"], "are one checkpoint: name it once"),
        (["--checkpoints", "ONE,OTHER,ONE/"], "are one checkpoint: name it once"),
        (["--checkpoints", "ONE,OTHER", "--plot", "a.pdf"], "must end in .png"),
        (["--checkpoints", "ONE,OTHER", "--by", "language"], "has no language"),
        (["--by", "file"], "give --checkpoints"),
    ],
)
def test_a_wrong_comparison_of_checkpoints_is_one_line(
    finished: list[Path], tiny_source: Path, tiny_text: Path, arguments: list[str], message: str
) -> None:
    names = {"ONE": str(tiny_source), "OTHER": str(finished[1])}
    given = [re.sub("ONE|OTHER", lambda name: names[name[0]], word) for word in arguments]
    if arguments[0] == "--by":
        given = [str(tiny_source), "--tokenizer", str(tiny_source), *given]
    result = run("compare", *given, "--text", tiny_text)
    assert result.exit_code in (1, 2), result.stdout
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_an_evaluation_is_drawn_and_said_by_file(
    finished: list[Path], two_files: list[Path], tmp_path: Path
) -> None:
    source, other, _ = finished
    words = ["evaluate", other, *two_files, "--against", source, "--by", "file"]
    done = run(*words, "--plot", tmp_path / "a.svg")
    assert done.exit_code == 0, done.stderr
    assert "flores-en.jsonl" in done.stdout
    assert "deu_Latn.jsonl" in (tmp_path / "a.svg").read_text("utf-8")
    measured = json.loads(run(*words, "--json").stdout)["entries"][1]["by_group"]
    assert list(measured) == ["flores-en.jsonl", "deu_Latn.jsonl"]
    for one in measured.values():
        assert f"{one['bits_per_byte']:.4f}" in done.stdout
    refused = run("evaluate", other, *two_files, "--plot", tmp_path / "b.svg")
    assert refused.exit_code == 2
    assert "give --against" in refused.stderr
    assert not (tmp_path / "b.svg").exists()

"""compare from the command line: what it keeps and what it draws."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tokensurgeon.cli.main import main


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

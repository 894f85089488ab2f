"""inspect from the command line: figures, JSON, the page; wrong inputs write nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tokensurgeon.cli.main import main
from tokensurgeon.vocabulary import load_vocabulary


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_a_tokenizer_alone_is_inspected_on_an_example(tiny_source: Path) -> None:
    result = run("inspect", tiny_source)
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    for word in ("never emitted", "hard texts, from_file", "Cut: example", "24 of 24"):
        assert word in result.stdout
    assert "Fewer tokens is not better models" in result.stdout
    assert "bytes per token" not in result.stdout


def test_json_has_every_figure_of_every_tokenizer(
    tiny_source: Path, tiny_donor: Path, tiny_text: Path
) -> None:
    result = run(
        "inspect", tiny_source, tiny_text, "--against", tiny_donor, "--checkpoint", tiny_source,
        "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    data = json.loads(result.stdout)
    assert len(data["tokenizers"]) == 2
    for facts, folder in zip(data["tokenizers"], (tiny_source, tiny_donor), strict=True):
        vocabulary = load_vocabulary(folder)
        texts = [json.loads(line)["text"] for line in tiny_text.read_text("utf-8").splitlines()]
        assert facts["total"]["tokens"] == sum(len(vocabulary.encode(text)) for text in texts)
        assert facts["size"] == vocabulary.n_rows
    assert data["undertrained"]["suspects"]
    assert data["excerpts"][0]["cuts"][0]["ids"]
    assert data["mixture"] is None


def test_a_page_is_written_and_not_overwritten(
    tmp_path: Path, tiny_source: Path, tiny_text: Path
) -> None:
    page = tmp_path / "page.html"
    assert run("inspect", tiny_source, tiny_text, "--html", page).exit_code == 0
    before = page.read_bytes()
    again = run("inspect", tiny_source, "--html", page)
    assert again.exit_code == 2
    assert "--force" in again.stderr
    assert page.read_bytes() == before
    assert run("inspect", tiny_source, "--html", page, "--force").exit_code == 0
    assert page.read_bytes() != before
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_the_figures_of_training_are_told(tmp_path: Path, tiny_text: Path) -> None:
    from tokensurgeon.trainers import train_vocabulary

    train_vocabulary([tiny_text], size=300, output=tmp_path / "mine", pretokenizer="gpt2")
    result = run("inspect", tmp_path / "mine", tiny_text)
    assert result.exit_code == 0, result.stderr
    assert "held out when it was trained" in result.stdout
    assert "plain BPE of equal size" in result.stdout


def test_a_mixture_is_printed_with_its_shares(tmp_path: Path, tiny_source: Path) -> None:
    for name, words in (("one", "The index is scanned. "), ("two", "table rows return 42\n")):
        (tmp_path / f"{name}.txt").write_text(words * 300, "utf-8")
    arguments = [f"--mixture={name}={tmp_path / name}.txt" for name in ("one", "two")]
    result = run("inspect", tiny_source, *arguments, "--merges", 30)
    assert result.exit_code == 0, result.stderr
    assert "Mixture of the training text" in result.stdout
    shares = json.loads(run("inspect", tiny_source, *arguments, "--json").stdout)["mixture"]
    assert sum(shares["shares"].values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "TOKENIZER"),
        (["EMPTY"], 1, "no tokenizer.json"),
        (["NONE/at/all/there"], 1, "neither a folder"),
        (["SOURCE", "NONE"], 1, "there is no text file"),
        (["SOURCE", "BLANK"], 1, "holds no text"),
        (["SOURCE", "SPACES"], 1, "only white space"),
        (["SOURCE", "BINARY"], 1, "is no text"),
        (["SOURCE", "--html", "NOWHERE"], 2, "no folder"),
        (["SOURCE", "--html", "EMPTY"], 2, "is a folder"),
        (["SOURCE", "--against", "EMPTY"], 1, "no tokenizer.json"),
        (["SOURCE", "--checkpoint", "EMPTY"], 1, "empty has no"),
        (["DONOR", "--checkpoint", "SOURCE"], 2, "400 ids"),
        (["SOURCE", "--mixture", "en=TEXT"], 2, "two or more"),
        (["SOURCE", "--mixture", "TEXT"], 2, "NAME=FILE"),
        (["SOURCE", "--mixture", "a=NONE", "--mixture", "b=NONE"], 1, "no text file"),
        (["UNIGRAM", "--mixture", "a=TEXT", "--mixture", "b=TEXT"], 1, "give a BPE tokenizer"),
    ],
)
def test_a_wrong_input_is_one_line_and_writes_nothing(
    tmp_path: Path,
    tiny_source: Path,
    tiny_donor: Path,
    tiny_text: Path,
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    from tokenizers import Tokenizer, models

    (tmp_path / "empty").mkdir()
    (tmp_path / "unigram").mkdir()
    unigram = models.Unigram([("<unk>", 0.0), ("a", -1.0), ("b", -1.5)], 0)
    Tokenizer(unigram).save(str(tmp_path / "unigram" / "tokenizer.json"))
    (tmp_path / "blank.txt").write_text("")
    (tmp_path / "spaces.txt").write_text(" \n \n")
    (tmp_path / "binary.bin").write_bytes(bytes(range(256)) * 20)
    before = sorted(tmp_path.rglob("*"))
    names = {
        "SOURCE": tiny_source, "DONOR": tiny_donor, "EMPTY": tmp_path / "empty",
        "UNIGRAM": tmp_path / "unigram", "BLANK": tmp_path / "blank.txt",
        "SPACES": tmp_path / "spaces.txt", "BINARY": tmp_path / "binary.bin",
        "NOWHERE": tmp_path / "nowhere" / "page.html", "TEXT": tiny_text,
        "NONE": tmp_path / "none.txt",
    }  # fmt: skip
    for name, path in names.items():
        arguments = [argument.replace(name, str(path)) for argument in arguments]
    page = [] if "--html" in arguments else ["--html", tmp_path / "page.html"]
    result = run("inspect", *arguments, *page)
    assert message in result.stderr
    assert result.exit_code == code
    assert result.stderr.count("\n") == 1, result.stderr
    assert "unexpected" not in result.stderr
    assert result.stdout == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import sys; from tokensurgeon.cli.main import main\n"
        "try: main(['inspect', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'tokenizers', 'scipy', 'numpy'}\n"
        "sys.exit(','.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Rényi" in done.stdout

"""The options of ``train``: what they do, and what is said of wrong ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tokenizers import Tokenizer

from tokensurgeon.cli.main import main
from tokensurgeon.cli.train import command

WORDS = ("table", "index", "value", "query", "row", "column", "cursor", "view")
LINES = [
    f"The {WORDS[i % 8]} of the {WORDS[i * 3 % 8]} is read as a result of the {WORDS[i * 5 % 8]}.\n"
    for i in range(120)
]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    (tmp_path / "en.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    (tmp_path / "xx.jsonl").write_text("".join(json.dumps(line.upper()) + "\n" for line in LINES))
    (tmp_path / "held.txt").write_text("The view of the table is read.\n" * 9)
    return tmp_path


def train(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["train", *arguments, "-o", str(folder / "out")])


def facts(result: Result) -> dict:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_mixture_is_weighed_and_counts_are_kept(text: Path) -> None:
    mixture = [f"--mixture=en=3:{text}/en.jsonl", f"--mixture=xx=1:{text}/xx.jsonl"]
    counts = ["--counts", str(text / "counts.json"), "--processes", "1", "--force", "--json"]
    first = facts(train(text, "bpe", *mixture, "--size", "290", *counts))
    assert first["corpus"]["shares"] == [3.0, 1.0]
    assert list(first["corpus"]["parts"]) == ["en", "xx"]
    assert [each["name"] for each in first["figures"]["held_out"]["sources"]] == ["en", "xx"]
    assert (text / "counts.json").exists()
    again = facts(train(text, "bpe", *mixture, "--size", "280", *counts))
    assert again["corpus"]["sha256"] == first["corpus"]["sha256"]
    card = (text / "out" / "README.md").read_text("utf-8")
    assert "| en |" in card
    other = train(text, "superbpe", *mixture, "--size", "280", *counts)
    assert other.exit_code == 1
    assert "another method, cut or mixture" in other.stderr


def test_held_out_files_are_measured_on_and_all_else_trained_on(text: Path) -> None:
    arguments = ["bpe", f"{text}/en.jsonl", "--held-out", f"{text}/held.txt", "--size", "290"]
    found = facts(train(text, *arguments, "--json"))
    assert found["figures"]["held_out_bytes"] == (text / "held.txt").stat().st_size
    assert found["corpus"]["documents"] == len(LINES)


def test_shape_controls_and_templates_are_taken(text: Path) -> None:
    (text / "chat.jinja").write_text("{{ messages }}")
    arguments = [
        "superbpe", f"{text}/en.jsonl", "--size", "290", "--encoder", "min-tokens",
        "--transition", "0.4", "--max-words", "3", "--no-cross", "newline", "--max-pieces", "9",
        "--longest", "30", "--control", "<|im_start|>", "--pad", "<|pad|>",
        "--pad-to-multiple-of", "64", "--chat-template", f"{text}/chat.jinja", "--json",
    ]  # fmt: skip
    found = facts(train(text, *arguments))
    settings = found["settings"]
    assert (settings["encoder"], settings["transition"], settings["most_words"]) == (
        "min-tokens", 0.4, 3,
    )  # fmt: skip
    assert settings["no_cross"] == ["newline"]
    assert settings["reserved"] == 320 - 290
    tokenizer = Tokenizer.from_file(str(text / "out" / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == 320
    assert tokenizer.encode("<|im_start|>").ids == [tokenizer.token_to_id("<|im_start|>")]
    assert (text / "out" / "chat_template.jinja").read_text() == "{{ messages }}"


def test_a_list_makes_terms(text: Path) -> None:
    (text / "terms.txt").write_text("cursor view\n")
    arguments = ["terms", f"{text}/en.jsonl", "--size", "300", "--list", f"{text}/terms.txt"]
    assert train(text, *arguments).exit_code == 0
    tokenizer = Tokenizer.from_file(str(text / "out" / "tokenizer.json"))
    assert len(tokenizer.encode("cursor view").ids) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bpe", "--size", "300"], "give files to train on, --mixture or --from-counts"),
        (["bpe", "{}/en.jsonl", "--mixture=a:b", "--size", "300"], "one of them"),
        (["bpe", "{}/en.jsonl"], "bpe needs a size"),
        (["bpe", "{}/none.txt", "--size", "300"], "there is no text file"),
        (["superbpe", "{}/en.jsonl", "--size", "300", "--no-cross", "dots"], "no barrier 'dots'"),
        (["terms", "{}/en.jsonl", "--size", "300"], "needs a list"),
        (["terms", "{}/en.jsonl", "--size", "300", "--list", "{}/no.txt"], "cannot read"),
        (["parity", "{}/en.jsonl", "--size", "300"], "parity needs languages"),
        (["lib", "{}/en.jsonl", "--size", "300", "--encoder", "bpe"], "no encoder for lib"),
    ],
)
def test_wrong_options_are_named_in_one_line(text: Path, arguments, message: str) -> None:
    result = train(text, *(each.replace("{}", str(text)) for each in arguments))
    assert result.exit_code in (1, 2)
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (text / "out").exists()


def test_every_method_is_named_in_the_help() -> None:
    from tokensurgeon.cli.train import EDITS
    from tokensurgeon.trainers import METHODS

    said = command.help or ""
    assert [name for name in (*METHODS, *EDITS) if name not in said] == []


def test_digits_are_cut_as_a_source_that_is_named(text: Path) -> None:
    source = facts(train(text, "bytes", f"{text}/en.jsonl", "--json"))["path"]
    arguments = ["bpe", f"{text}/en.jsonl", "--size", "290", "--force", "--json"]
    for more, wanted in (
        ([], "left-3"),
        (["--source", source], "single"),
        (["--source", source, "--digits", "any"], "any"),
    ):
        done = CliRunner().invoke(main, ["train", *arguments, *more, "-o", str(text / "new")])
        assert facts(done)["settings"]["digits"] == wanted
    for option in (["--digits", "single"], ["--source", source]):
        refused = train(text, "extend", f"{text}/en.jsonl", "--base", source, *option)
        assert refused.exit_code == 2
        assert "extend cuts digits as --base does" in refused.stderr

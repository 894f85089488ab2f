"""Guides run: every command of a page, in its order, in one folder, as a reader would type them.

What a page calls `my-model` and so on is a tiny model here, and texts are short, as is the time for
whatever takes minutes. Commands of other programs are left out: what `hand-over` writes and
`scripts/run_draft.py` are run by tests of their own.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.conftest import ASSETS
from tests.test_readme import ROOT, blocks, label
from tokensurgeon.cli.main import main

pytestmark = pytest.mark.sweep

GUIDES = (
    "new-language", "domain-vocabulary", "go-on-training", "draft-model",
    "distil-across-vocabularies", "compare-methods", "write-an-initialiser",
)  # fmt: skip
PAGES = [ROOT / "docs/how-to" / f"{name}.md" for name in GUIDES]
TEXTS = {
    "calibration": (
        "some-text.jsonl", "domain-text.jsonl", "text-like-yours.jsonl", "my-text.jsonl",
    ),
    "evaluation": ("held-out.jsonl",),
}  # fmt: skip
"""What pages call texts, by the text that ships which stands for them."""
MODELS = {
    "source": ("my-model", "small-model", "student", "source", "stage-2"),
    "donor": ("domain-model", "big-model", "teacher", "target", "TARGET"),
}
BEFORE = {
    "distil-across-vocabularies": (
        "transplant source --tokenizer target --init subword-mean -o patched"
    )
}
"""What a reader of a page has done before."""
OUTPUTS = ("-o", "--export-projection")
SHORT = "0.03"
"""Minutes, wherever minutes are given."""


def short_text(kind: str, n: int) -> str:
    """Return the first documents of a text that ships, cut."""
    file = ROOT / "tokensurgeon/data/text" / f"{kind}.jsonl"
    lines = [json.loads(line)["text"][:1_500] for line in file.read_text("utf-8").splitlines()[:n]]
    return "".join(json.dumps({"text": text}) + "\n" for text in lines)


def in_spanish() -> tuple[list[str], list[str]]:
    """Return the articles of a declaration, and every fifth of them apart; English without assets.

    They are those that the figures of the guide are of.
    """
    file = Path(os.environ.get(ASSETS, "")) / "corpora" / "udhr-multilingual.txt"
    if not file.is_file():
        lines = [short_text(kind, 5).splitlines() for kind in ("calibration", "evaluation")]
        found = [[str(json.loads(line)["text"]) for line in part] for part in lines]
        return found[0], found[1]
    whole = file.read_text("utf-8").split("## spa\n")[1].split("\n## ")[0]
    articles = [
        "\n".join(line.strip() for line in article.splitlines() if line.strip())
        for article in re.split(r"\n(?=\s*Artículo \d)", whole)
    ]
    fifth = articles[4::5]
    return [article for article in articles if article not in fifth], fifth


@pytest.fixture
def folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_source: Path, tiny_donor: Path
) -> Path:
    """A folder with all that the pages name, and what they name of this repository."""
    data = tmp_path / "tokensurgeon" / "data"
    (data / "text").mkdir(parents=True)
    for name in ("source", "donor"):
        (data / name).symlink_to(ROOT / "tokensurgeon/data" / name)
    for kind, names in TEXTS.items():
        text = short_text(kind, 12 if kind == "calibration" else 4)
        for file in (data / "text" / f"{kind}.jsonl", *(tmp_path / name for name in names)):
            file.write_text(text, "utf-8")
    for name, texts in zip(("spanish", "spanish-held-out"), in_spanish(), strict=True):
        lines = [json.dumps({"text": text}) + "\n" for text in texts]
        (tmp_path / f"{name}.jsonl").write_text("".join(lines), "utf-8")
    for kind, names in MODELS.items():
        for name in names:
            (tmp_path / name).symlink_to(tiny_source if kind == "source" else tiny_donor)
    (tmp_path / "domain-text").mkdir()
    for i, line in enumerate(short_text("calibration", 6).splitlines()):
        (tmp_path / "domain-text" / f"{i}.txt").write_text(json.loads(line)["text"], "utf-8")
    said = [{"role": "user", "content": "Rows?"}, {"role": "assistant", "content": "Of a table."}]
    (tmp_path / "chats.jsonl").write_text(json.dumps({"messages": said}) + "\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def commands(page: Path) -> Iterator[list[str]]:
    """Yield the words of every call of tokensurgeon on a page, in their order."""
    text = page.read_text("utf-8")
    for language, block in re.findall(r"^```(sh|console)\n(.*?)^```", text, re.S | re.M):
        for line in block.replace("\\\n", " ").splitlines():
            if language == "console" and not line.startswith("$ "):
                continue
            words = shlex.split(line.removeprefix("$ ").split(" | ")[0], comments=True)
            if words[:1] == ["tokensurgeon"]:
                yield words[1:]


def matching(word: str) -> list[str]:
    """Return the files that a shell would put for a word."""
    return sorted(map(str, Path().glob(word))) if "*" in word else []


def shortened(words: list[str]) -> list[str]:
    """Return a call that takes little time, and that may replace what an earlier one wrote."""
    command, short = words[0], list(words)
    for i, word in enumerate(words[:-1]):
        if word in ("--heal", "--minutes", "--budget"):
            short[i + 1] = SHORT
    short = [re.sub(r"heal=[\d.]+", f"heal={SHORT}", word) for word in short]
    short = [re.sub(r"\.minutes=[\d.]+", f".minutes={SHORT}", word) for word in short]
    if command in ("transplant", "extend") and "--budget" not in words:
        short += ["--budget", SHORT]
    if command == "trained-limit":
        short += ["--max-tokens", "400"]
    if command == "train" and "--size" in words:  # little text has few tokens to offer
        size = short.index("--size") + 1
        short[size] = "420" if "--base" in words else "400"
    written = [words[i + 1] for i, word in enumerate(words[:-1]) if word in OUTPUTS]
    if command == "align":  # it replaces no file: each is one of its own to a reader
        for name in written:
            Path(name).unlink(missing_ok=True)
    elif command != "compare" and any(Path(name).exists() for name in written):
        short += [] if "--force" in words else ["--force"]
    return [file for word in short for file in (matching(word) or [word])]


def run(words: list[str]) -> None:
    """Run a call; what it prints goes where ``>`` says."""
    target = None
    if ">" in words:
        at = words.index(">")
        words, target = words[:at], Path(words[at + 1])
    result = CliRunner().invoke(main, shortened(words))
    # A bound that is exceeded is an answer, not a fault.
    expected = (0, 3) if "--max-rise" in words else (0,)
    assert result.exit_code in expected, f"{shlex.join(words)}\n{result.stderr}"
    assert result.stdout.strip() or words[-1:] == ["-q"], shlex.join(words)
    if target is not None:
        target.write_text(result.stdout, "utf-8")


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_every_command_of_a_guide_runs(page: Path, folder: Path) -> None:
    for block in blocks(page, "python"):
        if "@initialiser(" in block:
            (folder / "last_piece.py").write_text(block, "utf-8")
    calls = list(commands(page))
    assert calls
    for words in [*filter(None, [BEFORE.get(page.stem, "").split()]), *calls]:
        run(words)

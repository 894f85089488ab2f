"""The documentation is right: its examples run, its options exist, its links lead somewhere."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

import tokensurgeon
from tests.test_house import ROOMS
from tokensurgeon.calibration import STAGES
from tokensurgeon.cli.main import main
from tokensurgeon.initialisers import names

ROOT = Path(__file__).parent.parent
FOLDERS = ("*.md", "docs/**/*.md", "vocabularies/README.md", "changelog.d/README.md")
PAGES = sorted(page for pattern in FOLDERS for page in ROOT.glob(pattern))
GENERATED = {"cli.md", "python.md", "initialisers.md", "stages.md", "recipe.md"}
"""In docs/reference, written from the code itself."""


def label(page: Path) -> str:
    return str(page.relative_to(ROOT))


def is_generated(page: Path) -> bool:
    return page.parent.name == "reference" and page.name in GENERATED


WRITTEN = [page for page in PAGES if not is_generated(page)]


def blocks(page: Path, language: str) -> list[str]:
    """Return the code blocks of a page, those inside a list too."""
    found = re.findall(
        rf"^( *)```{language}\n(.*?)^\1```", page.read_text("utf-8"), flags=re.DOTALL | re.M
    )
    return [re.sub(f"^{indent}", "", block, flags=re.M) for indent, block in found]


# -- Python --------------------------------------------------------------------------------------

EXAMPLES = {page: blocks(page, "python") for page in WRITTEN}
PLUGINS = [
    (page, block) for page, found in EXAMPLES.items() for block in found if "@initialiser(" in block
]


@pytest.mark.parametrize(("page", "block"), PLUGINS, ids=[label(page) for page, _ in PLUGINS])
def test_an_initialiser_on_a_page_passes_the_public_check(
    page: Path, block: str, tmp_path: Path
) -> None:
    """In a process of its own, since it registers a method."""
    file = tmp_path / "last_piece.py"
    file.write_text(block, "utf-8")
    command = [sys.executable, "-m", "tokensurgeon", "initialisers", "check", str(file)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


@pytest.fixture
def reader_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks like the root of this repository to whoever runs an example in it."""
    for name in ("tokensurgeon", "recipes", "vocabularies"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def in_short(**fields: Any) -> Any:
    """Do a surgery with less text and a plain method: the search for the best takes minutes."""
    fields["text"] = {**fields.get("text", {}), "max_bytes": 4_000}
    fields["init"] = {"input": "subword-mean", "output": "subword-mean"}
    return tokensurgeon.surgery.transplant(**fields, force=True)


RUN = [
    page for page, found in EXAMPLES.items() if any("@initialiser(" not in block for block in found)
]


@pytest.mark.parametrize("page", RUN, ids=label)
def test_python_examples_run(
    page: Path, reader_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokensurgeon, "transplant", in_short)
    data = "tokensurgeon/data"
    if any('"patched"' in block for block in EXAMPLES[page]):
        in_short(source=f"{data}/source", donor=f"{data}/donor", output="patched")
    namespace: dict[str, Any] = {"__name__": "example"}
    for block in EXAMPLES[page]:
        if "@initialiser(" not in block:
            exec(compile(block, label(page), "exec"), namespace)


# -- the command line ----------------------------------------------------------------------------


def commands_of(page: Path) -> Iterator[list[str]]:
    """Yield every call of tokensurgeon in the blocks of a page, in words."""
    for block in blocks(page, "sh"):
        yield from calls(block.replace("\\\n", " ").splitlines())
    for block in blocks(page, "console"):
        joined = block.replace("\\\n", " ").splitlines()
        yield from calls(line.removeprefix("$ ") for line in joined if line.startswith("$ "))


def calls(lines: Any) -> Iterator[list[str]]:
    for line in lines:
        for part in line.split("&&"):
            words = shlex.split(part, comments=True)
            if words[:1] == ["tokensurgeon"]:
                yield words[1:]


def command_named(words: list[str]) -> click.Command:
    """Return the command that a call begins with."""
    command: click.Command = main
    context = click.Context(command)
    for word in words:
        if not isinstance(command, click.Group):
            break
        inner = command.get_command(context, word)
        assert inner is not None, f"no command {word!r}"
        command, context = inner, click.Context(inner, parent=context)
    return command


def options_of(command: click.Command) -> set[str]:
    return {"--help", "-h", *(name for parameter in command.params for name in parameter.opts)}


@pytest.mark.parametrize("page", WRITTEN, ids=label)
def test_every_command_of_an_example_has_the_options_it_is_given(page: Path) -> None:
    for words in commands_of(page):
        command = command_named(words)
        given = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert given <= options_of(command), f"tokensurgeon {' '.join(words)}"


def every_option(command: click.Command, context: click.Context) -> set[str]:
    found = options_of(command)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            found |= every_option(inner, click.Context(inner, parent=context))
    return found


@pytest.mark.parametrize(
    "page", [page for page in WRITTEN if page.name != "CHANGELOG.md"], ids=label
)
def test_every_option_that_is_named_exists(page: Path) -> None:
    known = every_option(main, click.Context(main))
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    for code in re.findall(r"`([^`\n]+)`", text):
        if not re.match(r"scripts/|\.ci|git |python |pip ", code):
            assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", code)) <= known, code


# -- links and tables ----------------------------------------------------------------------------


@pytest.mark.parametrize("page", WRITTEN, ids=label)
def test_every_file_of_the_code_that_is_named_exists(page: Path) -> None:
    inner = ("", "tokensurgeon", "tokensurgeon/calibration", "tokensurgeon/initialisers")
    homes = [ROOT / folder for folder in inner]
    for name in re.findall(r"`([\w./]+/[\w.]*\.py|[\w.]+/[\w./]*/)`", page.read_text("utf-8")):
        assert any((home / name).exists() for home in homes), name


def anchor(heading: str) -> str:
    """Return the anchor that a heading gets on a page."""
    plain = re.sub(r"[^\w\- ]", "", heading.strip().lower())
    return plain.replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target, part in re.findall(r"\]\(([^)#:\s]*)(?:#([^)\s]+))?\)", page.read_text("utf-8")):
        other = page.parent / target if target else page
        assert other.exists(), target
        if part:
            headings = re.findall(r"^#+ (.*)", other.read_text("utf-8"), re.M)
            assert part in {anchor(heading) for heading in headings}, f"{target}#{part}"


def test_every_page_is_in_the_index_or_linked_from_a_page_that_is() -> None:
    reached: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md" or not page.exists():
            continue
        reached.add(page)
        for target in re.findall(r"\]\(([^)#:\s]+)", page.read_text("utf-8")):
            waiting.append((page.parent / target).resolve())
    assert {page for page in PAGES if page.is_relative_to(ROOT / "docs")} <= reached


def test_every_method_in_the_table_is_registered() -> None:
    page = (ROOT / "docs/concepts/initialisers.md").read_text("utf-8")
    table = page.split("## All methods")[1].split("\n## ")[0]
    first = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    named = re.findall(r"`([a-z-]+)`", " ".join(first))
    assert {f"subword{name}" if name.startswith("-") else name for name in named} == set(names())


def test_every_stage_in_the_table_is_registered() -> None:
    page = (ROOT / "docs/concepts/calibration.md").read_text("utf-8")
    table = page.split("## Stages")[1].split("\n## ")[0]
    assert re.findall(r"^\| `([a-z-]+)` \|", table, re.M) == list(STAGES)


def test_the_help_of_calibrate_names_every_stage() -> None:
    (option,) = (each for each in command_named(["transplant"]).params if each.name == "calibrate")
    assert isinstance(option, click.Option)
    named = re.findall(r"[a-z]+(?:-[a-z]+)*", str(option.help).split(":")[1].split(".")[0])
    assert named == list(STAGES)


def test_the_architecture_names_every_room_in_its_order() -> None:
    page = (ROOT / "docs/concepts/architecture.md").read_text("utf-8")
    tree = page.split("```text\ntokensurgeon/\n")[1].split("```")[0]
    package = ROOT / "tokensurgeon"
    rooms = [room for room in ROOMS if [*package.glob(f"{room}.py"), *package.glob(f"{room}/*.py")]]
    assert re.findall(r"^  (\w+)(?:/|\.py) ", tree, re.M) == rooms


def test_the_summaries_repeat_the_figures_of_the_pages() -> None:
    script = [sys.executable, str(ROOT / "scripts/results_pages.py"), "--check"]
    run = subprocess.run(script, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


SLANG = r"\b(bench|workbench|stand-in|loud|judge[sd]?|ladder|rungs?|reachable floor|worst off)\b"


@pytest.mark.parametrize(
    "page", [page for page in WRITTEN if page.name != "CHANGELOG.md"], ids=label
)
def test_pages_use_the_words_of_the_glossary(page: Path) -> None:
    prose = re.sub(r"```.*?```|`[^`\n]*`|^\|.*$", "", page.read_text("utf-8"), flags=re.S | re.M)
    assert re.findall(SLANG, prose, re.I) == []

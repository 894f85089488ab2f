"""Run the console examples of the documentation, and put what they print into the pages.

    python scripts/docs_examples.py [PAGE …]

A block of commands that follows the mark ``<!-- run -->`` is run, with those before it on the page,
in an empty folder that sees the package's data and the recipes as the root of this repository does.
What it printed is replaced. All pages take some minutes: run it before a release, and read the
difference.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"(<!-- run -->\n```console\n)(.*?)(```)", re.S)
COLUMNS = "100"
"""Width of what is printed, which is also that of the pages."""
BUDGET = "--budget 600"
"""Given to a surgery that chooses its methods: so many minutes that a busy machine changes no
figure. On an idle one the default is enough for the examples, and gives the same figures."""


def commands(block: str) -> list[str]:
    """Return the commands of a block, each with the lines that continue it."""
    found: list[str] = []
    continued = False
    for line in block.splitlines():
        if line.startswith("$ ") or continued:
            found.append(line) if not continued else found.append(f"{found.pop()}\n{line}")
            continued = line.endswith("\\")
    return found


def run(command: str, folder: Path) -> str:
    """Run one command and return what it prints."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    settings = {"COLUMNS": COLUMNS, "HF_HUB_OFFLINE": "1", "PATH": path}
    line = command.removeprefix("$ ")
    chooses = line.startswith(("tokensurgeon transplant", "tokensurgeon extend"))
    if chooses and "--init" not in line:
        line = f"{line} {BUDGET}"
    process = subprocess.run(
        ["bash", "-c", line],
        cwd=folder,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode:
        sys.exit(f"{command}\nended with {process.returncode}:\n{process.stderr}")
    lines = [line.rstrip() for line in process.stdout.splitlines()]
    return "".join(f"{line}\n" for line in [command, *lines])


def refresh(page: Path) -> None:
    """Run the blocks of one page, and write it where anything differs."""
    old = page.read_text("utf-8")
    if not BLOCK.search(old):
        return
    with tempfile.TemporaryDirectory(prefix="tokensurgeon-docs-") as scratch:
        folder = Path(scratch)
        for name in ("tokensurgeon", "recipes", "vocabularies"):
            (folder / name).symlink_to(ROOT / name)
        new = BLOCK.sub(
            lambda match: (
                match[1]
                + "\n".join(run(command, folder) for command in commands(match[2]))
                + match[3]
            ),
            old,
        )
    if new != old:
        page.write_text(new, "utf-8")
        print(f"changed: {page.relative_to(ROOT)}")


if __name__ == "__main__":
    given = [Path(name).resolve() for name in sys.argv[1:]]
    for path in given or [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        refresh(path)

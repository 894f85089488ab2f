"""Run tests with the oldest releases that setup.cfg allows, in an environment of its own.

    python scripts/lowest.py                   install into a new environment, run some tests
    python scripts/lowest.py --pinned torch    torch as constraints.txt pins it: old ones are large
    python scripts/lowest.py --print           print the releases only

The releases are read from setup.cfg: a bound that no release has, or with which tests fail, is to
be raised there. What only runs the tests is as constraints.txt pins it.
"""

from __future__ import annotations

import argparse
import configparser
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
LEFT_OUT = ("test", "datasets", "lm-eval", "tensorboard", "trackio")
"""Extras: what only tests need, and what none of `TESTS` runs."""
RUNNERS = ("pytest", "hypothesis")
TESTS = (
    "tests/vocabulary",
    "tests/text",
    "tests/checkpoint",
    "tests/models",
    "tests/spaces",
    "tests/initialisers",
    "tests/calibration",
    "tests/surgery/test_laws.py",
    "tests/surgery/test_kinds.py",
    "tests/cli/test_commands.py",
)
"""Whatever touches another library."""


def lowest() -> Iterator[str]:
    """Yield each dependency with the lowest release that is allowed."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    extras = config["options.extras_require"]
    parts = [config["options"]["install_requires"]]
    parts += [extras[name] for name in extras if name not in LEFT_OUT]
    for line in filter(None, "\n".join(parts).splitlines()):
        requirement = Requirement(line)
        (bound,) = requirement.specifier
        if requirement.marker is None or requirement.marker.evaluate():
            yield f"{requirement.name}=={bound.version}"


def pinned(names: tuple[str, ...]) -> Iterator[str]:
    """Yield the releases that constraints.txt names for some packages."""
    for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines():
        if line.partition("==")[0] in names:
            yield line


def main() -> int:
    """Install and test; return what pytest returns."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pinned", nargs="+", default=[], metavar="NAME")
    parser.add_argument("--print", action="store_true", dest="only_print")
    parser.add_argument("tests", nargs="*", default=TESTS)
    arguments = parser.parse_args()
    chosen = [line for line in lowest() if line.partition("==")[0] not in arguments.pinned]
    chosen += pinned((*RUNNERS, *arguments.pinned))
    print("\n".join(chosen), flush=True)
    if arguments.only_print:
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run([sys.executable, "-m", "venv", scratch], check=True)
        python = str(Path(scratch) / "bin" / "python")
        subprocess.run([python, "-m", "pip", "install", "--quiet", *chosen], check=True)
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        # Old releases warn of what newer ones changed: here a warning is no error.
        options = ("-q", "-o", "filterwarnings=default", "--disable-warnings")
        command = [python, "-m", "pytest", *options, *arguments.tests]
        return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())

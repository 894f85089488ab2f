"""Build the wheel, install it where nothing of the checkout is seen, and try it.

Every file of the package is in it; every module can be imported; the command answers. The new
environment sees the libraries of this one, so that nothing is downloaded.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
SHIPPED = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "tokensurgeon")
TRY = """
import importlib, pkgutil, sys
from pathlib import Path
import tokensurgeon

folder = Path(tokensurgeon.__file__).parent
assert folder.is_relative_to(sys.prefix), f"{folder} is not the installed package"
for module in pkgutil.walk_packages([str(folder)], "tokensurgeon."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(folder)
"""


def run(*command: str | Path, folder: Path) -> str:
    """Return what a command prints; its errors are shown, and end this script."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    told = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return told.stdout


def files(package: Path) -> set[str]:
    """Return the files of a package, by their paths in it."""
    paths = (path.relative_to(package) for path in package.rglob("*") if path.is_file())
    return {str(path) for path in paths if path.suffix != ".pyc"}


def main() -> None:
    """Build, install, try."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        # A copy: what an earlier build left in the checkout would go into the wheel.
        source = scratch / "source"
        source.mkdir()
        for item in SHIPPED:
            path = ROOT / item
            if path.is_dir():
                skip = shutil.ignore_patterns("__pycache__")
                shutil.copytree(path, source / item, ignore=skip)
            else:
                shutil.copy(path, source)
        pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
        run(
            *pip,
            "wheel",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            scratch,
            source,
            folder=scratch,
        )
        (wheel,) = scratch.glob("*.whl")
        run(sys.executable, "-m", "venv", "--without-pip", scratch / "venv", folder=scratch)
        programs = scratch / "venv" / "bin"
        there = (*pip, "--python", programs / "python")
        run(*there, "install", "--no-deps", "--no-index", wheel, folder=scratch)
        # The libraries come after what is installed, and their own .pth files are not read: this
        # checkout, if it is installed as editable, stays out of sight.
        (packages,) = (scratch / "venv" / "lib").glob("python*/site-packages")
        (packages / "libraries.pth").write_text(sysconfig.get_path("purelib"), "utf-8")
        installed = Path(run(programs / "python", "-c", TRY, folder=scratch).strip())
        missing = files(source / "tokensurgeon") - files(installed)
        if missing:
            sys.exit(f"{wheel.name} lacks {', '.join(sorted(missing))}")
        for words in (["--version"], ["demo", "--help"], ["initialisers", "list"]):
            run(programs / "tokensurgeon", *words, folder=scratch)
        print(f"{wheel.name}: {len(files(installed))} files, {wheel.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()

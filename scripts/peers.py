"""Other tools that give a model another tokenizer, each in an environment of its own.

An environment is made once in a folder: a virtual environment that sees the packages of this one
and has the peer installed into it. Programs of peers run in it as processes, without the path of
this project, on files.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

PACKAGES = {"mergekit": "mergekit==0.1.5", "deepfocus": "deepfocus==1.0.1"}
"""Peers that the package registry has, at the release that is compared with."""

FOCUS = """
import sys
from deepfocus import FOCUS
from transformers import AutoModelForCausalLM, AutoTokenizer
source, target, text, output = sys.argv[1:5]
model = AutoModelForCausalLM.from_pretrained(source)
own, theirs = AutoTokenizer.from_pretrained(source), AutoTokenizer.from_pretrained(target)
sides = [model.get_input_embeddings(), model.get_output_embeddings()]
tied = sides[0].weight is sides[1].weight
made = [
    FOCUS(
        source_embeddings=side.weight.detach().float(),
        source_tokenizer=own,
        target_tokenizer=theirs,
        target_training_data_path=text,
        processes=1,
        verbosity="silent",
    )
    for side in sides[: 1 if tied else 2]
]
model.resize_token_embeddings(len(theirs))
for side, rows in zip((model.get_input_embeddings(), model.get_output_embeddings()), made):
    side.weight.data.copy_(rows)
model.save_pretrained(output)
theirs.save_pretrained(output)
"""
"""Both matrices by FOCUS, as its documentation shows it for one."""

OVERLAP = """
import json, sys, time
from deepfocus.focus import get_overlapping_tokens
from transformers import AutoTokenizer
for _ in range(2):  # first calls are slower, and import what they need
    wall, cpu = time.perf_counter(), time.process_time()
    own, theirs = map(AutoTokenizer.from_pretrained, sys.argv[1:3])
    shared, missing = get_overlapping_tokens(theirs, own, False, True, False)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
print(json.dumps({"wall": wall, "cpu": cpu, "shared": len(shared), "missing": len(missing)}))
"""


def environment_of(folder: Path, peer: str) -> Path:
    """Return the Python of a peer's environment in a folder; it is made if it is not there.

    Raises
    ------
    SystemExit
        If the peer cannot be installed.
    """
    home = folder / peer
    python = home / "bin" / "python"
    if not python.exists():
        print(f"installing {PACKAGES[peer]} into {home}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        packages = home / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}"
        path = packages / "site-packages" / "beside.pth"
        path.write_text(sysconfig.get_path("purelib") + "\n", "utf-8")
        command = [str(python), "-m", "pip", "install", "-q", PACKAGES[peer]]
        if subprocess.run(command, check=False).returncode:
            raise SystemExit(f"{PACKAGES[peer]} cannot be installed; leave its parts out")
    return python


def peer_settings(scratch: Path, threads: int) -> dict[str, str]:
    """Return the environment variables of a peer: nothing of ours, and its caches in a folder."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    number = str(threads)
    return kept | {
        "OMP_NUM_THREADS": number,
        "MKL_NUM_THREADS": number,
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "XDG_CACHE_HOME": str(scratch / "cache"),
        "HF_DATASETS_CACHE": str(scratch / "datasets"),
    }

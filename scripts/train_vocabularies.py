"""Train the vocabularies that ship in vocabularies/.

    python scripts/train_vocabularies.py CORPUS UDHR [-o vocabularies]

CORPUS is the folder that ``scripts/gather_corpus.py`` wrote: packaged documentation under licences
that allow this (PostgreSQL, public domain, MIT, BSD-3-Clause, PSF-2.0). UDHR is
``udhr-multilingual.txt``: the Universal Declaration of Human Rights in twelve languages, public
domain, each under a line ``## LANGUAGE``.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from measure_parity import languages

from tokensurgeon.trainers import Shape, train_vocabulary
from tokensurgeon.trainers.mixture import Part

SIZE = 8192
"""Tokens: a multiple of 64, and few enough for small models."""


def main() -> None:
    """Train all four."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", type=Path)
    parser.add_argument("udhr", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("vocabularies"))
    args = parser.parse_args()
    output, bodies = args.output.resolve(), languages(args.udhr)
    # File names are recorded as given: they must not name a folder of this machine.
    os.chdir(args.corpus)
    text, held_out = "train.jsonl", ["evaluation.jsonl", "calibration.jsonl"]
    for name, method, encoder in (
        ("technical-english-superwords", "superbpe", "bpe"),
        ("technical-english-lzw", "lzw", "min-tokens"),
    ):
        train_vocabulary(
            text,
            method=method,
            size=SIZE,
            shape=Shape(encoder=encoder),
            digits="right-3",
            held_out=held_out,
            output=output / name,
            force=True,
        )
    train_vocabulary(text, method="bytes", output=output / "bytes", force=True)
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        parts = {}
        for language, body in bodies.items():
            cut = body.rfind("\n", 0, len(body) * 7 // 10) + 1
            Path(f"{language}.txt").write_text(body[:cut], "utf-8")
            Path(f"{language}-rest.txt").write_text(body[cut:], "utf-8")
            parts[language] = Part((f"{language}.txt",))
        train_vocabulary(
            parts,
            method="parity",
            size=4096,
            shape=Shape(parallel=True),
            held_out=[f"{language}-rest.txt" for language in bodies],
            output=output / "udhr-parity",
            force=True,
        )
        os.chdir(output)


if __name__ == "__main__":
    main()

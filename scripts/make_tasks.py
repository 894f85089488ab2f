"""Make tasks for lm-evaluation-harness of any text: cloze, choice, arithmetic, bits per byte.

    python scripts/make_tasks.py OUT_DIR [TEXT...] [--items 200] [--seed 0] [--prefix local]

Without TEXT those that ship with the package are taken. Then `tokensurgeon evaluate CHECKPOINT
--tasks OUT_DIR` measures a checkpoint on them, and `--against SOURCE` its source beside it. The
same text and seed give the same bytes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tokensurgeon.errors import TokensurgeonError
from tokensurgeon.evaluation import make_tasks

SHIPPED = Path(__file__).parent.parent / "tokensurgeon" / "data" / "text"


def main() -> int:
    """Make the tasks; return an exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("output", metavar="OUT_DIR")
    parser.add_argument("texts", metavar="TEXT", nargs="*")
    parser.add_argument("--items", type=int, default=200, help="of each task at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--prefix", default="local", help="of the names of the tasks")
    parser.add_argument("--max-bytes", type=int, default=50_000, help="of text for bits per byte")
    parser.add_argument("--field", default="text", help="the key that holds the text in JSON")
    parser.add_argument("--force", action="store_true", help="replace tasks that were made so")
    given = parser.parse_args()
    try:
        folder = make_tasks(
            given.output,
            given.texts or [SHIPPED],
            n=given.items,
            seed=given.seed,
            prefix=given.prefix,
            max_bytes=given.max_bytes,
            field=given.field,
            force=given.force,
        )
    except TokensurgeonError as error:
        print(f"make_tasks: error: {error}", file=sys.stderr)
        return error.exit_code
    for file in sorted(folder.glob("*.jsonl")):
        lines = file.read_text("utf-8").splitlines()
        print(f"{given.prefix}_{file.stem}: {len(lines):,} items, such as {lines[0][:200]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

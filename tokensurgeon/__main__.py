"""``python -m tokensurgeon``: the command line."""

from __future__ import annotations

from tokensurgeon.cli.main import main

if __name__ == "__main__":
    main(prog_name="tokensurgeon")

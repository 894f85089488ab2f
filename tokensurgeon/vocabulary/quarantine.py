"""Tokenizer files that could hang or fill memory are tried in a process of their own first.

A regular expression that backtracks without end cannot be interrupted once the tokenizers library
runs it, and neither can what takes all memory. So a file that has something of the kind is opened
in a child with a clock and bounded memory, and reads a few texts that bring it out.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from tokensurgeon.errors import TokenizerError
from tokensurgeon.vocabulary.parts import regexes

CLOCK = 60
"""Seconds that the child may take, by the wall and of processor time."""
MEMORY = 6 << 30
MOST_BYTES = 64 << 20
"""A larger file is tried in the child, and so is one with more added tokens than this:"""
MOST_ADDED = 10_000

CHILD = """
import resource, sys
clock, memory, file = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
resource.setrlimit(resource.RLIMIT_CPU, (clock, clock + 1))
resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
from tokenizers import Tokenizer
tokenizer = Tokenizer.from_file(file)
tokenizer.no_padding()
tokenizer.no_truncation()
letters = "aZ\\u00e9\\u0430\\u4e00\\u09161 \\t\\n.-\\u0301"
for one in letters:
    for other in letters:
        tokenizer.encode(one * 40 + other, add_special_tokens=False)
        tokenizer.encode((one + other) * 20 + "!", add_special_tokens=False)
"""
"""What backtracks without end does so on a run of one character, or of two in turn, and then
another: forty are 2^40 steps."""


def try_apart(file: Path, document: Mapping[str, Any]) -> None:
    """Try an unusual tokenizer.json in a child; others are not tried.

    Parameters
    ----------
    file : Path
    document : mapping
        What is in it.

    Raises
    ------
    TokenizerError
        If the child does not come to an end in time and within its memory.
    """
    stat = file.stat()
    what = unusual(document, stat.st_size)
    if what is None:
        return
    reason = _tried(str(file), stat.st_size, stat.st_mtime_ns)
    if reason:
        raise TokenizerError(
            f"{file} was tried in a process of its own, for it has {what}: {reason}; it is refused"
        )


@lru_cache(maxsize=256)
def _tried(file: str, size: int, changed: int) -> str:
    """Return why a file is refused, or nothing; each state of a file is tried once."""
    command = [sys.executable, "-P", "-c", CHILD, str(CLOCK), str(MEMORY), file]
    try:
        done = subprocess.run(command, capture_output=True, timeout=CLOCK, check=False)
    except subprocess.TimeoutExpired:
        return f"it took more than {CLOCK} seconds"
    if done.returncode < 0:
        return f"it took more than {CLOCK} seconds or {MEMORY >> 30} GiB"
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        return f"it failed ({(lines or ['no reason'])[-1][:150]})"
    return ""


def unusual(document: Mapping[str, Any], size: int) -> str | None:
    """Say what about a tokenizer.json makes it worth a trial, or None."""
    if size > MOST_BYTES:
        return f"{size >> 20} MiB"
    added = document.get("added_tokens") or []
    if len(added) > MOST_ADDED:
        return f"{len(added):,} added tokens"
    for part in ("normalizer", "pre_tokenizer", "decoder", "post_processor"):
        for pattern in regexes(document.get(part)):
            if may_backtrack(pattern):
                return f"the pattern {pattern[:60]!r}"
    return None


_ATOM = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]", re.DOTALL)
"""What holds no group and no repeat: an escape, a class of characters."""
_REPEAT = re.compile(r"[*+]|\{\d*,\d*\}")


def may_backtrack(pattern: str) -> bool:
    r"""Say whether a pattern may take exponential time: it repeats a repeat, or refers back.

    Examples
    --------
    >>> may_backtrack(r"(a+)+$"), may_backtrack(r"(?i:'s|'t)|[^\r\n]?\p{L}+|\s+(?!\S)")
    (True, False)
    """
    if re.search(r"\\[1-9kg]", pattern):
        return True
    plain = _ATOM.sub("a", re.sub(r"\\[pP]\{[^}]*\}", "a", pattern))
    open_repeats = [False]  # by group that is open: whether a repeat or a choice is in it
    for at, letter in enumerate(plain):
        if letter == "(":
            open_repeats.append(False)
        elif letter == ")":
            inside = len(open_repeats) > 1 and open_repeats.pop()
            repeated = _REPEAT.match(plain, at + 1) is not None
            if inside and repeated:
                return True
            open_repeats[-1] |= inside
        elif letter == "|" or _REPEAT.match(plain, at) is not None:
            open_repeats[-1] = True
    return False

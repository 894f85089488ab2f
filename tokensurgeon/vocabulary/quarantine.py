"""Tokenizer files that could hang or exhaust memory are first loaded in a child process.

Once the tokenizers library runs a regular expression that backtracks without end, it cannot be
interrupted. So a suspicious file is loaded in a child process with bounded time and memory, which
encodes a few texts on which such patterns backtrack.
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
"""Seconds of real and of processor time that the child may take; a tokenizer loads in a few."""
MEMORY = 6 << 30
"""Bytes of address space of the child: ample for any tokenizer, and within a small machine."""
MOST_BYTES = 64 << 20
"""A larger file is tried in the child. Gemma 3's, with 262,144 tokens, has 33 MB."""
MOST_ADDED = 10_000
"""A file with more added tokens is tried in the child; published ones have up to a few thousand."""

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
"""Patterns that backtrack exponentially do so on a run of one character, or of two in turn, before
another one: forty characters take 2^40 steps."""


def try_in_child(file: Path, document: Mapping[str, Any]) -> None:
    """Load an unusual tokenizer.json in a child process; others are not tried.

    Parameters
    ----------
    file : Path
    document : mapping
        The content of the file.

    Raises
    ------
    TokenizerError
        If the child does not end in time and within its memory.
    """
    stat = file.stat()
    feature = unusual(document, stat.st_size)
    if feature is None:
        return
    reason = _tried(str(file), stat.st_size, stat.st_mtime_ns)
    if reason:
        raise TokenizerError(
            f"{file} was tried in a process of its own, for it has {feature}: {reason}; "
            "it is refused"
        )


@lru_cache(maxsize=256)
def _tried(file: str, size: int, changed: int) -> str:
    """Return why a file is refused, or ''; each version of a file is tried once."""
    command = [sys.executable, "-P", "-c", CHILD, str(CLOCK), str(MEMORY), file]
    try:
        child = subprocess.run(command, capture_output=True, timeout=CLOCK, check=False)
    except subprocess.TimeoutExpired:
        return f"it took more than {CLOCK} seconds"
    if child.returncode < 0:
        return f"it took more than {CLOCK} seconds or {MEMORY >> 30} GiB"
    if child.returncode:
        lines = child.stderr.decode("utf-8", "replace").strip().splitlines()
        return f"it failed ({(lines or ['no reason'])[-1][:150]})"
    return ""


def unusual(document: Mapping[str, Any], size: int) -> str | None:
    """Return why a tokenizer.json should be tried in the child, or None."""
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
"""An escape or a class of characters: neither contains a group or a repeat."""
_REPEAT = re.compile(r"[*+]|\{\d*,\d*\}")


def may_backtrack(pattern: str) -> bool:
    r"""Return whether a pattern may take exponential time: repeats in repeats, or back references.

    Examples
    --------
    >>> may_backtrack(r"(a+)+$"), may_backtrack(r"(?i:'s|'t)|[^\r\n]?\p{L}+|\s+(?!\S)")
    (True, False)
    """
    if re.search(r"\\[1-9kg]", pattern):
        return True
    plain = _ATOM.sub("a", re.sub(r"\\[pP]\{[^}]*\}", "a", pattern))
    varies = [False]  # for each open group, whether it contains a repeat or a choice
    for at, letter in enumerate(plain):
        if letter == "(":
            varies.append(False)
        elif letter == ")":
            inner_varies = len(varies) > 1 and varies.pop()
            repeated = _REPEAT.match(plain, at + 1) is not None
            if inner_varies and repeated:
                return True
            varies[-1] |= inner_varies
        elif letter == "|" or _REPEAT.match(plain, at) is not None:
            varies[-1] = True
    return False

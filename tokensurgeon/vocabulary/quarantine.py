"""Tokenizer files that could hang, exhaust memory or end the process are first tried in a child.

Once the tokenizers library runs a regular expression that backtracks without end, it cannot be
interrupted; where it cannot allocate memory, the process ends; where it panics, it prints lines of
its own. So whatever is not plain is tried in a child process with bounded time and memory: on a few
texts on which patterns backtrack, replacements grow and strips run past the end.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from tokensurgeon.errors import TokenizerError
from tokensurgeon.vocabulary.charsmap import LONGEST, stored_problem
from tokensurgeon.vocabulary.parts import Json, walk
from tokensurgeon.vocabulary.tame import odd_model, odd_part

CLOCK = 60
"""Seconds of real and of processor time that the child may take; a tokenizer loads in a few."""
PARTS_CLOCK = 20
"""The same for parts without a vocabulary, which take a fraction of a second."""
MEMORY = 6 << 30
"""Bytes of address space of the child: ample for any tokenizer, and within a small machine."""
MOST_BYTES = 64 << 20
"""A larger file is tried in the child. Gemma 3's, with 262,144 tokens, has 33 MB."""
MOST_ADDED = 10_000
"""A file with more added tokens is tried in the child; published ones have up to a few thousand."""
MOST_GROWTH = 32
"""Bytes that normalisation or decoding may make of one: Unicode's own forms make at most 18 letters
of one, whose memory and time are those of a longer text."""

CHILD = """
import json, resource, sys
clock, memory, most = map(int, sys.argv[1:4])
resource.setrlimit(resource.RLIMIT_CPU, (clock, clock + 1))
resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
from tokenizers import Tokenizer
text, probes = json.load(sys.stdin)
tokenizer = Tokenizer.from_file(text) if sys.argv[4] == "file" else Tokenizer.from_str(text)
tokenizer.no_padding()
tokenizer.no_truncation()
normalizer, decoder = tokenizer.normalizer, tokenizer.decoder
def check(what, before, after):
    before, after = len(before.encode()), len(after.encode())
    if after > most * before + 256:
        sys.exit(f"its {what} makes {after:,} bytes of {before:,}")
for length in (1, 40):
    for probe in probes:
        if normalizer is not None:
            check("normalizer", probe * length, normalizer.normalize_str(probe * length))
        if decoder is not None:
            check("decoder", probe * length, decoder.decode([probe] * length))
for pair in ("a", None), ("a b.\\n", None), ("a", "b"):
    tokenizer.encode(*pair)
for one in probes:
    for other in probes[:12]:
        tokenizer.encode(one * 40 + other, add_special_tokens=False)
        tokenizer.encode((one + other) * 20 + "!", add_special_tokens=False)
"""
"""Patterns that backtrack exponentially do so on a run of one character, or of two in turn, before
another one: forty characters take 2^40 steps."""
LETTERS = "aZ\u00e9\u0430\u4e00\u09161 \t\n.-\u0301"
"""Characters of the kinds that patterns tell apart; what a file's patterns name follows."""
_MOST_PROBES = 60
"""Characters tried at most, and patterns: their pairs take a fraction of a second."""


def try_in_child(file: Path, document: Mapping[str, Any]) -> None:
    """Try what is unusual in a tokenizer.json in a child process; a plain file is not tried.

    Parameters
    ----------
    file : Path
    document : mapping
        The content of the file.

    Raises
    ------
    TokenizerError
        If the child does not end in time and within its memory, or a charsmap is broken.
    """
    stat = file.stat()
    feature = unusual(document, stat.st_size)
    if feature is None:
        try_parts(str(file), document)
        return
    reason = _try("file", str(file.absolute()), _probes(document), CLOCK, stat.st_mtime_ns)
    _refuse(str(file), feature, reason)


def try_parts(name: str, document: Mapping[str, Any]) -> None:
    """Try what is not plain in the parts of a tokenizer, without its vocabulary, in a child.

    Parameters
    ----------
    name : str
        Of the file that they come from.
    document : mapping
        As tokenizer.json; of the parts that it lacks there are none.

    Raises
    ------
    TokenizerError
        As `try_in_child`.
    """
    for part in (*walk(document.get("normalizer")), *walk(document.get("decoder"))):
        if part["type"] == "Precompiled":
            problem = stored_problem(part.get("precompiled_charsmap"))
            if problem is not None:
                raise TokenizerError(f"{name}: its charsmap {problem}; restore the file")
        size = len(str(part.get("content")).encode("utf-8", "replace"))
        if part["type"] == "Replace" and size > LONGEST:
            raise TokenizerError(
                f"{name} replaces {str(part.get('pattern'))[:60]} by {size:,} bytes; at most "
                f"{LONGEST} are read: take that part out of the file"
            )
    feature = odd_part(document)
    if feature is None:
        return
    names = ("normalizer", "pre_tokenizer", "decoder", "post_processor")
    model = {"type": "WordLevel", "vocab": {"?": 0}, "unk_token": "?"}
    alone: Json = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [],
             **{part: document.get(part) for part in names}, "model": model}  # fmt: skip
    _refuse(
        name, feature, _try("text", json.dumps(alone), _probes(document), min(CLOCK, PARTS_CLOCK))
    )


def _refuse(name: str, feature: str, reason: str) -> None:
    if reason:
        raise TokenizerError(
            f"{name} has {feature}; tried in a process of its own, {reason}: mend that part of the "
            "file, or take another tokenizer"
        )


def _probes(document: Mapping[str, Any]) -> tuple[str, ...]:
    """Return characters of every kind; those that the file's patterns name; and these whole."""
    looked_for = [
        value.encode("utf-8", "replace").decode()
        for name in ("normalizer", "pre_tokenizer", "decoder")
        for part in walk(document.get(name))
        if isinstance(part.get("pattern"), dict)
        for value in part["pattern"].values()
        if isinstance(value, str)
    ]
    characters = dict.fromkeys(LETTERS + "".join(looked_for))
    whole = [value for value in dict.fromkeys(looked_for) if 1 < len(value) <= LONGEST]
    return (*list(characters)[:_MOST_PROBES], *whole[:_MOST_PROBES])


def _try(how: str, given: str, probes: tuple[str, ...], clock: int, changed: int = 0) -> str:
    """Return why a file, or the text of a tokenizer, is refused, or ''; each is tried once."""
    return _tried(CHILD, (clock, MEMORY, MOST_GROWTH), how, given, probes, changed)


@lru_cache(maxsize=256)
def _tried(
    child: str, limits: tuple[int, int, int], how: str, given: str, probes: tuple[str, ...], _: int
) -> str:
    command = [sys.executable, "-P", "-c", child, *map(str, limits), how]
    clock, memory, _most = limits
    try:
        ended = subprocess.run(
            command,
            input=json.dumps([given, probes]).encode(),
            capture_output=True,
            timeout=clock,
            check=False,
            env={**os.environ, "RUST_BACKTRACE": "0"},
        )
    except subprocess.TimeoutExpired:
        return f"it took more than {clock} seconds"
    said = ended.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason"]
    if ended.returncode < 0 and any(line.startswith("memory allocation") for line in said):
        return f"it needed more than {memory >> 30} GiB"
    if ended.returncode < 0:
        return f"it took more than {clock} seconds or {memory >> 30} GiB"
    if ended.returncode:
        return f"it failed ({said[-1].removeprefix('pyo3_runtime.')[:150]})"
    return ""


def unusual(document: Mapping[str, Any], size: int) -> str | None:
    """Return why a whole tokenizer.json should be tried in the child, or None."""
    if size > MOST_BYTES:
        return f"{size >> 20} MiB"
    added = document.get("added_tokens") or []
    if len(added) > MOST_ADDED:
        return f"{len(added):,} added tokens"
    return odd_model(document.get("model"))

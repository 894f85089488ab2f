"""Measure hypertokens on texts: how much shorter, beside the published codec, and generation.

    python scripts/measure_hypertokens.py lengths CHECKPOINT TEXT...
    python scripts/measure_hypertokens.py speed CHECKPOINT TEXT COMPOSER [--codes N]

``lengths`` needs the tokenizer alone; where the package zip2zip-compression is installed, its codec
runs beside ours on the same ids. ``speed`` writes with the plain model and with hypertokens, after
the same prompt, both by transformers' `generate`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

from tokensurgeon.runtime.hypertokens import Limits, decode, encode, load_zip
from tokensurgeon.runtime.hypertokens.zip_model import controls_of
from tokensurgeon.text import read_documents
from tokensurgeon.text.encoding import prefix_of
from tokensurgeon.vocabulary import load_vocabulary

LENGTHS = (256, 1024, 2048)
MERGES = (2, 3, 4, 8)
MAX_HYPERTOKENS = 2048


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """Return a result and the processor seconds it took."""
    start = time.process_time()
    result = call()
    return result, time.process_time() - start


def published(limits: Limits) -> Callable[[list[int]], list[int]] | None:
    """Return the codec of zip2zip-compression, from ids to codes; None where it is not there."""
    try:
        import zip2zip_compression
    except ImportError:
        return None
    codec = zip2zip_compression.LZWCompressor(
        limits.n_ids, limits.max_hypertokens, limits.max_ids, 0, sorted(limits.disabled)
    )
    return lambda ids: list(codec.encode(ids)[0])


def lengths(checkpoint: str, texts: list[str]) -> None:
    """Print a line for each text, context and merge size."""
    vocabulary = load_vocabulary(checkpoint)
    controls = controls_of(vocabulary)
    print("| text | tokens a sequence | ids a hypertoken | shorter | published | same | time |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for text in texts:
        ids: list[int] = []
        for document in read_documents([text]):
            ids += [*prefix_of(vocabulary), *vocabulary.encode(document.text)]
        for length in LENGTHS:
            parts = [ids[i : i + length] for i in range(0, len(ids) - length + 1, length)]
            for merge in MERGES if length == LENGTHS[-1] else (4,):
                limits = Limits(vocabulary.n_rows, MAX_HYPERTOKENS, merge, controls)
                ours, seconds = timed(lambda: [encode(part, limits) for part in parts])  # noqa: B023
                if any(decode(own, limits) != part for own, part in zip(ours, parts, strict=True)):
                    raise SystemExit(f"{text}: ids did not come back")
                n_ids, n_codes = sum(map(len, parts)), sum(map(len, ours))
                cells = ["–"] * 3
                codec = published(limits)
                if codec is not None:
                    theirs, own_seconds = timed(lambda: [codec(part) for part in parts])  # noqa: B023
                    same = sum(a == b for a, b in zip(ours, theirs, strict=True))
                    cells = [
                        f"{100 * (1 - sum(map(len, theirs)) / n_ids):.1f} %",
                        f"{same} of {len(parts)}",
                        f"{seconds / own_seconds:.1f}",
                    ]
                shorter = f"{100 * (1 - n_codes / n_ids):.1f} %"
                name = text.rpartition("/")[2]
                print("|", " | ".join([name, f"{length}", f"{merge}", shorter, *cells]), "|")


def speed(checkpoint: str, text: str, composer: str, n_codes: int, prompt_bytes: int) -> None:
    """Print tokens and bytes per processor second, without and with hypertokens."""
    prompt = read_documents([text])[0].text[:prompt_bytes]
    print("| | prompt | tokens | codes | bytes | tokens/s | bytes/s |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, most in (("plain", 0), ("hypertokens", None)):
        zipped = load_zip(checkpoint, composer, max_hypertokens=most)
        zipped.generate([prompt[:200]], max_new_codes=4)  # what is loaded once
        (one,), seconds = timed(lambda: zipped.generate([prompt], max_new_codes=n_codes))  # noqa: B023
        cells = [
            f"{one.n_prompt_codes:,}", f"{len(one.ids):,}", f"{len(one.codes):,}",
            f"{one.n_bytes:,}", f"{len(one.ids) / seconds:.2f}", f"{one.n_bytes / seconds:.1f}",
        ]  # fmt: skip
        print(f"| {name} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["lengths", "speed"])
    parser.add_argument("checkpoint")
    parser.add_argument("rest", nargs="+")
    parser.add_argument("--codes", type=int, default=100)
    parser.add_argument("--prompt-bytes", type=int, default=4000)
    given = parser.parse_args()
    if given.what == "lengths":
        lengths(given.checkpoint, given.rest)
    else:
        text, composer = given.rest
        speed(given.checkpoint, text, composer, given.codes, given.prompt_bytes)

"""Aligns every ordered pair of the tokenizers below a folder, and checks the matches another way.

    python scripts/bench_alignment.py FOLDER [--only NAME,NAME] [--json]

For each pair: how many ids are shared and missing, how many EXACT and BYTE matches are false, how
many missing tokens have pieces and whether these spell the token, and the time taken. A match is
false if the two tokenizers, decoding the id between two neighbours, give different texts. A decoder
cannot show tokens that are not valid UTF-8: for these only our own tables are compared, and
`checked_in_context` does not count them.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from tokensurgeon.alignment import Match, align
from tokensurgeon.vocabulary import Kind, Vocabulary, load_vocabulary


def in_context(vocabulary: Vocabulary) -> list[str | None]:
    """Return what each id adds to a decoded text; None if that is not valid UTF-8."""
    tokenizer = vocabulary.tokenizer
    letters = [
        i
        for i, spelling in enumerate(vocabulary.spellings)
        if spelling in ("a", "b", "e", "x", "##a", "##b") and vocabulary.kinds[i] == Kind.ORDINARY
    ]
    letter = letters[0]
    left = tokenizer.decode([letter], skip_special_tokens=False)
    pair = tokenizer.decode([letter, letter], skip_special_tokens=False)
    tail = pair[len(left) :]
    sequences = [[letter, i, letter] for i in range(vocabulary.n_rows)]
    texts = tokenizer.decode_batch(sequences, skip_special_tokens=False)
    added: list[str | None] = []
    for i, text in enumerate(texts):
        whole = text.startswith(left) and text.endswith(tail) and "\ufffd" not in text
        is_text = vocabulary.kinds[i] in (Kind.ORDINARY, Kind.BYTE)
        added.append(text[len(left) : len(text) - len(tail)] if whole and is_text else None)
    return added


def bench(
    source: Vocabulary, target: Vocabulary, ours: list[str | None], theirs: list[str | None]
) -> dict[str, Any]:
    """Align one pair and check it."""
    start = time.perf_counter()
    alignment = align(source, target)
    aligned = time.perf_counter()
    missing = alignment.missing.tolist()
    pieces = [source.pieces_of(target.token_bytes[i] or b"") for i in missing]
    done = time.perf_counter()
    checked = false = 0
    for i in alignment.shared.tolist():
        if alignment.match[i] not in (Match.EXACT, Match.BYTE):
            continue
        j = int(alignment.source_ids[i])
        if target.token_bytes[i] != source.token_bytes[j]:
            false += 1
        elif theirs[i] is not None and ours[j] is not None:
            checked += 1
            false += theirs[i] != ours[j]
    spelled = [(i, ids) for i, ids in zip(missing, pieces, strict=True) if ids is not None]
    right = sum(source.bytes_of(ids) == target.token_bytes[i] for i, ids in spelled)
    summary = alignment.summary()
    return {
        "shared": summary["shared"],
        "missing": summary["missing"],
        **summary["by_match"],
        "unmatched_controls": summary["unmatched_controls"],
        "checked_in_context": checked,
        "false": false,
        "with_pieces": len(spelled),
        "pieces_right": right,
        "align_seconds": round(aligned - start, 3),
        "pieces_seconds": round(done - aligned, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="", help="names, separated by commas")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    chosen = set(filter(None, options.only.split(",")))
    folders = [
        file.parent
        for file in sorted(options.folder.glob("**/tokenizer.json"))
        if not chosen or file.parent.name in chosen
    ]
    vocabularies, contexts = {}, {}
    for folder in folders:
        vocabularies[folder.name] = load_vocabulary(folder)
        contexts[folder.name] = in_context(vocabularies[folder.name])
    rows = [
        {"source": a, "target": b}
        | bench(vocabularies[a], vocabularies[b], contexts[a], contexts[b])
        for a in vocabularies
        for b in vocabularies
        if a != b
    ]
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    if not rows:
        print(f"fewer than two tokenizers below {options.folder}")
        return
    print("| " + " | ".join(rows[0]) + " |")
    print("|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(str(value) for value in row.values()) + " |")
    seconds = [row["align_seconds"] + row["pieces_seconds"] for row in rows]
    print(
        f"\n{len(rows)} ordered pairs; {sum(r['false'] for r in rows)} false of "
        f"{sum(r['exact'] + r['byte'] for r in rows)} matches by bytes "
        f"({sum(r['checked_in_context'] for r in rows)} checked in context); pieces spell "
        f"{sum(r['pieces_right'] for r in rows)} of {sum(r['with_pieces'] for r in rows)} tokens "
        f"that have any, of {sum(r['missing'] for r in rows)} missing; "
        f"{sum(seconds):.1f} s in all, {max(seconds):.1f} s the slowest pair"
    )


if __name__ == "__main__":
    main()

"""Whether a checkpoint knows a text: its vocabulary was trained on it, or its rows fitted to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tokensurgeon.checkpoint.files import read_json
from tokensurgeon.errors import CorpusError, TokensurgeonError, UsageError
from tokensurgeon.text.corpus import Corpus, find_files
from tokensurgeon.text.seen import refuse_seen

REPORT = "report.json"
"""Of a patched checkpoint, what was done."""


def refuse_known(folder: Path | None, corpus: Corpus, allow: bool) -> None:
    """Refuse a text that a checkpoint knows, as far as its folder says.

    Parameters
    ----------
    folder : Path or None
        Of the checkpoint.
    corpus : Corpus
    allow : bool
        Refuse nothing.

    Raises
    ------
    UsageError
        If the vocabulary was trained on the text (see `refuse_seen`), or a file of it is one that
        the checkpoint's report names as calibration text.
    """
    refuse_seen(folder, corpus.texts, allow)
    if folder is None or allow:
        return
    known = set(_calibration_files(folder))
    for file in corpus.files:
        if Path(file).resolve() in known:
            raise UsageError(
                f"{file} is text that {folder} was calibrated on, as its {REPORT} says: give other "
                "text, or --allow-seen-text"
            )


def _calibration_files(folder: Path) -> Iterator[Path]:
    """Yield the files of the calibration text that are still where the report says."""
    if not (folder / REPORT).is_file():
        return
    try:
        named = read_json(folder, REPORT)["recipe"]["text"]["calibration"]
    except (TokensurgeonError, KeyError, TypeError):  # `verify` says what is wrong with it
        return
    for pattern in named if isinstance(named, list) else ():
        try:
            yield from (file.resolve() for file in find_files([str(pattern)]))
        except CorpusError:  # it is not there any more, or no file
            continue

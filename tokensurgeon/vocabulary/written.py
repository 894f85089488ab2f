"""What we write we check as we check what we read: the one test of every tokenizer written."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from tokensurgeon.errors import TokenizerError
from tokensurgeon.vocabulary.load import load_vocabulary


def check_written(folder: Path, meant: Tokenizer) -> None:
    """Open the tokenizer of a folder that is not at its place yet, by the rules for any input.

    Parameters
    ----------
    folder : Path
        A temporary folder with the files as they will stand at the output.
    meant : tokenizers.Tokenizer
        What they were written from.

    Raises
    ------
    TokenizerError
        If they would be refused as an input, or a token would have another id.
    """
    try:
        written = load_vocabulary(folder).tokenizer.get_vocab()
    except TokenizerError as error:
        reason = str(error).replace(f"{folder}/", "").replace(str(folder), "the folder")
        raise TokenizerError(
            f"the new tokenizer would be refused as an input, so it is not written: {reason}"
        ) from error
    ids = meant.get_vocab()
    if written != ids:
        token = min(dict(ids.items() ^ written.items()), key=lambda t: ids.get(t, len(ids)))
        raise TokenizerError(
            f"the new tokenizer would be read with other ids, so it is not written: {token[:40]!r} "
            f"has the id {ids.get(token)} and {written.get(token)} when read; report it with the "
            "tokenizer it was made of"
        )

"""A small file of text that a setting names: a list of terms, a chat template."""

from __future__ import annotations

from pathlib import Path

from tokensurgeon.errors import CorpusError

MOST_BYTES = 64 << 20
"""Read at most: a million terms have twenty megabytes. A device such as /dev/zero never ends."""


def read_setting(name: str | Path, what: str = "the file") -> str:
    """Return the text of a file; `what` it is stands in messages.

    Raises
    ------
    CorpusError
        If it cannot be read, is larger than `MOST_BYTES`, or is not UTF-8.
    """
    try:
        with Path(name).expanduser().open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise CorpusError(
                f"{what} {name} has more than {MOST_BYTES:,} bytes; name a smaller one"
            )
        return data.decode("utf-8")
    except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
        not_text = isinstance(error, UnicodeDecodeError)
        reason = "it is not UTF-8" if not_text else getattr(error, "strerror", None) or str(error)
        raise CorpusError(f"cannot read {what} {name}: {reason}; name a text file") from error

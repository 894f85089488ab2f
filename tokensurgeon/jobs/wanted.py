"""What a trim is asked to keep: text, scripts, languages, a number of ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokensurgeon.errors import UsageError
from tokensurgeon.text.corpus import find_files
from tokensurgeon.vocabulary.scripts import scripts_named, scripts_of_language


@dataclass(frozen=True)
class Wanted:
    """What is to be kept.

    Attributes
    ----------
    text : tuple of str
        Files, folders, globs or ``hf:`` datasets whose tokens are kept.
    scripts : tuple of str
        As `scripts_named` spells them.
    languages : tuple of str
        As they were given.
    size : int or None
    least_uses, pad_to_multiple_of : int
    """

    text: tuple[str, ...]
    scripts: tuple[str, ...]
    languages: tuple[str, ...]
    size: int | None
    least_uses: int
    pad_to_multiple_of: int

    @classmethod
    def parse(
        cls,
        text: Sequence[str | Path],
        scripts: Sequence[str],
        languages: Sequence[str],
        size: int | None,
        least_uses: int,
        pad_to_multiple_of: int,
    ) -> Wanted:
        """Return what is to be kept, from what a user gave.

        A language is a code of the table of `vocabulary.scripts`, of which the scripts are kept, or
        ``NAME=FILE``, of which the text is.

        Raises
        ------
        UsageError
            If nothing is said, a number is below 1, or a language has an empty name or file.
        UnknownNameError, CorpusError
            If there is no such script, language or file.
        """
        files, named = [str(name) for name in text], list(scripts)
        for language in languages:
            name, equals, file = language.partition("=")
            if equals and not (name.strip() and file.strip()):
                raise UsageError(f"'{language}' is no language; write de, or de=FILE")
            if equals:
                files.append(file.strip())
            else:
                named += scripts_of_language(name)
        numbers = {
            "size": size, "least_uses": least_uses, "pad_to_multiple_of": pad_to_multiple_of
        }  # fmt: skip
        for key, value in numbers.items():
            if value is not None and value < 1:
                raise UsageError(f"{key} is {value}; give 1 or more")
        if not (files or named or size is not None):
            raise UsageError(
                "nothing says which tokens to keep: give text, scripts, languages or a size"
            )
        if least_uses > 1 and not files:
            raise UsageError(f"{least_uses} uses are counted in a text, and there is none: give it")
        local = [name for name in files if not name.startswith("hf:")]
        if local:
            find_files(local)
        return cls(
            tuple(files),
            scripts_named(named),
            tuple(languages),
            size,
            least_uses,
            pad_to_multiple_of,
        )

    def settings(self, other_text: Sequence[str]) -> dict[str, Any]:
        """Return it as plain values for a report."""
        return {
            "text": list(self.text),
            "scripts": list(self.scripts),
            "languages": list(self.languages),
            "size": self.size,
            "least_uses": self.least_uses,
            "pad_to_multiple_of": self.pad_to_multiple_of,
            "other_text": list(other_text),
        }

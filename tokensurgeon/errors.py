"""Every error that tokensurgeon raises on purpose.

::

    TokensurgeonError                  exit code 1
    ├── UsageError                     exit code 2: what was asked cannot be asked
    │   ├── RecipeError                a recipe, its keys or its values
    │   ├── SettingError               a setting of a method
    │   ├── UnknownNameError           no method, role or token of that name
    │   └── OutputExistsError          the output is there already, and no --force
    ├── TokenizerError                 a tokenizer cannot be read, or loses what is needed
    ├── AlignmentError                 two vocabularies cannot be matched as asked
    ├── CorpusError                    a text cannot be read, or is too little
    ├── CheckpointError                a checkpoint cannot be read or written
    │   ├── OutputError                what is to be written cannot be, there
    │   ├── UnsafeCheckpointError      it could harm: pickle, escaping paths, broken headers
    │   └── UnsupportedCheckpointError a layout that we refuse rather than guess
    ├── InitialiserError               an initialiser broke its contract, or cannot work here
    ├── CalibrationError               nothing to calibrate on, or a stage that cannot work here
    ├── EvaluationError                nothing comparable can be measured
    ├── HubError                       the hub refuses what is pushed, or cannot be reached
    ├── MissingExtraError              an optional package is not installed
    └── BoundExceededError             exit code 3: a bound such as --max-rise was exceeded

A message is one line: a fact with numbers, then the next step. Library errors are never click's;
the command line turns them into one line on stderr and the exit code of the class.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

LONGEST = 550
"""Characters of a message: some lines of a terminal, whatever a file put into it."""


class TokensurgeonError(Exception):
    """Base of all errors raised on purpose; `exit_code` is what the command line ends with.

    The message is one line, whatever a file's names and keys hold; of a very long one the middle
    is left out.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: object = "") -> None:
        """Bring the message into one line."""
        line = " ".join(str(message).split())
        if len(line) > LONGEST:
            line = f"{line[: LONGEST - 150]} … {line[-150:]}"
        super().__init__(line)


class UsageError(TokensurgeonError):
    """What was asked cannot be asked: a wrong name, value or combination."""

    exit_code: ClassVar[int] = 2


class RecipeError(UsageError):
    """A recipe has an unknown key, a wrong type or a combination that makes no sense."""


class SettingError(UsageError):
    """A setting of an initialiser (or another method) is out of its range."""


class UnknownNameError(UsageError):
    """No initialiser, role or token of that name."""


class OutputExistsError(UsageError):
    """The output path exists already and `force` was not given."""


class TokenizerError(TokensurgeonError):
    """A tokenizer cannot be read, is inconsistent, or loses what is needed."""


class AlignmentError(TokensurgeonError):
    """Two vocabularies cannot be matched as asked."""


class CorpusError(TokensurgeonError):
    """A text cannot be read, or there is too little of it."""


class CheckpointError(TokensurgeonError):
    """A checkpoint cannot be read or written."""


class OutputError(CheckpointError):
    """A file or folder cannot be written there: no room, no permission, or it is read."""


class UnsafeCheckpointError(CheckpointError):
    """A checkpoint could do harm: pickle, escaping paths, broken headers, non-finite rows."""


class MisfitError(CheckpointError):
    """Its files hold another model than its configuration describes."""


class UnsupportedCheckpointError(CheckpointError):
    """A layout that is refused rather than guessed at."""


class HubError(TokensurgeonError):
    """The hub refuses what is pushed, or cannot be reached."""


class InitialiserError(TokensurgeonError):
    """An initialiser broke its contract, or cannot work on this pair."""


class CalibrationError(TokensurgeonError):
    """There is nothing to calibrate on, or a stage cannot work on this checkpoint."""


class EvaluationError(TokensurgeonError):
    """Nothing comparable can be measured."""


class MissingExtraError(TokensurgeonError):
    """An optional package is not installed; the message names the exact `pip install`."""


class BoundExceededError(TokensurgeonError):
    """A bound that the user set, such as `--max-rise`, was exceeded."""

    exit_code: ClassVar[int] = 3


def reason(error: BaseException, longest: int = 250) -> str:
    r"""Return why another library failed: its whole message in one line, to stand in one of ours.

    Its first line alone often ends where the fact begins ("Validation error for field 'n':").

    Examples
    --------
    >>> reason(ValueError("Validation error for 'n':\n  expected int, got str"))
    "Validation error for 'n': expected int, got str"
    >>> reason(KeyError("n"))
    "there is no 'n'"
    """
    text = " ".join(str(error).split())
    if isinstance(error, KeyError) and len(error.args) == 1:
        text = f"there is no {text}"
    elif isinstance(error, RecursionError):
        text = "nested too deeply"
    elif "set_int_max_str_digits" in text:
        text = f"a number has more than {sys.get_int_max_str_digits():,} digits"
    if len(text) > longest:
        text = f"{text[: longest - 2].rstrip()} …"
    return text.rstrip(" .:;,") or type(error).__name__


@contextmanager
def reading(
    file: object, advice: str, raises: type[TokensurgeonError] = CheckpointError
) -> Iterator[None]:
    """Blame a file for whatever goes wrong while it is read.

    Parameters
    ----------
    file
        What the message names.
    advice : str
        The next step, such as "transplant again".
    raises : type
        Of the error; errors of ours pass as they are.

    Examples
    --------
    >>> with reading("rows.json", "transplant again"):
    ...     {}["rows"]
    Traceback (most recent call last):
    tokensurgeon.errors.CheckpointError: rows.json is damaged: there is no 'rows'; transplant again
    """
    try:
        yield
    except (TokensurgeonError, MemoryError):
        raise
    except Exception as error:
        why = reason(error)
        if isinstance(error, (TypeError, AttributeError, IndexError)):  # what Python says of it
            why = "a value is of another kind than it should be"
        raise raises(f"{file} is damaged: {why}; {advice}") from error

"""What a command owes the process that started it: signals, streams and exit codes."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that end a command in order: what it was writing is removed first."""
QUIET_SECONDS = 5.0
"""After a signal, further ones are ignored for so long: removing a temporary folder takes less, and
a terminal that closes, or a user in a hurry, sends several."""
BROKEN_PIPE = 128 + signal.SIGPIPE
"""What a shell reports of a program whose reader went away."""


class Ended(KeyboardInterrupt):
    """A signal that ends the command; it passes every handler of errors, as Ctrl-C does."""

    def __init__(self, number: int) -> None:
        """Keep the signal's number."""
        super().__init__(number)
        self.number = number


def said_of(interrupt: BaseException) -> tuple[str, int]:
    """Return the message and the exit code of an interruption."""
    number = interrupt.number if isinstance(interrupt, Ended) else signal.SIGINT
    message = "interrupted" if number == signal.SIGINT else f"ended by {signal.strsignal(number)}"
    return message, 128 + number


@contextlib.contextmanager
def ended_in_order() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end what runs inside as SIGINT does: by an exception.

    A signal that is ignored, as SIGHUP under nohup, or that somebody handles stays as it is.
    """
    last = -QUIET_SECONDS

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= QUIET_SECONDS:
            last = now
            raise Ended(number)

    ours = (signal.SIG_DFL, signal.default_int_handler)
    is_main = threading.current_thread() is threading.main_thread()
    before = {
        number: signal.signal(number, end)
        for number in ENDING
        if is_main and signal.getsignal(number) in ours
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def replace_unknown_characters() -> None:
    """Let a stream whose encoding lacks a character take a question mark for it."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def silence_failed_streams() -> OSError | None:
    """Silence a standard stream that takes no more; return why stdout does not, or None.

    Python would complain of it once more when the process ends.
    """
    failures: list[OSError | None] = []
    for stream in (sys.stderr, sys.stdout):
        failures.append(None)
        try:
            if stream is not None:
                stream.flush()
        except OSError as error:
            failures[-1] = error
            with contextlib.suppress(OSError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)
    return failures[-1]

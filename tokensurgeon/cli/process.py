"""What a command owes the process that started it: signals, streams and exit codes."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any, TextIO, cast

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


class Stdout:
    """Standard output that remembers why it took no more; all else is the stream's own.

    An error of a stream does not say which it is of. A character that the stream's encoding lacks
    becomes a question mark.
    """

    def __init__(self, stream: TextIO) -> None:
        """Take over a stream."""
        self.failure: OSError | None = None
        self._stream = stream

    def write(self, text: str) -> int:
        """Write as the stream does."""
        with self._watched():
            return self._stream.write(text)

    def flush(self) -> None:
        """Flush as the stream does."""
        with self._watched():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.failure = error
            raise


@contextlib.contextmanager
def lenient_streams() -> Iterator[None]:
    """Let standard streams lack characters, and stdout be a `Stdout`."""
    before = sys.stdout
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    if before is not None:  # a closed one
        sys.stdout = cast(TextIO, Stdout(before))
    try:
        yield
    finally:
        if stdout_failure() is not None:
            silence(before)
        sys.stdout = before


def stdout_failure() -> OSError | None:
    """Return why stdout takes no more, or None."""
    return sys.stdout.failure if isinstance(sys.stdout, Stdout) else None


def silence(stream: TextIO | None) -> None:
    """Lead a stream that failed to nowhere: Python would complain of it when it ends."""
    with contextlib.suppress(OSError, AttributeError, ValueError):  # it has no descriptor
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())  # type: ignore[union-attr]
        os.close(nowhere)

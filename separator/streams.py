"""Standard output and standard error that survive being closed, broken or full.

A service has no standard error, `… | head` stops reading, a terminal goes away: training goes on,
and a command whose results nobody reads any more ends quietly.
"""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from separator.errors import SeparatorError, one_line

GONE = {errno.EPIPE, errno.EIO, errno.EBADF}  # a pipe's reader, a terminal, the descriptor


class ReaderGoneError(Exception):
    """Nobody reads standard output any more."""


@contextlib.contextmanager
def safe_streams() -> Iterator["_Results"]:
    """Replace sys.stdout and sys.stderr by streams that are open, for the time of a command.

    Yields:
        The standard output; `incomplete` says whether some of it was lost.
    """
    _fill_closed()
    before = sys.stdout, sys.stderr
    messages = _Messages(before[1])
    results = _Results(before[0])
    sys.stdout, sys.stderr = results, messages
    try:
        yield results
    finally:
        messages.finish()
        sys.stdout, sys.stderr = before


class _Stream:
    """Hands everything to another stream, which may be None."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = _nowhere() if stream is None else stream
        if stream and hasattr(stream, "reconfigure"):
            # a locale need not have all letters of a file's name
            with contextlib.suppress(OSError, ValueError):
                stream.reconfigure(errors="backslashreplace")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write; what becomes of a text that cannot be written is the subclass's matter."""
        try:
            return self._stream.write(text)
        except (OSError, ValueError) as error:  # ValueError: it was closed
            self._fail(error)
        return len(text)

    def flush(self) -> None:
        """Flush, as `write`."""
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._fail(error)

    def _fail(self, error: OSError | ValueError) -> None:
        """Write nothing more to a stream that failed, at the end of the process neither."""
        nowhere = _nowhere()
        with contextlib.suppress(OSError, ValueError):
            os.dup2(nowhere.fileno(), self._stream.fileno())
        self._stream = nowhere


class _Messages(_Stream):
    """Standard error: what cannot be written is left out, since the work matters more."""

    def _fail(self, error: OSError | ValueError) -> None:
        """Give up a stream that is gone; one on a full disk may take the next message."""
        if isinstance(error, ValueError) or error.errno in GONE:
            super()._fail(error)

    def finish(self) -> None:
        """Drop what is still buffered and cannot be written: it would change the exit status."""
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            super()._fail(error)


class _Results(_Stream):
    """Standard output: results that cannot be written end the command.

    Attributes:
        incomplete: whether some could not be written, though somebody may want to read them.
    """

    incomplete = False

    def _fail(self, error: OSError | ValueError) -> None:
        super()._fail(error)
        if isinstance(error, BrokenPipeError):
            raise ReaderGoneError from error
        if isinstance(error, OSError):
            self.incomplete = True
            raise SeparatorError(f"standard output: {one_line(error)}") from error


def _fill_closed() -> None:
    """Give the descriptors 0, 1 and 2 to /dev/null where they are closed.

    Else the next file that is opened would get one, and whatever a library below Python prints
    would be written into it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one


def _nowhere() -> TextIO:
    return open(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8", closefd=False)

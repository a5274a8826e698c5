"""Progress bars and messages; a command goes on when they cannot be written."""

import contextlib
import os
import sys
from typing import TextIO

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from separator.errors import SeparatorError
from separator.logs import error_line


def log_above_bar() -> contextlib.AbstractContextManager:
    """Return a context in which log messages are printed above the bar."""
    return logging_redirect_tqdm() if sys.stderr else contextlib.nullcontext()


def say(text: str) -> None:
    """Print lines on standard output; one message says it when they cannot be written.

    Args:
        text: the lines, without the last line feed.
    """
    try:
        _print(text, sys.stdout)
    except SeparatorError as error:  # such as a full disk; the files of the songs count more
        complain(str(error))


def complain(text: str) -> None:
    """Print a line on standard error.

    Args:
        text: the line; control characters are escaped.
    """
    _print(error_line(text), sys.stderr)


def _print(text: str, stream: TextIO | None) -> None:
    """Print above the bar; a stream that is closed, or whose reader has gone, is silenced."""
    if stream is None:
        return
    try:
        tqdm.write(text, file=stream)
        stream.flush()
    except SeparatorError:
        raise
    except Exception:  # of any kind, since streams differ
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())  # what is still buffered goes there in the end
            os.close(nowhere)

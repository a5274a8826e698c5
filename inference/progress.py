"""What a command shows while it works; it works on when nobody can see it."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from separator.errors import printable


def bar(*arguments: Any, **options: Any) -> tqdm:
    """Make a progress bar on standard error, silent where that is no terminal or closed."""
    return tqdm(*arguments, disable=None if sys.stderr else True, **options)


@contextlib.contextmanager
def log_above_bar() -> Iterator[None]:
    """Print log messages above the bar instead of into it."""
    with logging_redirect_tqdm() if sys.stderr else contextlib.nullcontext():
        yield


def say(text: str) -> None:
    """Print a line, or a text of several, on standard output."""
    _print(text, sys.stdout)


def complain(text: str) -> None:
    """Print a line on standard error."""
    _print(f"separator: {printable(text)}", sys.stderr)


def _print(text: str, stream: TextIO | None) -> None:
    """Print above the bar; a stream that is closed, or whose reader has gone, is silenced."""
    if stream is None:
        return
    try:
        tqdm.write(text, file=stream)
        stream.flush()
    except Exception:  # of any kind, since streams differ: the files are what counts
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())  # what is still buffered goes there in the end
            os.close(nowhere)

"""Inputs that cannot be used, with a line for each."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from separator import audio
from separator.errors import one_line, printable


def unreadable(inputs: Sequence[str]) -> dict[str, str]:
    """Return a line for each input where none of them can be read, and nothing where one can.

    Args:
        inputs: songs and folders of songs.
    """
    failures: dict[str, str] = {}
    for path in map(Path, inputs):
        with reporting(path, failures):
            if path.is_dir() or audio.probe(path):
                return {}
    return failures


@contextlib.contextmanager
def reporting(path: Path, failures: dict[str, str]) -> Iterator[None]:
    """Turn any exception about one song into a failure: the other songs are wanted.

    Args:
        path: the song.
        failures: gets the line, by the song.

    Yields:
        None, once.
    """
    try:
        yield
    except Exception as error:  # decoders raise all kinds
        failures[str(path)] = named(path, error)


def named(path: Path, error: BaseException) -> str:
    """Return an error on one line that begins with a file's name.

    Args:
        path: the file.
        error: its text may begin with the name already.
    """
    name, text = printable(str(path)), one_line(error)
    return text if text.startswith((name, str(path))) else f"{name}: {text}"

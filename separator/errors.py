"""The exceptions that commands turn into a message, and any other one in a printable line."""

import contextlib
import errno
import textwrap
import unicodedata
from collections.abc import Iterator
from importlib.util import find_spec

MAX_FOREIGN_TEXT = 300  # characters of a message that is not ours
ESCAPED = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # controls, invisible formats, surrogates, separators
JOINERS = "\u200c\u200d"  # of letters in Persian and of pictures in emoji: part of the spelling
DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
TRAINING = {"torch", "torchaudio", "einops", "safetensors"}  # packages that the extra brings


class SeparatorError(Exception):
    """A one-line message that names the file or key, what is wrong, and the fix.

    Args:
        message: the text, which becomes `printable`: names of files may hold anything.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class UsageError(SeparatorError):
    """A command got arguments or settings that it does not accept."""


class ArgumentError(UsageError):
    """A Python function does not accept an argument, whose name begins the message.

    Options of commands are passed on under the same names.
    """

    def as_option(self) -> UsageError:
        """Return the same error with the name as the user of a command writes it."""
        name, colon, reason = str(self).partition(":")
        return UsageError(f"--{name.replace('_', '-')}{colon}{reason}")


def one_line(error: BaseException) -> str:
    """Return the message of an error, in one printable line.

    For an error of the operating system this is the system's text; for any other error that is not
    a SeparatorError, its class and the beginning of its text, which may end in a stack trace.
    """
    if isinstance(error, SeparatorError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return printable(error.strerror)
    text = f"{type(error).__name__}: {error}".rstrip(": ")
    return printable(textwrap.shorten(text, MAX_FOREIGN_TEXT, placeholder=" …"))  # one line


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural where it is not 1."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


@contextlib.contextmanager
def writing(path: object, fix: str) -> Iterator[None]:
    """Turn an error of the system in a block that writes a file into one line.

    Args:
        path: the file.
        fix: end of the line.

    Yields:
        None, once.

    Raises:
        SeparatorError: names the file.
    """
    try:
        yield
    except OSError as error:
        raise SeparatorError(f"{path}: {one_line(error)}; {fix}") from error


def explain(error: BaseException) -> str:
    """Return the line for an error that ends a command: the file, the cause, and the fix."""
    if isinstance(error, SeparatorError):
        return one_line(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's
        detail = one_line(error).partition(": ")[2]
        place = "" if isinstance(error, MemoryError) else " on the GPU"
        return f"not enough memory{place}{f' ({detail})' if detail else ''}"
    if isinstance(error, OSError) and error.strerror:
        names = [name for name in (error.filename, error.filename2) if name is not None]
        text = ": ".join([*(printable(_text(name)) for name in names), one_line(error)])
        return f"{text}; free some space on that disk" if error.errno in DISK_FULL else text
    if isinstance(error, ModuleNotFoundError) and error.name in TRAINING:
        lacks_torch = error.name != "torch" and find_spec("torch") is None
        needed = f"torch and {error.name}" if lacks_torch else error.name
        return f"needs {needed}; pip install 'separator[train]'"
    return f"unexpected {one_line(error)}; SEPARATOR_DEBUG=1 shows where it happened"


def printable(text: str) -> str:
    r"""Escape characters that could move a cursor, forge a line, hide text or fail to encode.

    Control characters, line feeds, characters that change the direction of writing, and surrogates
    (which stand for bytes of a file name that are not UTF-8) become \n, \x1b, \u202e or \udcff.

    Returns:
        The text on one line, safe to print.
    """
    if text.isprintable():
        return text
    return "".join(_escaped(character) for character in text)


def _escaped(character: str) -> str:
    if unicodedata.category(character) not in ESCAPED or character in JOINERS:
        return character
    return character.encode("unicode_escape").decode("ascii")


def _text(name: object) -> str:
    return name.decode(errors="surrogateescape") if isinstance(name, bytes) else str(name)

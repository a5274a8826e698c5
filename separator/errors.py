"""The one exception that the commands turn into a message, and any other one in a line."""

import textwrap

LONGEST = 300  # characters of what is not ours


class SeparatorError(Exception):
    """A one-line message that names the file or key, what is wrong, and the fix."""


def one_line(error: Exception) -> str:
    """What an error says, in one printable line.

    One of ours is its message, the system's its own words, and any other its class and the
    beginning of its text, which may end in a stack trace from below Python.
    """
    if isinstance(error, SeparatorError):
        text = str(error)
    elif isinstance(error, OSError) and error.strerror:
        text = error.strerror
    else:
        text = f"{type(error).__name__}: {error}".rstrip(": ")
        text = textwrap.shorten(text, LONGEST, placeholder=" …")
    return printable(" ".join(text.split()))


def printable(text: str) -> str:
    """Text that a terminal and JSON take, also where a file's name in it is no text."""
    return text.encode(errors="backslashreplace").decode()

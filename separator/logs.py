"""Messages on standard error: which, in which form, and the progress bars among them."""

import contextlib
import datetime
import json
import logging
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TextIO

from separator.commands import LOG_OPTIONS
from separator.errors import UsageError, printable

if TYPE_CHECKING:
    from tqdm import tqdm

ours = logging.getLogger("separator")
FORMS = ("", "text", "json")


def is_json() -> bool:
    """Whether each line on standard error is to be a JSON object."""
    return os.environ.get("SEPARATOR_LOG") == "json"


def shows_details() -> bool:
    """Whether tracebacks are wanted."""
    return os.environ.get("SEPARATOR_DEBUG", "0") not in ("", "0")


@contextlib.contextmanager
def configured(argv: list[str]) -> Iterator[list[str]]:
    """Send the log to standard error for the time of a command, as LOG_OPTIONS among its words say.

    Another program's logging stays as it is. Other libraries log warnings only: their information
    messages mean nothing to a user.

    Args:
        argv: the command's words.

    Yields:
        The words that are not such options.

    Raises:
        UsageError: the options contradict each other, or SEPARATOR_LOG is no form of a log.
    """
    chosen = {word for word in argv if word in LOG_OPTIONS}
    variables = {"--verbose": ("SEPARATOR_DEBUG", "1"), "--log-json": ("SEPARATOR_LOG", "json")}
    root, level = logging.getLogger(), ours.level
    handler = None if root.handlers else _StderrHandler()
    if chosen >= {"--quiet", "--verbose"}:
        raise UsageError("--quiet: contradicts --verbose; leave one of them out")
    if os.environ.get("SEPARATOR_LOG", "") not in FORMS:
        raise UsageError("SEPARATOR_LOG: give text or json")
    before = dict(os.environ)
    os.environ.update(variables[word] for word in chosen if word in variables)
    if handler:
        root.addHandler(handler)
        logging.captureWarnings(is_json())
    if handler or chosen:
        normal = logging.DEBUG if shows_details() else logging.INFO
        ours.setLevel(logging.ERROR if "--quiet" in chosen else normal)
    try:
        yield [word for word in argv if word not in chosen]
    finally:
        for name, _ in variables.values():
            os.environ.pop(name, None)
            os.environ.update({name: before[name]} if name in before else {})
        ours.setLevel(level)
        if handler:
            logging.captureWarnings(False)
            root.removeHandler(handler)


def event(logger: logging.Logger, message: str, **fields: Any) -> None:
    """Log what machines want to know, in --verbose and in JSON lines alone.

    Args:
        logger: of the calling module.
        message: for people.
        fields: the same for machines.
    """
    level = logging.INFO if is_json() else logging.DEBUG
    logger.log(level, "%s", message, extra={"fields": fields})


def error_line(text: str, **fields: str) -> str:
    """Return the line of an error from its text; fields are added where lines are JSON."""
    return _json("error", text, fields) if is_json() else f"separator: {printable(text)}"


def shows_bars() -> bool:
    """Whether standard error is a terminal for somebody who wants to see progress."""
    stream = sys.stderr
    usable = stream is not None and not stream.closed and stream.isatty()
    return usable and not is_json() and ours.level < logging.ERROR


def bar(*arguments: Any, hidden: bool = False, **options: Any) -> "tqdm":
    """Make a progress bar, unless it is hidden; arguments and other options are those of tqdm."""
    from tqdm import tqdm

    return tqdm(*arguments, disable=hidden or not shows_bars(), **options)


def _json(level: str, message: str, fields: dict[str, Any]) -> str:
    time = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    row = {"time": time, "level": level, "message": printable(message), **fields}
    return json.dumps(row, default=str)


class _LineFormatter(logging.Formatter):
    """Formats a message as one line, even if a file name in it holds line feeds."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the message with control characters escaped."""
        return printable(super().formatMessage(record))

    def format(self, record: logging.LogRecord) -> str:
        """Return a line of text, with a traceback if there is one; or a JSON object."""
        if not is_json():
            return super().format(record)
        fields = dict(getattr(record, "fields", {}))
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return _json(record.levelname.lower(), record.getMessage(), fields)


class _StderrHandler(logging.StreamHandler):
    """Writes to the present sys.stderr, which each command replaces."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)
        self.setFormatter(_LineFormatter("%(message)s"))

    @property
    def stream(self) -> TextIO:
        """The stream; tqdm looks at this attribute to find handlers that write to a terminal."""
        return sys.stderr

"""`separator COMMAND …`: find the command, hand over its arguments, turn errors into one line."""

import importlib
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import TextIO

from separator import __version__
from separator.commands import COMMANDS
from separator.errors import UsageError, explain, printable
from separator.streams import ReaderGoneError, safe_streams

DONE, FAILED, WRONG_USAGE, READER_GONE = 0, 1, 2, 141
HEAD_START = 10.0  # seconds in which a machine's first rank tells what is wrong for all of them
STATUSES = """\
exit status:
  0    all of the work was done
  1    some of it failed
  2    wrong usage: an unknown command, key or value; nothing was started
  3    stopped by its time limit (max_minutes), everything saved
  130, 143, 129    stopped by SIGINT (Ctrl-C), SIGTERM, SIGHUP, everything saved
  141  the reader of its output, such as `head`, went away"""


def main(argv: list[str] | None = None) -> int:
    """Run one command; the exit status is 0 only when all of its work was done.

    Args:
        argv: the words after `separator`; the process's own when not given.
    """
    return guarded(_run, sys.argv[1:] if argv is None else argv)


def guarded(command: Callable[[list[str]], int], argv: list[str]) -> int:
    """Run a command as a process of its own is run: log on stderr, any error is one line there.

    SEPARATOR_DEBUG=1 shows an error's traceback too. Standard output and error may be closed.

    Returns:
        The command's status, or that of the error which ended it.
    """
    with safe_streams():
        _start_log()
        try:
            try:
                return command(argv)
            finally:
                sys.stdout.flush()  # what cannot be written shows here, not at the very end
        except ReaderGoneError:
            return READER_GONE
        except KeyboardInterrupt as stop:  # a handler of another signal raises it with its number
            number = signal.Signals(*stop.args[:1] or [signal.SIGINT])
            how = "interrupted" if number == signal.SIGINT else f"stopped by {number.name}"
            sys.stderr.write(f"separator: {how}\n")
            return 128 + number
        except Exception as error:
            if os.environ.get("SEPARATOR_DEBUG", "0") not in ("", "0"):
                traceback.print_exc()
            usage_error = isinstance(error, UsageError)
            if usage_error and _repeats_another():
                time.sleep(HEAD_START)  # torchrun ends this process once the other has told it
            sys.stderr.write(f"separator: {explain(error)}\n")
            return WRONG_USAGE if usage_error else FAILED


def _repeats_another() -> bool:
    """Whether torchrun runs the same command as another rank on this machine."""
    return "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("LOCAL_RANK", "0") != "0"


def usage() -> str:
    """Return the text of `separator --help`."""
    rows = [f"  {name:<10} {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: separator COMMAND ...",
            "",
            *rows,
            "",
            "`separator help COMMAND` tells more, `separator --version` the version.",
            "",
            STATUSES,
            "",
        ]
    )


def _run(argv: list[str]) -> int:
    """Run the command that the first word names."""
    if not argv or argv[0] in ("-h", "--help") or argv == ["help"]:
        sys.stdout.write(usage())
        return DONE if argv else WRONG_USAGE
    name, rest = argv[0], argv[1:]
    if name in ("-V", "--version"):
        sys.stdout.write(f"separator {__version__}\n")
        return DONE
    if name == "help":
        name, rest = rest[0], ["--help"]
    if name not in COMMANDS:
        from separator.config import nearest

        kind = "option" if name.startswith("-") else "command"
        raise UsageError(f"unknown {kind} {name!r}{nearest(name, COMMANDS, 'commands')}")
    return importlib.import_module(COMMANDS[name].module).main(rest)


class _LineFormatter(logging.Formatter):
    """A message is one line, whatever the names in it hold."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the message without what could forge another line."""
        return printable(super().formatMessage(record))


class _StderrHandler(logging.StreamHandler):
    """Writes to the standard error of the moment: each command brings its own."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)
        self.setFormatter(_LineFormatter("%(message)s"))

    @property
    def stream(self) -> TextIO:
        """The stream, under the name by which tqdm recognises a terminal's handler."""
        return sys.stderr


def _start_log() -> None:
    """Send the log to stderr, unless the program around us has set up its own.

    Of other libraries, warnings alone: their news, such as what torch says at exit when its import
    was interrupted, mean nothing to a user.
    """
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(_StderrHandler())
        logging.getLogger("separator").setLevel(logging.INFO)

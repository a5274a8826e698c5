"""`separator COMMAND …`: find the command, pass its arguments on, turn errors into one line."""

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
HEAD_START = 10.0  # seconds that the first rank of a machine has to report an error of all ranks
STATUSES = """\
exit status:
  0    all of the work was done
  1    some of it failed
  2    wrong usage: an unknown command, key or value; nothing was started
  3    a training reached its time limit (max_minutes) and saved its state
  130, 143, 129    stopped by SIGINT (Ctrl-C), SIGTERM or SIGHUP; finished work is saved
  141  the program that reads the output, such as `head`, has ended"""


def main(argv: list[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the words after `separator`; by default those of the process.

    Returns:
        The exit status: 0 only when all of the work was done.
    """
    return guarded(_run, sys.argv[1:] if argv is None else argv)


def guarded(command: Callable[[list[str]], int], argv: list[str]) -> int:
    """Run a command; write its log, and any error as one line, to standard error.

    SEPARATOR_DEBUG=1 shows the traceback of an error too. Standard output and standard error may be
    closed.

    Args:
        command: takes the words after its name, returns the exit status.
        argv: these words.

    Returns:
        The exit status of the command, or of the error that ended it.
    """
    with safe_streams() as results:
        _start_log()
        try:
            try:
                status = command(argv)
            finally:
                sys.stdout.flush()  # raises here what would else fail at the end of the process
            return status or (FAILED if results.incomplete else DONE)
        except ReaderGoneError:
            return READER_GONE
        except KeyboardInterrupt as stop:  # handlers of other signals pass the signal's number
            number = signal.Signals(stop.args[0] if stop.args else signal.SIGINT)
            how = "interrupted" if number == signal.SIGINT else f"stopped by {number.name}"
            sys.stderr.write(f"separator: {how}\n")
            return 128 + number
        except Exception as error:
            if os.environ.get("SEPARATOR_DEBUG", "0") not in ("", "0"):
                traceback.print_exc()
            usage_error = isinstance(error, UsageError)
            if usage_error and _repeats_another():
                time.sleep(HEAD_START)  # torchrun ends this process once the first rank has exited
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
            "`separator help COMMAND` explains a command; `separator --version` is the version.",
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
    """Formats a message as one line, even if a file name in it holds line feeds."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the message with control characters escaped."""
        return printable(super().formatMessage(record))


class _StderrHandler(logging.StreamHandler):
    """Writes to the present sys.stderr, which each command replaces."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)
        self.setFormatter(_LineFormatter("%(message)s"))

    @property
    def stream(self) -> TextIO:
        """The stream; tqdm looks at this attribute to find handlers that write to a terminal."""
        return sys.stderr


def _start_log() -> None:
    """Send the log to standard error, unless the calling program has configured logging.

    Other libraries log warnings only: their information messages mean nothing to a user.
    """
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(_StderrHandler())
        logging.getLogger("separator").setLevel(logging.INFO)

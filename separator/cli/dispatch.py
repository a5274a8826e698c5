"""`separator COMMAND …`: find the command, pass its arguments on, turn errors into one line."""

import contextlib
import importlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable

from separator import __version__
from separator.commands import COMMANDS, LOG_OPTIONS, usage
from separator.errors import ArgumentError, UsageError, explain
from separator.logs import configured, error_line, is_json, shows_details
from separator.streams import ReaderGoneError, safe_streams

DONE, FAILED, WRONG_USAGE, READER_GONE = 0, 1, 2, 141
WITH_KEYS = {"pretrain", "train", "compare"}  # rather than options
HELP = {"help", "-h", "--help"}
HEAD_START = 10.0  # seconds that the first rank of a machine has to report an error of all ranks


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

    `--verbose` and SEPARATOR_DEBUG=1 show the traceback of an error too. Standard output and
    standard error may be closed.

    Args:
        command: takes the words after its name, returns the exit status.
        argv: these words.

    Returns:
        The exit status of the command, or of the error that ended it.
    """
    with safe_streams() as results, contextlib.ExitStack() as stack:
        try:
            try:
                status = command(stack.enter_context(configured(argv)))
            finally:
                sys.stdout.flush()  # raises here what would else fail at the end of the process
            return status or (FAILED if results.incomplete else DONE)
        except ReaderGoneError:
            return READER_GONE
        except KeyboardInterrupt as stop:  # handlers of other signals pass the signal's number
            number = signal.Signals(stop.args[0] if stop.args else signal.SIGINT)
            how = "interrupted" if number == signal.SIGINT else f"stopped by {number.name}"
            sys.stderr.write(error_line(how) + "\n")
            return 128 + number
        except Exception as error:
            details = traceback.format_exc() if shows_details() else ""
            if details and not is_json():
                sys.stderr.write(details)
            usage_error = isinstance(error, UsageError)
            if usage_error and _repeats_another():
                time.sleep(HEAD_START)  # torchrun ends this process once the first rank has exited
            fields = {"traceback": details} if details else {}
            sys.stderr.write(error_line(explain(error), **fields) + "\n")
            return WRONG_USAGE if usage_error else FAILED


def _repeats_another() -> bool:
    """Whether torchrun runs the same command as another rank on this machine."""
    return "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("LOCAL_RANK", "0") != "0"


def _run(argv: list[str]) -> int:
    """Run the command that the first word names."""
    if set(argv) <= HELP or argv[0] in HELP - {"help"}:
        sys.stdout.write(usage())
        return DONE if argv else WRONG_USAGE
    name, rest = argv[0], argv[1:]
    if name in ("-V", "--version"):
        sys.stdout.write(f"separator {__version__}\n")
        return DONE
    if name == "help":
        name, *further = rest
        if further:
            raise UsageError(f"help: explains one command; leave {further[0]!r} out")
        rest = ["--help"]
    if name not in COMMANDS:
        from separator.config_errors import nearest

        if os.path.exists(name):
            raise UsageError(f"unknown command {name!r}; did you mean `separator separate {name}`?")
        if name.startswith("-"):
            similar = nearest(name, ["--help", "--version", *LOG_OPTIONS], "options there")
            raise UsageError(f"unknown option {name!r} before a command{similar}")
        similar = nearest(name, [*COMMANDS, "help"], "commands")
        raise UsageError(f"unknown command {name!r}{similar}")
    try:
        return importlib.import_module(COMMANDS[name].module).main(rest)
    except ArgumentError as error:
        if name in WITH_KEYS:
            raise
        raise error.as_option() from error.__cause__

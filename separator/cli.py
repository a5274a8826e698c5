"""`separator COMMAND …`: find the command, hand over its arguments, turn errors into one line."""

import importlib
import io
import logging
import sys

from separator.errors import SeparatorError

COMMANDS = {
    "scan": ("separator.data.library", "index a music library; quarantine broken files"),
    "pretrain": ("separator.pretrain.command", "self-supervised pretraining on mixed songs"),
    "train": ("separator.train.command", "train or fine-tune on stems"),
    "separate": ("separator.inference.separate", "write the instrumental of songs"),
    "evaluate": ("separator.inference.evaluate", "score a model on songs with known stems"),
    "compare": (
        "separator.inference.compare.command",
        "pretrainings against each other, on separation",
    ),
    "demo": ("separator.inference.demo", "the whole chain on a small corpus, in minutes"),
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; the exit status is 0 only when all of its work was done.

    Args:
        argv: the words after `separator`; the process's own when not given.
    """
    argv = sys.argv[1:] if argv is None else argv
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be text
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(usage())
        return 0 if argv else 2
    name, rest = argv[0], argv[1:]
    try:
        if name not in COMMANDS:
            from separator.config import nearest

            raise SeparatorError(f"unknown command {name!r}{nearest(name, COMMANDS)}")
        return importlib.import_module(COMMANDS[name][0]).main(rest)
    except SeparatorError as error:
        sys.stderr.write(f"separator: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("separator: interrupted\n")
        return 130


def usage() -> str:
    """Return the text of `separator --help`."""
    rows = [f"  {name:<10} {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        ["usage: separator COMMAND …", "", *rows, "", "`separator COMMAND --help` tells more.", ""]
    )

"""Commands of `separator` in another process, of which starting takes longer than most of them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Self

LOOP = """
import contextlib, io, json, os, sys
from separator.cli import main
for line in sys.stdin:
    folder, words = json.loads(line)
    os.chdir(folder)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            status = main(words)
        except SystemExit as error:
            status = error.code
    print(json.dumps([status, printed.getvalue()]), flush=True)
"""


class Commands:
    """A process that runs one command after another. Use as a context manager.

    Args:
        code: folder in which the code lies.
        variables: of its environment, beside those there are.
    """

    def __init__(self, code: Path, **variables: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", LOOP],
            cwd=code,
            env={**os.environ, "PYTHONPATH": str(code), "OMP_NUM_THREADS": "1", **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.communicate(timeout=30)

    def run(self, folder: Path, *words: str | Path) -> tuple[int, str]:
        """Run a command in a folder; return its exit status and what it printed."""
        self.process.stdin.write(f"{json.dumps([str(folder), [*map(str, words)]])}\n")
        self.process.stdin.flush()
        status, printed = json.loads(self.process.stdout.readline())
        return status, printed

"""The child processes of a comparison, which end together."""

import os
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from pathlib import Path

import torch

from separator.errors import SeparatorError


class Stopped(Exception):
    """The comparison was asked to stop."""


class Children:
    """The processes of the runs in progress, to be stopped together.

    Args:
        jobs: number of processes at a time; they share the cores.
    """

    def __init__(self, jobs: int) -> None:
        threads = str(max(1, torch.get_num_threads() // jobs))
        self._environment = {"OMP_NUM_THREADS": threads} | os.environ | {"SEPARATOR_LOG": "text"}
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen] = set()
        self._folders: defaultdict[Path, threading.Lock] = defaultdict(threading.Lock)
        self._stopped = False

    def alone(self, folder: Path) -> threading.Lock:
        """Return the lock of a run folder: arms that share a pretraining take turns."""
        with self._lock:
            return self._folders[folder]

    def run(self, words: list[str], output: Path, ends: tuple[int, ...] = (0,)) -> None:
        """Run `python -m words` to its end.

        Args:
            words: module and arguments.
            output: file to which the process's output is appended.
            ends: exit statuses that are no failure.

        Raises:
            SeparatorError: the process failed; with the last line of its output.
            Stopped: the comparison was stopped.
        """
        with output.open("ab") as file:
            start = file.tell()
            with self._lock:
                self.check()
                process = subprocess.Popen(
                    [sys.executable, "-m", *words],
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env=self._environment,
                    process_group=0,  # Ctrl-C reaches it through `stop`, once
                )
                self._running.add(process)
            code = process.wait()
            with self._lock:
                self._running.discard(process)
        if code not in ends:
            self.check()
            with output.open("rb") as file:
                file.seek(start)
                reason = _last_line(file.read().decode("utf-8", "replace"))
            killed = f"killed by {signal.Signals(-code).name} after: " if code < 0 else ""
            raise SeparatorError(f"{killed}{reason} ({output})")

    def check(self) -> None:
        """End the work of a comparison that was stopped.

        Raises:
            Stopped: the comparison was stopped.
        """
        if self._stopped:
            raise Stopped

    def stop(self, number: int) -> None:
        """Send a signal, by its number, to all running processes, and start no more."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.send_signal(number)


def _last_line(output: str) -> str:
    """Return the last line of a process's output that is not empty."""
    lines = [line.strip() for line in output.replace("\r", "\n").splitlines() if line.strip()]
    return lines[-1].removeprefix("separator: ") if lines else "it said nothing"

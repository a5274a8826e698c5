"""Processes that read ahead, and how what they read reaches the training process.

A batch passes through shared memory, which costs nothing, or where there is too little of it (a
container has 64 MB unless told otherwise) through a pipe, which costs two copies. A batch that a
worker cannot pass on ends that worker: one that is merely missing would be waited for for ever.
"""

import logging
import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver, popen_forkserver, resource_tracker
from multiprocessing.context import BaseContext, ForkServerContext, ForkServerProcess
from multiprocessing.queues import Queue
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from separator.errors import SeparatorError, one_line
from separator.machine import SHARED, memory, shared_memory
from separator.processes import follow_parent
from separator.signals import STOP_SIGNALS

AHEAD = 2  # batches that each worker reads ahead
LOCKS = 8  # that a worker and its queues need at most

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stack:
    """Puts segments side by side where the training process can have them.

    Attributes:
        shared: Try shared memory first.
    """

    shared: bool

    def __call__(self, waves: Sequence[Tensor]) -> Tensor | np.ndarray:
        """Stack (…) waves to (b …); an array where they are to go through a pipe."""
        if self.shared:
            try:
                return default_collate(list(waves))  # in a worker: right into shared memory
            except RuntimeError as error:
                if "shared memory" not in str(error):
                    raise
        return np.stack([wave.numpy() for wave in waves])


class _Popen(popen_forkserver.Popen):
    """A worker that Python or torch ends by SIGKILL, since it ignores SIGTERM."""

    terminate = popen_forkserver.Popen.kill


class _Worker(ForkServerProcess):
    _Popen = staticmethod(_Popen)


class _Workers(ForkServerContext):
    """Starts workers from a clean server: a fork of a process with threads can hang."""

    Process = _Worker


def context_of(workers: int) -> BaseContext | None:
    """Return what starts worker processes; None where the system gives them no locks.

    Args:
        workers: number of processes.
    """
    context = _Workers()
    context.set_forkserver_preload(["separator.data.dataset"])
    _start_server()
    try:
        locks = [context.Lock() for _ in range(LOCKS * (workers + 1))]  # a page each in /dev/shm
    except (OSError, ImportError) as error:
        log.warning(
            "data.workers: this system provides no semaphores (%s: %s), so songs are read in the "
            "training process, which is slower; make %s writable",
            SHARED, one_line(error), SHARED,
        )  # fmt: skip
        return None
    del locks
    return context


def _start_server() -> None:
    """Start the processes that make the workers and watch their locks, deaf to what stops a run.

    SLURM and terminals send a signal to every process of a run. A helper that it ended would turn
    an orderly stop into a failure. New processes inherit which signals are blocked; one that comes
    meanwhile is delivered to this process afterwards.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        resource_tracker.ensure_running()  # unblocks some of them
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def check_size(batch: int) -> None:
    """Refuse batches of more bytes than this machine has.

    Raises:
        SeparatorError: names the settings to lower.
    """
    if batch > memory():
        raise SeparatorError(
            f"data.batch, data.segment_seconds: a batch takes {batch / 1e9:.0f} GB, this machine "
            f"has {memory() / 1e9:.0f} GB; lower one of them"
        )


def fits_shared(batch: int, workers: int) -> bool:
    """Return whether shared memory holds all batches that are on their way at once.

    Logs it where it does not. All processes of a run on this machine share it.

    Args:
        batch: bytes of a batch.
        workers: number of processes that read ahead.
    """
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    needed = batch * (AHEAD * workers + 2) * ranks  # 2: of the step, and of the one after it
    if not workers or needed <= shared_memory():
        return True
    log.warning(
        "%s has %.0f MB free, but reading ahead takes %.0f MB: batches go through pipes, which is "
        "slower; give the container more (--shm-size), or lower data.batch or data.workers",
        SHARED, shared_memory() / 1e6, needed / 1e6,
    )  # fmt: skip
    return False


def start_worker(worker: int) -> None:
    """Leave signals to the training process, which stops the workers itself; do not outlive it."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    # its own would drop the batch and go on
    Queue._on_queue_feeder_error = staticmethod(_end)  # type: ignore[attr-defined]
    follow_parent()


def _end(error: Exception, batch: object) -> None:
    """End a worker that cannot pass a batch on, so that nobody waits for the batch."""
    sys.stderr.write(f"separator: a worker cannot pass its batch on: {one_line(error)}\n")
    sys.stderr.flush()
    os._exit(1)


def received(loader: DataLoader, shared: bool) -> Iterator[Any]:
    """Yield what workers read, of which the stems come first.

    Args:
        loader: of batches that begin with what `Stack` made.
        shared: whether they are to come through shared memory; says so once if one does not.

    Raises:
        SeparatorError: a worker has died, or failed in a way that is not a song's fault.
    """
    try:
        for batch in loader:
            if shared and isinstance(batch[0], np.ndarray):
                log.warning("%s is full: batches go through pipes, which is slower", SHARED)
                shared = False
            yield batch
    except SeparatorError:
        raise
    except Exception as error:  # the loader's own, or any of a worker's with its stack as text
        text = str(error).strip()
        if re.search(r"Too many open files|ancdata", text):
            raise SeparatorError(
                "data.workers: too many open files; raise `ulimit -n`, or lower data.workers"
            ) from error
        if match := re.search(r"pids?\D*([\d, ]+).* (?:exited|killed)", text):
            raise SeparatorError(
                f"data.workers: worker {match[1].strip()} was killed or crashed; if memory was "
                "full, lower data.workers, data.memory_mb or data.batch; the same command resumes"
            ) from error
        if "DataLoader worker" in text:
            last = text.splitlines()[-1]
            raise SeparatorError(f"a worker that reads songs failed: {last}") from error
        raise

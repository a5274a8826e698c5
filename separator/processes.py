"""Worker processes: a pool that survives crashes, and processes that end with their parent."""

import itertools
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from separator.errors import SeparatorError
from separator.signals import handling

CALLS_AHEAD = 2  # calls handed out per process: none idles, and a crash makes few calls suspects

Arguments = TypeVar("Arguments", bound=tuple)
Result = TypeVar("Result")


def calls_in_processes(
    command: str,
    function: Callable[..., Result],
    calls: Iterable[Arguments],
    jobs: int,
    start: Callable[[], None],
) -> Iterator[tuple[Arguments, Result | None]]:
    """Call a function once for each tuple of arguments, in fresh processes.

    A process may die, by a fault of native code or for lack of memory. The calls that were handed
    out at that moment are then repeated one at a time, so that only the fatal one is lost.

    Args:
        command: the command's name, for its error.
        function: can be imported in a fresh process.
        calls: arguments of each call.
        jobs: number of processes.
        start: runs first in each process.

    Yields:
        The arguments and the result of each call in the order of completion; the result is None
        where the call ended its process.

    Raises:
        SeparatorError: no process starts.
    """
    remaining, suspects = dict(enumerate(calls)), {}
    while remaining or suspects:
        alone = bool(suspects)
        batch = suspects if alone else remaining
        processes, ahead = (1, 1) if alone else (jobs, CALLS_AHEAD * jobs)
        try:
            for number, result in _pooled(command, function, dict(batch), processes, ahead, start):
                yield batch.pop(number), result
        except BrokenProcessPool:
            if alone:
                yield suspects.pop(next(iter(suspects))), None
            else:  # the calls in work are among the first that have no result
                suspects = {n: remaining.pop(n) for n in list(remaining)[:ahead]}


def _pooled(
    command: str,
    function: Callable[..., Result],
    calls: dict[int, Arguments],
    jobs: int,
    ahead: int,
    start: Callable[[], None],
) -> Iterator[tuple[int, Result]]:
    """Yield number and result of each call; at most `ahead` calls are handed out at a time."""
    queue = iter(calls.items())
    spawn = multiprocessing.get_context("spawn")  # fork would copy threads in an unknown state
    with ProcessPoolExecutor(jobs, spawn, initializer=start) as pool:
        try:
            _check_start(command, pool)
            running: dict[Future, int] = {}
            while True:
                for number, arguments in itertools.islice(queue, ahead - len(running)):
                    running[_submitted(pool, function, *arguments)] = number
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), future.result()
        except BrokenProcessPool:
            raise
        except BaseException:  # Ctrl-C, or the caller stops: do not wait for long calls
            for process in list(pool._processes.values()):
                process.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _check_start(command: str, pool: ProcessPoolExecutor) -> None:
    """Raise where processes do not start at all: else every call would seem to be fatal."""
    try:
        _submitted(pool, os.getpid).result()
    except BrokenProcessPool as error:
        fix = 'use jobs=1, or put the script\'s own calls under `if __name__ == "__main__":`'
        raise SeparatorError(f"{command}: worker processes do not start; {fix}") from error


def _submitted(pool: ProcessPoolExecutor, function: Callable, *arguments: object) -> Future:
    """Submit a call; a process that this starts inherits that Ctrl-C is ignored."""
    with handling(signal.SIG_IGN, [signal.SIGINT]):
        return pool.submit(function, *arguments)


def follow_parent() -> None:
    """Exit when the process that started this one is gone, killed too, and not only finished.

    A waiting worker would else stay for ever, with all that it holds in memory; the system's own
    watch, where there is one, is on a fork server instead, which waits for its workers.
    """
    threading.Thread(target=_wait_for_the_end, daemon=True).start()


def _wait_for_the_end() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def follow_launcher(tell: Callable[[], None], every: float = 1.0) -> None:
    """Exit when the launcher of this process, such as torchrun, is gone.

    A launcher that was killed ends none of its ranks, and they would wait hours for each other,
    since it held what they meet by.

    What is watched is the process that started this one, so a launcher that goes through a shell
    is not noticed.

    Args:
        tell: called before the exit; says why.
        every: seconds from one look to the next.
    """
    threading.Thread(target=_watch, args=(os.getppid(), tell, every), daemon=True).start()


def _watch(launcher: int, tell: Callable[[], None], every: float) -> None:
    while os.getppid() == launcher:
        time.sleep(every)
    try:
        tell()
    finally:
        os._exit(1)

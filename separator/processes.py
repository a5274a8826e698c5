"""Worker processes: a pool that survives crashes, and processes that end with their parent."""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
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
    waiting, suspects = deque(calls), deque[Arguments]()
    while waiting or suspects:
        alone = bool(suspects)
        queue, size, ahead = (suspects, 1, 1) if alone else (waiting, jobs, CALLS_AHEAD * jobs)
        running: dict[Future, Arguments] = {}
        with _pool(command, size, start) as pool:
            try:
                while queue or running:
                    while queue and len(running) < ahead:
                        future = _submitted(pool, function, *queue[0])
                        running[future] = queue.popleft()
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        result = future.result()
                        yield running.pop(future), result
            except BrokenProcessPool:
                suspects.extend(running.values())
        if alone and running:
            yield suspects.pop(), None


@contextlib.contextmanager
def _pool(
    command: str, jobs: int, start: Callable[[], None]
) -> Generator[ProcessPoolExecutor, None, None]:
    """Hold a pool of fresh processes; an error, or a caller who stops, ends them at once."""
    spawn = multiprocessing.get_context("spawn")  # fork would copy threads in an unknown state
    with ProcessPoolExecutor(jobs, spawn, initializer=start) as pool:
        try:
            _submitted(pool, os.getpid).result()  # else every call would seem to be fatal
            yield pool
        except BrokenProcessPool as error:
            fix = 'use jobs=1, or put the script\'s own calls under `if __name__ == "__main__":`'
            raise SeparatorError(f"{command}: worker processes do not start; {fix}") from error
        except BaseException:
            for process in list(pool._processes.values()):
                process.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


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
    if parent := multiprocessing.parent_process():
        parent.join()
    os._exit(1)


def follow_launcher(tell: Callable[[], None]) -> None:
    """Exit when the launcher of this process, such as torchrun, is gone.

    A launcher that was killed ends none of its ranks, and they would wait hours for each other,
    since it held what they meet by.

    What is watched is the process that started this one, so a launcher that goes through a shell
    is not noticed.

    Args:
        tell: called before the exit; says why.
    """
    threading.Thread(target=_watch, args=(os.getppid(), tell), daemon=True).start()


def _watch(launcher: int, tell: Callable[[], None]) -> None:
    while os.getppid() == launcher:
        time.sleep(1)
    try:
        tell()
    finally:
        os._exit(1)

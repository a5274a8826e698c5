"""What worker processes of every kind need."""

import multiprocessing
import os
import threading
import time
from collections.abc import Callable


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

"""What worker processes of every kind need."""

import multiprocessing
import os
import threading


def follow_parent() -> None:
    """Exit when the process that started this one is gone, killed too, and not only finished.

    A waiting worker would else stay for ever, with all that it holds in memory; the system's own
    watch, where there is one, is on a fork server instead, which waits for its workers.
    """
    threading.Thread(target=_wait_for_the_end, daemon=True).start()


def _wait_for_the_end() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)

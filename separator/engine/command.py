"""What both training commands do around the loop."""

import ctypes
import logging
import sys
from collections.abc import Callable

from separator.engine.loop import fit
from separator.engine.task import RunConfig, Task


def run(make_task: Callable[[], Task], config: RunConfig) -> int:
    """Set the process up, train, and say on stderr where the result is."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    keep_memory()
    folder = fit(make_task(), config)
    logging.getLogger(__name__).info("%s: model.safetensors, last.pt, metrics.jsonl", folder)
    return 0


def keep_memory() -> None:
    """Let glibc keep freed memory for the next tensor instead of giving it back each time.

    Fresh pages cost more than the arithmetic on them: elementwise passes over large tensors are
    two to three times faster with this. Elsewhere than on glibc it does nothing.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD: tensors up to 1 GiB from the heap
        mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD: never shrink it

"""What both training commands do around the loop."""

import logging
from collections.abc import Callable

from separator.allocator import keep_memory
from separator.engine.loop import fit
from separator.engine.task import RunConfig, Task


def run(make_task: Callable[[], Task], config: RunConfig) -> int:
    """Set the process up, train, and say on stderr where the result is."""
    keep_memory()
    folder = fit(make_task(), config)
    logging.getLogger(__name__).info("%s: model.safetensors, last.pt, metrics.jsonl", folder)
    return 0

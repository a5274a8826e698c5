"""Log the first training crops of a new run before its first step."""

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from separator.engine.log import Log
from separator.engine.task import Task


@torch.no_grad()
def preview(
    task: Task, model: nn.Module, batches: Iterator[Any], generator: torch.Generator, log: Log
) -> Iterator[Any]:
    """Log the first micro-batch as step 0.

    Args:
        task: makes the pictures and the sounds.
        model: the averaged one, before the first step.
        batches: micro-batches of the run.
        generator: on the CPU, seeded as for the first micro-batch; the step seeds it again.
        log: of the run.

    Returns:
        All micro-batches, the first included: the training gets what it would get without this.
    """
    first = next(batches)
    log.preview(task.preview(model, first, generator))
    return itertools.chain(iter([first]), batches)  # a list would keep it for the whole run

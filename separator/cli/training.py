"""The work of both training commands before and after the loop."""

import logging
from collections.abc import Callable

from separator.allocator import keep_memory
from separator.engine import distributed
from separator.engine.distributed import LostRankError
from separator.engine.loop import fit
from separator.engine.run_config import RunConfig
from separator.engine.task import Task
from separator.errors import SeparatorError

log = logging.getLogger(__name__)


def run(make_task: Callable[[], Task], config: RunConfig) -> int:
    """Set the process up, train, and log where the result is.

    Args:
        make_task: builds what is trained, once the process is set up.
        config: of the run.

    Returns:
        The exit status of `fit`.

    Raises:
        SeparatorError: on rank 0, or without ranks.
        SystemExit: on another rank, which has logged what happened to it alone.
    """
    keep_memory()
    try:
        with distributed.session(distributed.own_device(config.device)):
            # in turn: the first rank scans the library and decodes stems, and the others find them
            task = distributed.together(make_task, in_turn=True)
            status = fit(task, config)
    except SeparatorError as error:
        if not distributed.rank():
            raise
        if not isinstance(error, LostRankError):
            log.error("separator: rank %d: %s", distributed.rank(), error)
        raise SystemExit(1) from error
    log.info("%s: model.safetensors, last.pt, metrics.jsonl", config.run)
    return status

"""One-line errors for causes outside the run: memory, another rank, missing operations."""

from pathlib import Path

import torch
import torch.distributed as dist

from separator.config import to_dict
from separator.engine import distributed
from separator.engine.distributed import LostRankError
from separator.engine.run_config import RunConfig
from separator.engine.task import flat
from separator.errors import SeparatorError, one_line

NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")  # CUDA and MPS, CPU
CONNECTION = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer")


def explained(
    error: Exception, config: RunConfig, device: torch.device, accumulate: int, step: int
) -> SeparatorError | None:
    """Return the one line for an error that the run did not cause; None for any other.

    Args:
        error: what ended the run.
        config: of the run.
        device: on which it was.
        accumulate: micro-batches in a step on this rank.
        step: after which it is saved, 0 if it is not.
    """
    folder = Path(config.run)
    saved = f"saved after step {step}" if step else "not begun"
    if is_out_of_memory(error):
        return SeparatorError(
            f"{folder}: out of memory ({one_line(error)}); {_less_memory(config, accumulate, step)}"
            f"; the run is {saved}"
        )
    if distributed.world() > 1 and _is_lost_rank(error):
        return LostRankError(
            f"{folder}: another rank of the run ended ({one_line(error)[:80]}); the run is "
            f"{saved}: the same command on all ranks resumes"
        )
    if device.type == "mps" and isinstance(error, NotImplementedError):
        return SeparatorError(
            f"{folder}: this version of torch lacks an operation on a Mac's GPU "
            f"({one_line(error)[:160]}); give device=cpu"
        )
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the device or the machine has no more memory."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(part in text for part in NO_MEMORY)


def _less_memory(config: RunConfig, accumulate: int, step: int) -> str:
    """Say what needs less memory, with numbers with which the run can go on."""
    batch = flat(to_dict(config)).get("data.batch", 1)
    if batch == 1:
        smaller = "use a shorter data.segment_seconds or a smaller model"
        return f"{smaller}, with another run=" if step else smaller
    smallest = next(d for d in range(2, batch + 1) if batch % d == 0)
    numbers = f"data.batch={batch // smallest} accumulate={accumulate * smallest}"
    return f"give {numbers}, which keeps the samples of a step, or free memory"


def _is_lost_rank(error: Exception) -> bool:
    if isinstance(error, dist.DistError):
        return True
    return isinstance(error, RuntimeError) and any(part in str(error) for part in CONNECTION)

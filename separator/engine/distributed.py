"""The ranks of a run: their device, the process group, and the few collectives.

Without torchrun everything here is the single-process case and costs nothing.
"""

import contextlib
import gc
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from separator.devices import find_device
from separator.errors import SeparatorError, one_line
from separator.processes import follow_launcher

log = logging.getLogger(__name__)

PATIENCE = timedelta(hours=3)  # the other ranks wait while rank 0 writes and its disk is slow

T = TypeVar("T")


class LostRankError(SeparatorError):
    """Another rank of the run ended; only rank 0 says so."""


def rank() -> int:
    """Return the number of this process among all of them (torchrun's RANK), 0 without torchrun."""
    return int(os.environ.get("RANK", "0"))


def world() -> int:
    """Return the number of processes (torchrun's WORLD_SIZE), 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_rank() -> int:
    """Return the number of this process among those of its machine (torchrun's LOCAL_RANK)."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def own_device(name: str) -> torch.device:
    """Return this process's device for a name: "auto", "cpu", "cuda" or "mps".

    Under torchrun each process gets the CUDA device of its LOCAL_RANK.

    Raises:
        SeparatorError: the device asked for is not on this machine, or it has fewer than ranks.
    """
    device = find_device(name)
    if device.type != "cuda" or device.index is not None:
        return device
    if local_rank() >= torch.cuda.device_count():
        raise SeparatorError(
            f"device: LOCAL_RANK is {local_rank()}, but this machine has "
            f"{torch.cuda.device_count()} GPU(s); start as many processes as there are, or give "
            "device=cpu"
        )
    return torch.device("cuda", local_rank())


def bf16(precision: str, device: torch.device) -> bool:
    """Whether a precision means bf16 autocast on a device; "auto" does on CUDA that has it."""
    if precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return precision == "bf16"


@contextlib.contextmanager
def session(device: torch.device) -> Iterator[None]:
    """Hold a process group (nccl on CUDA, gloo elsewhere) while a `with` block runs.

    All ranks leave a block that ends without an error together. Within a session another one does
    nothing, and neither does a session of a single process.

    Args:
        device: of this rank.

    Yields:
        Nothing; the group is the default one of `torch.distributed`.

    Raises:
        SeparatorError: the ranks cannot connect to each other.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world() == 1 or dist.is_initialized():
        yield
        return
    cuda = device.type == "cuda"
    if "TORCHELASTIC_RUN_ID" in os.environ:
        follow_launcher(_tell_of_torchrun)
    if rank():
        _be_silent()
    try:
        dist.init_process_group(
            "nccl" if cuda else "gloo", timeout=PATIENCE, device_id=device if cuda else None
        )
    except (ValueError, RuntimeError) as error:
        raise SeparatorError(
            f"the {world()} ranks did not find each other ({one_line(error)}); start all of them "
            "with torchrun, or with the same MASTER_ADDR and MASTER_PORT"
        ) from error
    try:
        yield
    except BaseException:
        if not cuda:  # closed connections tell the others at once; nccl would wait for them
            dist.destroy_process_group()
        raise
    # A rank that closes its connections while another still uses them can abort that one, and
    # torchrun ends all as soon as one has ended: none leaves before rank 0 has written everything.
    barrier()
    gc.collect()  # replicas hold the group
    dist.destroy_process_group()


def _tell_of_torchrun() -> None:
    """Say why the ranks of this machine end; the first of them alone."""
    if not local_rank():
        log.error("torchrun was killed, so its ranks end; the same command resumes")


def _be_silent() -> None:
    """Leave what all ranks would say alike to rank 0."""
    logging.getLogger("separator").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")


def wrap(model: nn.Module, device: torch.device) -> nn.Module:
    """Return the model for a device, in DistributedDataParallel (weights of rank 0) with ranks."""
    if world() == 1:
        return model
    devices = [device.index] if device.type == "cuda" else None
    data_parallel = nn.parallel.DistributedDataParallel
    return data_parallel(model, device_ids=devices, gradient_as_bucket_view=True)


def synchronised(model: nn.Module, when: bool) -> contextlib.AbstractContextManager:
    """Return the context of a backward pass.

    Args:
        model: from `wrap`.
        when: whether gradients are averaged over the ranks.
    """
    return contextlib.nullcontext() if when or world() == 1 else model.no_sync()


def mean(value: Tensor) -> Tensor:
    """Return the mean of a value over the ranks, the same on each; NaN on one is NaN on all."""
    if world() == 1:
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / world()


def largest(value: int, device: torch.device) -> int:
    """Return the largest of the ranks' values, which are on `device`; the same on each rank."""
    if world() == 1:
        return value
    number = torch.tensor(value, device=device)
    dist.all_reduce(number, dist.ReduceOp.MAX)
    return int(number)


def barrier() -> None:
    """Wait until every rank is here."""
    if world() > 1:
        dist.barrier()


def share(items: Sequence[T]) -> list[tuple[int, T]]:
    """Return this rank's part of a list, dealt out in turn, each item with its place in it."""
    return list(enumerate(items))[rank() :: world()]


def gather(rows: list[tuple[int, T]]) -> list[T]:
    """Return the rows of all ranks in the order of their places, on rank 0; elsewhere the own."""
    if world() > 1:
        parts: list = [None] * world()
        dist.gather_object(rows, parts if rank() == 0 else None)
        rows = [row for part in parts for row in part] if rank() == 0 else rows
    return [row for _, row in sorted(rows, key=lambda pair: pair[0])]


def together(make: Callable[[], T], in_turn: bool = False) -> T:
    """Return what `make` makes on this rank; where it fails on one rank, it fails on all.

    Args:
        make: called once on every rank.
        in_turn: each machine's first rank goes first, so that the others find on the disk what it
            prepared.

    Raises:
        SeparatorError: on rank 0, which says what happened on any rank.
        SystemExit: on the other ranks.
    """
    if world() == 1:
        return make()
    made, problem = None, None
    for turn in (0, 1) if in_turn else (None,):
        if turn is None or min(local_rank(), 1) == turn:
            try:
                made = make()
            except Exception as error:
                problem = error
        texts: list = [None] * world()
        dist.all_gather_object(texts, problem and one_line(problem))
        if any(texts):
            raise _problem_of_all(texts, problem)
    return made


def _problem_of_all(texts: list[str | None], problem: Exception | None) -> BaseException:
    if rank():
        return SystemExit(1)
    if problem is not None:
        return problem
    number, text = next((number, text) for number, text in enumerate(texts) if text)
    return SeparatorError(f"rank {number}: {text}")

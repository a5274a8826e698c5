"""The process and its ranks: device, process group, few collectives, and requests to stop.

Without torchrun everything here is the single-process case and costs nothing.
"""

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from types import FrameType, TracebackType
from typing import Self

import torch
import torch.distributed as dist
from torch import Tensor, nn

from separator.devices import find_device

logger = logging.getLogger(__name__)
PATIENCE = timedelta(hours=3)  # the other ranks wait at a barrier while rank 0 validates


def rank() -> int:
    """Number of this process among all of them (torchrun's RANK), 0 without torchrun."""
    return int(os.environ.get("RANK", "0"))


def world() -> int:
    """Number of processes (torchrun's WORLD_SIZE), 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def own_device(name: str) -> torch.device:
    """Turn "auto", "cpu", "cuda" or "mps" into this process's device.

    "auto" takes CUDA where there is one and the CPU otherwise. Under torchrun each process gets
    the CUDA device of its LOCAL_RANK.

    Raises:
        SeparatorError: the device asked for is not on this machine.
    """
    device = find_device(name, auto=("cuda",))
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return device


def bf16(precision: str, device: torch.device) -> bool:
    """Whether to run the model under bf16 autocast; "auto" does on CUDA that computes it."""
    if precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return precision == "bf16"


@contextlib.contextmanager
def session(device: torch.device) -> Iterator[None]:
    """Hold the process group (nccl on CUDA, gloo elsewhere) for as long as the block lasts."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world() == 1:
        yield
        return
    cuda = device.type == "cuda"
    dist.init_process_group(
        "nccl" if cuda else "gloo", timeout=PATIENCE, device_id=device if cuda else None
    )
    try:
        yield
    finally:
        dist.destroy_process_group()


def wrap(model: nn.Module, device: torch.device) -> nn.Module:
    """Return the model, inside DistributedDataParallel (weights of rank 0) where ranks are many."""
    if world() == 1:
        return model
    devices = [device.index] if device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(
        model, device_ids=devices, gradient_as_bucket_view=True
    )


def synchronised(model: nn.Module, when: bool) -> contextlib.AbstractContextManager:
    """Context of a backward pass that averages gradients over the ranks only `when` asked to."""
    return contextlib.nullcontext() if when or world() == 1 else model.no_sync()


def mean(value: Tensor) -> Tensor:
    """Mean of a tensor over the ranks, the same on each; NaN or Inf on one is so on all."""
    if world() == 1:
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / world()


def anyone(flag: bool, device: torch.device) -> bool:
    """Return whether the flag is set on any rank; the same answer on each."""
    return flag if world() == 1 else bool(mean(torch.tensor(float(flag), device=device)) > 0)


def barrier() -> None:
    """Wait until every rank is here."""
    if world() > 1:
        dist.barrier()


class Stop:
    """Listens for Ctrl-C, SIGTERM and the end of the time given, while its block lasts.

    The first signal is only noted, for the loop to end after its step; the second interrupts at
    once. Signal handlers can only be set in the main thread: elsewhere only the time counts.

    Args:
        minutes: time given, from the start of the block; 0 is without limit.
        device: of the collectives by which the ranks agree.

    Attributes:
        signalled: whether a signal came (to any rank, once `asked` has returned true).
    """

    def __init__(self, minutes: float, device: torch.device) -> None:
        self.signalled = False
        self._limit = 60 * minutes or float("inf")
        self._device = device
        self._previous: dict[int, object] = {}

    def __enter__(self) -> Self:
        self._process, self._start = os.getpid(), time.monotonic()
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def asked(self) -> bool:
        """Return whether any rank was asked to stop; the same answer on each."""
        late = time.monotonic() - self._start > self._limit
        stop = anyone(self.signalled or late, self._device)
        if stop:
            self.signalled = anyone(self.signalled, self._device)
        return stop

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a forked data worker: Ctrl-C reaches it too, and the parent will end it
        if self.signalled:
            raise KeyboardInterrupt
        self.signalled = True
        name = signal.Signals(number).name
        logger.info("%s: stopping after this step (again: at once)", name)

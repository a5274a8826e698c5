"""Requests to stop a run: signals and the time it was given."""

import logging
import os
import signal
import time
from types import FrameType
from typing import Self

import torch

from separator.engine import distributed
from separator.signals import STOP_SIGNALS, handling

logger = logging.getLogger(__name__)

OUT_OF_TIME = 3
SIGNALLED = 128  # added to the signal's number, as shells do


class Stop:
    """Listens for Ctrl-C, SIGTERM, SIGHUP and the end of the time given, while its block lasts.

    The first signal is only noted, for the loop to end after its step; the second interrupts at
    once, and the third kills. Signal handlers can only be set in the main thread: elsewhere only
    the time counts.

    Args:
        minutes: time given, from the start of the block; 0 is without limit.
        device: of the collectives by which the ranks agree.

    Attributes:
        status: exit status that the stop asks for: 128 and the signal's number, 3 when the time is
            over, 0 while nobody asked; the same on each rank once `asked` has returned.
    """

    def __init__(self, minutes: float, device: torch.device) -> None:
        self.status = 0
        self._limit = 60 * minutes or float("inf")
        self._device = device

    def __enter__(self) -> Self:
        self._process, self._start = os.getpid(), time.monotonic()
        ignored = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else set()
        numbers = [n for n in STOP_SIGNALS if n not in ignored]  # under nohup the run goes on
        self._handling = handling(self._note, numbers)
        self._handling.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._handling.__exit__(None, None, None)

    @property
    def signalled(self) -> bool:
        """Whether somebody waits for the end, rather than the time being over."""
        return self.status > SIGNALLED

    def asked(self) -> bool:
        """Return whether any rank was asked to stop; the same answer on each."""
        late = time.monotonic() - self._start > self._limit
        status = max(self.status, OUT_OF_TIME if late else 0)
        self.status = max(self.status, distributed.largest(status, self._device))
        return self.status > 0

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a forked data worker: Ctrl-C reaches it too, and the parent will end it
        if self.signalled:
            signal.signal(number, signal.SIG_DFL)
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(SIGNALLED + number)
        self.status = SIGNALLED + number
        logger.info("%s: stopping after this step (again: at once)", signal.Signals(number).name)

"""Ctrl-C, SIGTERM and SIGHUP end a command in order: temporary files go, results stay."""

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

from separator.signals import STOP_SIGNALS, handling


class Stop:
    """Handles the signals; `number` is the first that came, 0 before."""

    number = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Interrupt the work; end the process at once on a Ctrl-C after that."""
        if self.number:
            # a terminal that closes and a service that stops send several signals for one reason
            if number == signal.SIGINT:
                os._exit(128 + number)
            return
        self.number = number
        raise KeyboardInterrupt

    @property
    def name(self) -> str:
        """The signal that stopped the command, in words."""
        return "Ctrl-C" if self.number == signal.SIGINT else signal.Signals(self.number).name

    @property
    def status(self) -> int:
        """The exit status that tells the caller of it."""
        return 128 + self.number


@contextlib.contextmanager
def stoppable() -> Iterator[Stop]:
    """Handle the signals for the time of the block; those that are ignored stay so (nohup).

    Yields:
        The handler, whose `number` tells which signal came.
    """
    stop = Stop()
    numbers = [n for n in STOP_SIGNALS if signal.getsignal(n) is not signal.SIG_IGN]
    with handling(stop, numbers):
        yield stop

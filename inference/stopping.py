"""Ctrl-C, SIGTERM and SIGHUP end a command in order: temporary files go, results stay."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


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
        """What stopped the command, in words."""
        return "Ctrl-C" if self.number == signal.SIGINT else signal.Signals(self.number).name

    @property
    def status(self) -> int:
        """The exit status that tells the caller of it."""
        return 128 + self.number


@contextlib.contextmanager
def stoppable() -> Iterator[Stop]:
    """Handle the signals for the time of the block; those that are ignored stay so (nohup).

    In another thread than the main one, which signals do not reach, it does nothing.
    """
    stop = Stop()
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, stop)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""Signals that stop a command, and handlers that last for a block."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
Handler = Callable[[int, FrameType | None], object] | signal.Handlers


@contextlib.contextmanager
def handling(handler: Handler, numbers: Iterable[int]) -> Iterator[None]:
    """Handle signals for the time of a block; afterwards the previous handlers are set again.

    Only the main thread may set handlers: in another one nothing changes.

    Args:
        handler: a function of the signal's number and the stack frame, or signal.SIG_IGN.
        numbers: the signals.

    Yields:
        Nothing.
    """
    previous = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for number in numbers:
                previous[number] = signal.signal(number, handler)
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, signal.SIG_DFL if before is None else before)

"""Log files that get whole records or nothing, and whose disk may be full for a while."""

import contextlib
import os
from collections import deque
from pathlib import Path

from separator.atomic import NO_FLUSH
from separator.errors import one_line

MAX_WAITING = 32 * 2**20  # bytes


class AppendFile:
    """Appends records to a file; those that the disk refuses wait in memory, in order.

    Every write tries the waiting records first. When more than `MAX_WAITING` bytes wait, new
    records are dropped. A record cut short by an error is cut off again, so that readers never
    meet half of one. The file is opened with its first record.

    Args:
        path: of the file; what is in it stays.

    Attributes:
        error: why the disk refuses records now; empty while it takes them.
        dropped: steps of the records that were dropped.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.error = ""
        self.dropped: list[int] = []
        self._waiting: deque[tuple[bytes, int]] = deque()
        self._bytes = 0  # that wait
        self._handle = -1  # while it is not open
        self._size = 0  # of the file up to the end of its last whole record

    def write(self, record: bytes, step: int) -> None:
        """Append a record of a step, now or once the disk takes it."""
        if self._bytes + len(record) > MAX_WAITING and self._waiting:
            self.dropped.append(step)
        else:
            self._waiting.append((record, step))
            self._bytes += len(record)
        self._write_waiting()

    def sync(self) -> None:
        """Force what was written to the disk."""
        self._write_waiting()
        if self._handle < 0 or self.error:
            return
        try:
            os.fsync(self._handle)
        except OSError as error:
            if error.errno not in NO_FLUSH:
                self.error = one_line(error)

    def close(self) -> list[int]:
        """Return the steps of the records that never reached the file, and close it."""
        self._write_waiting()
        if self._handle >= 0:
            with contextlib.suppress(OSError):
                os.close(self._handle)
            self._handle = -1
        return sorted([step for _, step in self._waiting] + self.dropped)

    def _write_waiting(self) -> None:
        try:
            if self._handle < 0 and self._waiting:
                self._open()
            if self.error and self._handle >= 0:
                os.ftruncate(self._handle, self._size)
            while self._waiting:
                self._append(self._waiting[0][0])
                self._bytes -= len(self._waiting.popleft()[0])
            self.error = ""
        except OSError as error:
            self.error = one_line(error)

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        self._size = os.fstat(self._handle).st_size

    def _append(self, record: bytes) -> None:
        rest = memoryview(record)
        try:
            while rest:
                rest = rest[os.write(self._handle, rest) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._handle, self._size)
            raise
        self._size += len(record)

"""One trainer at a time in a run folder."""

import contextlib
import errno
import fcntl
import logging
import os
import shutil
import socket
import time
from pathlib import Path
from typing import Self, TextIO

from separator.errors import SeparatorError, one_line, printable

logger = logging.getLogger(__name__)

UNSUPPORTED = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}
WRITTEN = "config.yaml", "metrics.jsonl", "events.out.tfevents.*", "wandb.id"  # by a run at first
MAX_OWNER = 200  # characters of an owner's line that are shown


class RunLock:
    """Holds a run folder for this process while its block lasts.

    The lock is the system's (flock) on the file `.lock`, which names its owner: it ends with the
    process however that ends, so the file of a killed process holds nobody up. A block that ends
    in an error without a `last.pt` in the folder removes the new files of the run, and no others.

    Args:
        folder: the run folder, which is made if need be.

    Raises:
        SeparatorError: on entry: another process holds it, or the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / ".lock"
        self._file: TextIO

    def __enter__(self) -> Self:
        folders = self.folder, *self.folder.parents
        self._made = [folder for folder in folders if not folder.exists()]
        self._before = {*self.folder.glob("*")}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = self._acquired()
        except OSError as error:
            raise SeparatorError(
                f"run: {self.folder}: cannot be written ({one_line(error)}); give a run= that can"
            ) from error
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with contextlib.suppress(OSError):
            if self.held():  # while the lock lasts: else it could be the next owner's file
                refused = kind is not None and not (self.folder / "last.pt").exists()
                if refused:
                    self._remove_new()
                self.path.unlink()
                for folder in self._made if refused else ():
                    folder.rmdir()  # unless something else is in it by now
        self._file.close()

    def held(self) -> bool:
        """Whether the folder is still there, and still this process's."""
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self._file.fileno()))
        except OSError:
            return False

    def check(self) -> None:
        """Refuse to write into a folder that is no longer this run's.

        Raises:
            SeparatorError: the folder was removed, moved or replaced meanwhile.
        """
        if not self.held():
            raise SeparatorError(
                f"{self.folder}: was removed or moved while the run used it; nothing more is "
                "written there. Put it back to resume from its last checkpoint, or start again"
            )

    def _remove_new(self) -> None:
        """Remove what a run writes before its first step, unless it was there before."""
        for path in {path for name in WRITTEN for path in self.folder.glob(name)} - self._before:
            path.unlink()
        if self.folder / "wandb" not in self._before:
            shutil.rmtree(self.folder / "wandb", ignore_errors=True)

    def _acquired(self) -> TextIO:
        while True:
            file = self.path.open("a+", encoding="utf-8", errors="replace")
            try:
                self._lock(file)
                if os.path.samestat(self.path.stat(), os.fstat(file.fileno())):
                    _sign(file)
                    return file
            except FileNotFoundError:
                pass
            except BaseException:
                file.close()
                raise
            file.close()  # its owner removed it between the opening and the locking

    def _lock(self, file: TextIO) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            owner = " ".join(file.read(MAX_OWNER).split()) or "another process"
            raise SeparatorError(
                f"{self.folder}: in use by {owner}; wait until it ends or stop it, or give "
                "another run="
            ) from error
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
            logger.warning(
                "%s: its file system has no locks; see to it that no other trainer uses the folder",
                printable(str(self.folder)),
            )


def _sign(file: TextIO) -> None:
    """Write who holds the lock and since when."""
    file.truncate(0)
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    file.write(f"process {os.getpid()} on {socket.gethostname()} since {since}\n")
    file.flush()

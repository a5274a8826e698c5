"""Files that appear whole under their final name, or not at all."""

import contextlib
import errno
import hashlib
import os
import platform
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

# .STEM.PROCESS-MACHINE.part.SUFFIX
_TEMPORARY = re.compile(r"\..+\.(\d+)-([0-9a-f]{6})\.part(\..*)?", re.DOTALL)
# A folder on a disk that several machines or containers share holds temporary files of processes
# that cannot be looked for here. One that nobody has written to for so long is taken for dead.
_ABANDONED = 7 * 24 * 3600.0  # seconds
# Some file systems (SMB, VirtualBox, WSL, FUSE) cannot flush a folder, some not a file either.
NO_FLUSH = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY}
_NO_ENTRY = {errno.EACCES, errno.EPERM, errno.EISDIR}  # folders that cannot be opened for reading


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path` (same suffix) that takes its place on success.

    The file is flushed to disk before it is renamed, so that after a power cut either the old
    or the new content is there. On any exception the temporary file is removed and the exception
    goes on; what stood at `path` is untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    owner = f"{os.getpid()}-{_machine()}"
    temporary = path.with_name(f".{path.stem}.{owner}.part{path.suffix}")
    try:
        yield temporary
        _flush(temporary, NO_FLUSH)
        os.replace(temporary, path)
        _flush(path.parent, NO_FLUSH | _NO_ENTRY)  # the rename itself lives in the folder
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def check_folder(folder: Path) -> None:
    """Make sure that files can be made in a folder, which is made if need be.

    Raises:
        OSError: they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        code = errno.ENOTDIR if folder.exists() else errno.ENOENT  # a link that leads nowhere
        raise OSError(code, os.strerror(code)) from None
    with tempfile.TemporaryFile(dir=folder):  # the system's own reason: access rights are one
        pass


def write_text(path: str | os.PathLike, text: str, errors: str = "strict") -> None:
    """Write a text file in UTF-8, whole or not at all.

    Args:
        path: the file; an earlier one stays until the new one is complete.
        text: its content.
        errors: treatment of characters that UTF-8 cannot hold, as in `str.encode`.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors=errors)


def remove_leftovers(folder: Path, shared: bool = True) -> None:
    """Delete the temporary files of killed processes in a folder.

    Args:
        folder: where; it need not exist.
        shared: whether other processes may be writing there: what belongs to one that lives stays,
            and of other machines what was written to within a week.
    """
    for path in folder.glob(".*.part*"):
        match = _TEMPORARY.fullmatch(path.name)
        if not match or not path.is_file():
            continue
        if not shared or not _in_use(path, int(match[1]), match[2]):
            with contextlib.suppress(OSError):  # another user's, in a folder that all may write to
                path.unlink(missing_ok=True)


def _machine() -> str:
    """Six hexadecimal digits that tell this machine or container from others."""
    return hashlib.blake2b(platform.node().encode(errors="replace"), digest_size=3).hexdigest()


def _in_use(path: Path, process: int, machine: str) -> bool:
    """Whether a temporary file may belong to a process that lives, here or elsewhere."""
    if machine == _machine():
        return _alive(process)
    try:
        return time.time() - path.stat().st_mtime < _ABANDONED
    except OSError:  # finished in this moment
        return True


def _alive(process: int) -> bool:
    """Whether another process has this number; one's own, before it writes, is a dead one's."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's, or no process's number
        return True
    return True


def _flush(path: Path, tolerated: set[int]) -> None:
    """Force one file or folder to the disk, where the file system can.

    Args:
        path: the file or folder.
        tolerated: error numbers that say it cannot, rather than that something was lost.
    """
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in tolerated:
            raise

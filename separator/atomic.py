"""Files that appear whole under their final name, or not at all."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

_TEMPORARY = re.compile(r"\.(.+)\.(\d+)\.part(\..*)?", re.DOTALL)  # stem, process, suffix


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path` (same suffix) that takes its place on success.

    The file is flushed to disk before it is renamed, so that after a power cut either the old
    or the new content is there. On any exception the temporary file is removed and the exception
    goes on; what stood at `path` is untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
        _flush(path.parent)  # the rename itself lives in the folder
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def check_folder(folder: Path) -> None:
    """Make sure that files can be made in a folder, which is made if need be.

    Raises:
        OSError: they cannot.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(None, "Permission denied")


def write_text(path: str | os.PathLike, text: str, errors: str = "strict") -> None:
    """Write a text file in UTF-8; `errors` as in `str.encode`."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors=errors)


def remove_leftovers(folder: Path, stem: str | None = None, shared: bool = True) -> None:
    """Delete the temporary files of killed processes in a folder.

    Args:
        folder: where; it need not exist.
        stem: only those for files of this stem.
        shared: whether other processes may be writing there: what belongs to one that lives stays.
    """
    for path in folder.glob(".*.part*"):
        match = _TEMPORARY.fullmatch(path.name)
        if not match or stem not in (None, _stem(path.name)) or not path.is_file():
            continue
        if not shared or not _alive(int(match[2])):
            path.unlink(missing_ok=True)


def _stem(name: str) -> str:
    """Stem of what a temporary file, or a temporary file of a temporary one, stands for."""
    match = _TEMPORARY.fullmatch(name)
    return _stem(match[1]) if match else name


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


def _flush(path: Path) -> None:
    """Force one file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

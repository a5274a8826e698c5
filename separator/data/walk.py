"""The audio files under folders, as every command finds them."""

import os
import stat
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from separator import audio
from separator.data.library_index import Stamp
from separator.errors import one_line


def audio_files(folders: Sequence[str]) -> tuple[dict[str, Stamp], dict[str, str]]:
    """Find the audio files under folders, by suffix; hidden and `.part` files are left out.

    A folder that links lead to several times is entered once, by its own path where it lies under
    one of the folders.

    Returns:
        path -> stamp of the regular files, and path -> reason of what cannot be reached.
    """
    stamps: dict[str, Stamp] = {}
    problems: dict[str, str] = {}
    visited: set[tuple[int, int]] = set()
    waiting = deque(folders)
    while waiting:
        folder = waiting.popleft()
        try:
            here = os.stat(folder)
            if (here.st_dev, here.st_ino) in visited:
                continue
            visited.add((here.st_dev, here.st_ino))
            with os.scandir(folder) as entries:
                visible = [entry for entry in entries if not entry.name.startswith(".")]
        except OSError as error:
            problems[folder] = f"unreadable: the folder cannot be opened ({error.strerror})"
            continue
        for entry in sorted(visible, key=lambda entry: entry.name):
            if os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():
                # linked folders wait until all others are done
                (waiting.append if entry.is_symlink() else waiting.appendleft)(entry.path)
            elif _is_audio(entry.name):
                _register(entry, stamps, problems)
    return stamps, problems


def _register(entry: os.DirEntry, stamps: dict[str, Stamp], problems: dict[str, str]) -> None:
    """Note a file's stamp, or why it has none."""
    try:
        status = entry.stat()
    except OSError as error:
        problems[entry.path] = f"unreadable: {one_line(error)}"
        return
    if stat.S_ISREG(status.st_mode):
        stamps[entry.path] = Stamp(status.st_size, status.st_mtime_ns)
    else:
        problems[entry.path] = "unreadable: not a regular file"


def _is_audio(name: str) -> bool:
    suffixes = [suffix.lower() for suffix in Path(name).suffixes[-2:]]
    return bool(suffixes) and suffixes[-1] in audio.SUFFIXES and ".part" not in suffixes

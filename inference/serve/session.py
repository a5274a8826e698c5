"""One browser's songs and downloads."""

import contextlib
import enum
import os
import re
import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from separator import audio
from separator.errors import printable
from separator.inference.serve.spool import Spool
from separator.inference.serve.web import RefusedError

MAX_NAME = 150  # bytes of a song's name


class State(enum.StrEnum):
    """The state of a song."""

    WAITING = "waiting"
    SEPARATING = "separating"
    READY = "ready"
    FAILED = "failed"


@dataclass(eq=False)
class Song:
    """One song of a session.

    Attributes:
        folder: holds all of its files, and nothing else.
        path: the song as it was sent.
        info: what the file holds.
        model: the name of the model that separates it.
        stems: names of what it is separated into.
        state: what has become of it.
        done: seconds that are separated.
        started: when its separation began, on the monotonic clock.
        error: one line, if it failed.
        notices: lines that the command line shows as warnings.
        spool: the stems.
        cancelled: set when nobody wants it any more.
    """

    folder: Path
    path: Path
    info: audio.AudioInfo
    model: str = ""
    stems: tuple[str, ...] = ()
    state: State = State.WAITING
    done: float = 0.0
    started: float = 0.0
    error: str = ""
    notices: list[str] = field(default_factory=list)
    spool: Spool | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)
    arrived: float = field(default_factory=time.monotonic)

    @property
    def id(self) -> str:
        """Its name in addresses."""
        return self.folder.name

    @property
    def bytes(self) -> int:
        """Bytes on the disk, those to come included."""
        frame = 4 * len(self.stems) * min(self.info.channels, 2)
        return self.path.stat().st_size + self.info.samples * frame

    @property
    def remaining(self) -> float:
        """Seconds that are to be separated."""
        return max(self.info.seconds - self.done, 0.0)


class Session:
    """One browser: its songs, by id, and its downloads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.songs: dict[str, Song] = {}
        self.downloads: dict[str, tuple[Path, tuple[Song, ...]]] = {}  # each with its songs
        self.making: dict[str, Any] = {}  # requests for downloads, each with the future of its file
        self.seen = time.monotonic()
        self.served = 0.0  # when the separation of its last song began

    def song(self, id: str, ready: bool = True) -> Song:
        """Return a song.

        Args:
            id: its name in addresses.
            ready: whether it must be separated.

        Raises:
            RefusedError: there is none, or it is not ready.
        """
        song = self.songs.get(id)
        if song is None or (ready and song.state is not State.READY):
            raise RefusedError(404, "this song is not there (any more); reload the page")
        return song

    def download(self, id: str) -> Path | None:
        """Return the file of a download, None if it was not made or is removed.

        Args:
            id: of its request.
        """
        path = self.downloads[id][0] if id in self.downloads else None
        return path if path and path.exists() else None

    @property
    def stored_bytes(self) -> int:
        """Bytes of its downloads on the disk."""
        size = 0
        for path, _ in list(self.downloads.values()):
            with contextlib.suppress(OSError):  # another thread has removed it
                size += path.stat().st_size
        return size

    @property
    def download_bytes(self) -> int:
        """Bytes of its downloads on the disk, and the most that those in the making will have."""
        pending = [made for id, (made, file) in list(self.making.items()) if not file.done()
                   and id not in self.downloads]  # fmt: skip
        return self.stored_bytes + sum(request.bytes for request in pending)

    def drop_download(self, id: str) -> None:
        """Remove the file of a download.

        Args:
            id: of its request.
        """
        path, _ = self.downloads.pop(id, (None, ()))  # another thread may have been first
        if path:
            shutil.rmtree(path.parent, ignore_errors=True)


def safe_name(name: str) -> str:
    """Return a song's name as a file's: without folders, control characters and leading dots."""
    name = name.replace("\\", "/").rsplit("/", 1)[-1]
    name = re.sub(r"[\x00-\x1f\x7f]", "_", name).lstrip(".") or "song"
    stem, suffix = os.path.splitext(name)
    while len(os.fsencode(stem + suffix[:10])) > MAX_NAME:
        stem = stem[:-1]
    return stem + suffix[:10]


def without_folder(text: str, folder: Path) -> str:
    """Return a line about a song that does not show where this server keeps it.

    Args:
        text: the line.
        folder: the song's.
    """
    return text.replace(f"{printable(str(folder))}/", "")

"""Records of the song, model and settings that the results in a folder came from.

Each folder of results holds `.separator.jsonl` with a line of JSON for every result ever written
there (see `Record`); the newest line that fits the file counts. Lines are appended before a result
gets its name, so a process killed at any time leaves at worst a line without a file, and damaged
lines are passed over. Formats with tags also hold their record in the tag SEPARATOR, which is used
where the folder's file is lost.
"""

import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import json
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from separator import audio
from separator.audio.tag_reader import RESULT_INDEX as INDEX
from separator.errors import SeparatorError, one_line, printable
from separator.inference.choices import folded

log = logging.getLogger(__name__)

Stamp = tuple[int, int]  # size in bytes, time of the last change in nanoseconds


@dataclass(frozen=True)
class Record:
    """The origin of one result.

    Attributes:
        content: the result's `audio.content_key`.
        song: the song's key, as `song_key` gives it.
        made_by: model and settings that made it.
        gain: in dB, below 0 where it was made softer so that no stem clips.
        output: the result's file name; empty in a tag.
        stamp: the result's stamp, with which its content need not be read.
        source: absolute path of the song; empty in a tag, which other people may read.
        source_stamp: the song's stamp, with which its content need not be read.
    """

    content: str
    song: str
    made_by: dict[str, Any]
    gain: float = 0.0
    output: str = ""
    stamp: Stamp | None = None
    source: str = ""
    source_stamp: Stamp | None = None

    def to_json(self) -> str:
        """Write the record on one line; file names that are not UTF-8 survive.

        Returns:
            JSON, without empty fields.
        """
        fields = dataclasses.asdict(self).items()
        values = {key: value for key, value in fields if value not in ("", None, 0.0)}
        return json.dumps(values, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self | None:
        """Read a record from the text that `to_json` wrote; None for any other text."""
        try:
            values = json.loads(text)
            keys = "stamp", "source_stamp"
            stamps = {key: tuple(map(int, values.pop(key, ()))) for key in keys}
            record = cls(**values | {key: stamp or None for key, stamp in stamps.items()})
        except (ValueError, TypeError, AttributeError, RecursionError):
            return None
        texts = (record.content, record.song, record.output, record.source)
        whole = all(isinstance(text, str) for text in texts) and record.content and record.song
        typed = isinstance(record.made_by, dict) and isinstance(record.gain, float | int)
        return record if whole and typed else None


class Song:
    """A song as records know it; its content is read only where its stamp does not decide."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.source = str(path.resolve())
        self.stamp = stamp_of(path)

    @functools.cached_property
    def key(self) -> str:
        """The hash of its content."""
        return song_key(self.path)

    def made(self, record: Record) -> bool:
        """Whether the result of a record was made from this song, as it is now or was before."""
        return record.source == self.source or record.song == self.key

    def unchanged(self, record: Record) -> bool:
        """Whether the result of a record was made from this song as it is now."""
        same_file = record.source == self.source and record.source_stamp == self.stamp is not None
        return same_file or record.song == self.key


class Results:
    """The records of all folders that are asked for, each read once."""

    def __init__(self) -> None:
        self._folders: dict[Path, dict[tuple[str, ...], list[Record]]] = {}

    def find(self, path: Path) -> Record | None:
        """Return the record of a file; None where the file is not a result, or was changed since.

        Args:
            path: of an existing file.
        """
        records = self._of_folder(path.parent).get(folded(path.name), [])
        stamp = stamp_of(path)
        for record in reversed(records):
            if stamp is not None and record.stamp == stamp:
                return record
        candidates = [*reversed(records), *filter(None, [read_record(path)])]
        with contextlib.suppress(SeparatorError):
            content = audio.content_key(path) if candidates else ""
            return next((record for record in candidates if record.content == content), None)
        return None

    def names(self, folder: Path, song: Song) -> list[str]:
        """Return the names of the results that a song had in a folder, the latest first.

        Args:
            folder: of the results.
            song: the song.
        """
        records = [entry for entries in self._of_folder(folder).values() for entry in entries]
        mine = [record.output for record in records if record.source == song.source]
        return list(dict.fromkeys(reversed(mine)))

    def knows(self, path: Path) -> bool:
        """Whether the folder's index has a record of the file name of a path."""
        return folded(path.name) in self._of_folder(path.parent)

    def _of_folder(self, folder: Path) -> dict[tuple[str, ...], list[Record]]:
        if folder not in self._folders:
            self._folders[folder] = _read_index(folder)
        return self._folders[folder]


class Publication(contextlib.AbstractContextManager):
    """The step from finished temporary files to results, in which only one process is at a time.

    Leaving the block lets the next process in: enter it before the files are renamed on leaving
    their own blocks.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._handle: int | None = None

    def __exit__(self, *exception: object) -> None:
        if self._handle is not None:
            os.close(self._handle)

    def commit(self, records: Iterable[Record], planned: dict[str, Stamp | None]) -> None:
        """Append records, having made sure that their names are not taken in the meantime.

        Args:
            records: of the results that are about to get their names.
            planned: stamp of what had each of these names when the work was planned.

        Raises:
            SeparatorError: another process has written another song's result there since.
            OSError: the folder's index cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
        self._handle = os.open(self.folder / INDEX, flags, 0o666)
        _lock(self._handle)
        records, results = list(records), Results()
        for record in records:
            path = self.folder / record.output
            if path.exists() and stamp_of(path) != planned.get(record.output):
                other = results.find(path)
                if other is None or other.song != record.song:
                    raise SeparatorError(
                        f"{path}: written by another program while this song was separated; run "
                        "the command again to give this one a name of its own"
                    )
        # a line that a full disk cut off must not swallow the next one
        lines = "".join(f"\n{record.to_json()}\n" for record in records).encode()
        while lines:
            lines = lines[os.write(self._handle, lines) :]
        with contextlib.suppress(OSError):  # without it a power cut may cost the records only
            os.fsync(self._handle)


def song_key(path: Path) -> str:
    """Return a hash of the coded audio in the file at a path, or of its bytes where that fails."""
    try:
        return audio.content_key(path)
    except SeparatorError:
        with open(path, "rb") as file:
            return "bytes:" + hashlib.file_digest(file, "blake2b").hexdigest()[:64]


def stamp_of(path: Path) -> Stamp | None:
    """Return the stamp of the file at a path; None when there is no such file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def read_record(path: Path) -> Record | None:
    """Return the record in the tags of the file at a path; None without one."""
    text = audio.result_record(path)
    return Record.from_json(text) if text else None


def _read_index(folder: Path) -> dict[tuple[str, ...], list[Record]]:
    """Read a folder's records by folded file name, the oldest first; none without an index."""
    try:
        path = folder / INDEX
        lines = path.read_bytes().splitlines() if path.is_file() else []
    except OSError as error:
        name = printable(str(folder / INDEX))
        log.warning("%s: cannot be read (%s); results there are not known", name, one_line(error))
        return {}
    records: dict[tuple[str, ...], list[Record]] = {}
    for record in filter(None, map(Record.from_json, filter(None, lines))):
        records.setdefault(folded(record.output), []).append(record)
    return records


def _lock(handle: int) -> None:
    """Wait for other processes' turns; where the system has no locks, go on without."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError:
        log.debug("no lock", exc_info=True)

"""The index of a library: facts about every file, in one SQLite file that survives crashes.

`contents` says what one coded audio content is and whether it is fit for training; its key does not
depend on name, place or tags. `files` says which content stood at a path when the file had a given
size and time of change. A file whose stamp still matches need not be opened. `fingerprints` has the
peaks of songs that were compared. Paths are bytes: a file name on disk need not be valid text.
"""

import contextlib
import hashlib
import os
import sqlite3
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import NamedTuple

from separator.errors import SeparatorError, one_line

APPLICATION = 0x5345_5049  # marks the file as ours, so that no other database is written to
VERSION = 5
OLD_VERSION = 4  # its scans took results of `separator separate` for songs
PEAKS_VERSION = b"v1: "  # begins stored fingerprints; those of other versions are made again
LOCAL = "file:"  # begins the keys that stand for one file rather than for its coded audio
WAIT_SECONDS = 60  # several processes may scan into one index

TABLES = f"""
CREATE TABLE contents (
    key BLOB PRIMARY KEY, format TEXT, codec TEXT, samples INTEGER, rate INTEGER,
    channels INTEGER, streams INTEGER, status TEXT NOT NULL, reason TEXT NOT NULL,
    notice TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE TABLE files (
    path BLOB PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, key BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX files_by_key ON files (key);
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
"""


class LibraryIndexError(SeparatorError):
    """The index cannot be used: one line that names it and the fix."""


class Stamp(NamedTuple):
    """Size and time of a file from `stat`; while they are equal, the content is equal.

    Attributes:
        size: bytes.
        mtime_ns: time of the last change in nanoseconds.
    """

    size: int
    mtime_ns: int

    def key(self, path: str) -> str:
        """Return the key of a content that only the file at a path has, while it does not change.

        Returns:
            `LOCAL` and a hash.
        """
        words = f"{self.size} {self.mtime_ns} ".encode() + os.fsencode(path)
        return LOCAL + hashlib.blake2b(words, digest_size=20).hexdigest()


@dataclass(frozen=True)
class Content:
    """One coded audio content.

    Attributes:
        format: container, as in `separator.audio.AudioInfo`; empty when the file cannot be read.
        codec: coding of the samples.
        samples: length of each channel.
        rate: samples per second.
        channels: number of channels.
        streams: number of audio streams; the others belong to the first.
        status: "ok", or what is wrong in a word or two.
        reason: what is wrong in one line; empty for "ok".
        notice: what its header claims wrongly, or where and for how long it is damaged; it is used
            all the same.
    """

    format: str = ""
    codec: str = ""
    samples: int = 0
    rate: int = 0
    channels: int = 0
    streams: int = 0
    status: str = "ok"
    reason: str = ""
    notice: str = ""

    @property
    def plausible(self) -> bool:
        """Whether it can have been stored so: a damaged index may hold anything."""
        kinds = all(isinstance(getattr(self, f.name), type(f.default)) for f in fields(self))
        return kinds and (self.status != "ok" or min(self.samples, self.rate, self.channels) > 0)


class Finding(NamedTuple):
    """The facts about the file at one path.

    Attributes:
        path: the file.
        stamp: its size and time when it was opened.
        key: identity of its content.
        content: what the content is; None when the index knows the key already.
    """

    path: str
    stamp: Stamp
    key: str
    content: Content | None


COLUMNS = ", ".join(f"contents.{field.name}" for field in fields(Content))


class Index(contextlib.AbstractContextManager):
    """The index file, open. Use as a context manager.

    Every `record` is a transaction: a scan that is killed has lost only what it had not recorded.

    Args:
        path: the SQLite file; made, with its folder, when it is not there.

    Raises:
        LibraryIndexError: the file cannot be opened, is no index, or is damaged.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        with self._errors():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, timeout=WAIT_SECONDS, isolation_level=None)
            self._db.text_factory = lambda text: text.decode(errors="replace")  # if damaged
        try:
            with self._errors():
                self._prepare()
        except BaseException:
            self._db.close()
            raise

    def __exit__(self, *exception: object) -> None:
        self._db.close()

    def unchanged(self, root: str, stamps: Mapping[str, Stamp]) -> dict[str, tuple[str, Content]]:
        """Return key and content of the files under `root` whose stamp is still the stored one.

        Args:
            root: absolute path of a folder.
            stamps: path -> stamp of the files as they are now.
        """
        query = (
            f"SELECT path, size, mtime_ns, files.key, {COLUMNS} FROM files JOIN contents "
            "ON contents.key = files.key WHERE path >= ? AND path < ?"
        )
        contents = {}
        with self._errors():
            for raw, size, mtime_ns, key, *content in self._db.execute(query, _below(root)):
                if not isinstance(raw, bytes) or not isinstance(key, bytes):
                    continue  # damaged: the file is examined again
                path = os.fsdecode(raw)
                stored = Content(*content)
                if stamps.get(path) == (size, mtime_ns) and stored.plausible:
                    contents[path] = (key.decode(errors="replace"), stored)
        return contents

    def content(self, key: str) -> Content | None:
        """Return a stored content; None where there is none, or it cannot be right.

        Args:
            key: of the content.
        """
        with self._errors():
            query = f"SELECT {COLUMNS} FROM contents WHERE key = ?"
            row = self._db.execute(query, (key.encode(),)).fetchone()
        content = Content(*row) if row else None
        return content if content and content.plausible else None

    def fingerprint(self, key: str) -> bytes | None:
        """Return the stored fingerprint of the content of a key; None where there is none."""
        query = "SELECT substr(peaks,5) FROM fingerprints WHERE key = ? AND substr(peaks,1,4) = ?"
        with self._errors():
            row = self._db.execute(query, (key.encode(), PEAKS_VERSION)).fetchone()
        return row[0] if row else None

    def record_fingerprint(self, key: str, peaks: bytes) -> None:
        """Store the peaks that are the fingerprint of the content of a key."""
        with self._errors():
            row = key.encode(), PEAKS_VERSION + peaks
            self._db.execute("REPLACE INTO fingerprints VALUES (?, ?)", row)

    def record(self, findings: Iterable[Finding]) -> None:
        """Store findings in one transaction; what was stored for the same path is replaced."""
        findings = list(findings)
        contents = [(f.key.encode(), *astuple(f.content)) for f in findings if f.content]
        files = [(os.fsencode(f.path), *f.stamp, f.key.encode()) for f in findings]
        marks = ", ".join("?" * (1 + len(fields(Content))))
        with self._errors(), self._transaction():
            self._db.executemany(f"INSERT OR REPLACE INTO contents VALUES ({marks})", contents)
            self._db.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", files)

    def forget(self, root: str, keep: Iterable[str]) -> None:
        """Remove the files under `root` that are not in `keep`.

        Contents stay: a file that comes back, elsewhere too, is known again.
        """
        kept = {os.fsencode(path) for path in keep}
        with self._errors(), self._transaction():
            query = "SELECT path FROM files WHERE path >= ? AND path < ?"
            stored = self._db.execute(query, _below(root)).fetchall()
            gone = [row for row in stored if row[0] not in kept]
            self._db.executemany("DELETE FROM files WHERE path = ?", gone)
            bounds = LOCAL.encode(), LOCAL.replace(":", ";").encode()
            for table in ("contents", "fingerprints"):
                query = f"DELETE FROM {table} WHERE key >= ? AND key < ? AND key NOT IN"
                self._db.execute(f"{query} (SELECT key FROM files)", bounds)

    def _prepare(self) -> None:
        """Make the tables in a new file; refuse a file that is something else."""
        if self._is_new():
            self._db.execute("PRAGMA journal_mode = WAL")
            with self._transaction():
                if self._is_new():  # no other process was faster
                    for statement in TABLES.split(";"):
                        self._db.execute(statement)
        if self._marks()[:2] == (APPLICATION, OLD_VERSION):
            with self._transaction():  # files are opened once more, known audio is not decoded
                self._db.execute("DELETE FROM files")
                self._db.execute(f"PRAGMA user_version = {VERSION}")
        if self._marks()[:2] != (APPLICATION, VERSION):
            raise LibraryIndexError(
                f"{self.path}: not a library index of version {VERSION}; move the file away or "
                "give another path with --index"
            )
        columns = "key BLOB PRIMARY KEY, peaks BLOB"  # an index of this version may lack the table
        self._db.execute(f"CREATE TABLE IF NOT EXISTS fingerprints ({columns})")
        self._db.execute("PRAGMA synchronous = NORMAL")  # with WAL: never damaged by a power cut

    def _is_new(self) -> bool:
        return self._marks() == (0, 0, 0)

    def _marks(self) -> tuple[int, int, int]:
        """Whose file it is, of which version, and how many tables it has; zeros in a new one."""
        tables = "SELECT count(*) FROM sqlite_master"
        queries = ("PRAGMA application_id", "PRAGMA user_version", tables)
        return tuple(self._db.execute(query).fetchone()[0] for query in queries)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """Open a transaction. It takes the lock at once, so two writers wait for each other."""
        with self._db:  # commits, or rolls back
            self._db.execute("BEGIN IMMEDIATE")
            yield

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn SQLite's and the system's errors into one line with the fix."""
        fix = "give another path with --index or $SEPARATOR_INDEX"
        try:
            yield
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # the latter in its message
            words = textwrap.shorten(str(error), 120, placeholder=" …")  # may quote a statement
            reason = "cannot be used"
            if not isinstance(error, sqlite3.OperationalError):
                reason, fix = "is damaged", f"{fix}: scan makes a new one there"
            raise LibraryIndexError(f"{self.path}: the index {reason} ({words}); {fix}") from error
        except OSError as error:
            raise LibraryIndexError(f"{self.path}: {one_line(error)}; {fix}") from error


def _below(root: str) -> tuple[bytes, bytes]:
    """Bounds, the second excluded, of the paths inside a folder."""
    folder = os.fsencode(root).rstrip(b"/") + b"/"
    return folder, folder[:-1] + b"0"  # "0" is the character after "/"

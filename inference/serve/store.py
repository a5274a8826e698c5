"""Sessions and their songs: what waits, what is ready, what is removed, and the limits of all."""

import contextlib
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from separator.errors import SeparatorError, printable
from separator.inference.serve.command import ServeConfig
from separator.inference.serve.session import Session, Song, State
from separator.inference.serve.temporary import new_folder
from separator.inference.serve.web import RefusedError

MAX_SESSIONS = 1000
MEGA, GIGA = 10**6, 10**9


class Store:
    """All sessions, in a temporary folder that only this user may read.

    Args:
        config: the limits.
    """

    def __init__(self, config: ServeConfig) -> None:
        self.config = config
        self.folder = new_folder()
        self.changed = threading.Condition()
        self.speed = 0.0  # seconds of sound in a second, of the last song; 0: unknown
        self.stopped = False
        self._sessions: dict[str, Session] = {}
        self._uploads: dict[Path, float] = {}  # folder: bytes that may come

    # --- sessions ------------------------------------------------------------------------------

    def open_session(self) -> str:
        """Start a session.

        Returns:
            Its secret name.

        Raises:
            RefusedError: there are MAX_SESSIONS.
        """
        with self.changed:
            if len(self._sessions) >= MAX_SESSIONS:
                raise RefusedError(503, "too many pages are open; try again later")
            token = secrets.token_urlsafe(32)
            self._sessions[token] = Session(Path(tempfile.mkdtemp(dir=self.folder)))
            return token

    def session(self, token: str | None) -> Session | None:
        """Return a session, which is being used.

        Args:
            token: its secret name.

        Returns:
            None if there is none of this name.
        """
        session = self._sessions.get(token or "")
        if session:
            session.seen = time.monotonic()
        return session

    def expire(self) -> None:
        """Remove sessions whose page does not ask any more."""
        oldest = time.monotonic() - 60 * self.config.keep_minutes
        with self.changed:
            tokens = [key for key, value in self._sessions.items() if value.seen < oldest]
            expired = [self._sessions.pop(token) for token in tokens]
        for session in expired:
            self.clear(session)
            shutil.rmtree(session.folder, ignore_errors=True)

    def clear(self, session: Session) -> None:
        """Remove all that a session has."""
        for song in list(session.songs.values()):
            self.remove(session, song)

    def __enter__(self) -> Self:
        """Remove all files when the block ends."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Cancel everything and remove all files."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def stop(self) -> None:
        """Cancel everything."""
        with self.changed:
            self.stopped = True
            for session in self._sessions.values():
                for song in session.songs.values():
                    song.cancelled.set()
            self.changed.notify_all()

    # --- songs ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def receiving(self, session: Session, size: int) -> Iterator[Path]:
        """Yield a folder for a song that is about to be sent.

        Args:
            session: of whom.
            size: its bytes, 0 if that is not known.

        Raises:
            RefusedError: the queue or the disk has no room, or the song is too large.
        """
        self.check_size(size)
        with self.changed:
            if len(self._unfinished()) + len(self._uploads) >= self.config.max_queue:
                raise RefusedError(
                    503, f"the queue is full ({self.config.max_queue} songs); try again later"
                )
            expected = size or self.config.max_megabytes * MEGA
            self.make_room(session, expected)
            folder = Path(tempfile.mkdtemp(dir=session.folder))
            self._uploads[folder] = expected
        try:
            yield folder
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            with self.changed:
                self._uploads.pop(folder, None)

    def check_size(self, size: int) -> None:
        """Refuse a file that is larger than is taken.

        Args:
            size: its bytes.

        Raises:
            RefusedError: it is.
        """
        if size > self.config.max_megabytes * MEGA:
            limit = self.config.max_megabytes
            raise RefusedError(413, f"larger than {limit:g} MB (separator serve --max-megabytes)")

    def check_length(self, path: Path, seconds: float) -> None:
        """Refuse a song that is longer than is taken.

        Args:
            path: the song.
            seconds: its length.

        Raises:
            SeparatorError: it is.
        """
        limit = self.config.max_minutes
        if seconds > limit * 60:
            raise SeparatorError(
                f"{path}: longer than {limit:g} minutes (separator serve --max-minutes)"
            )

    def add(self, session: Session, song: Song) -> None:
        """Put a song into the queue.

        Args:
            session: whose it is.
            song: what the session does not have yet.

        Raises:
            RefusedError: the disk has no room for its stems.
        """
        with self.changed:
            self._uploads.pop(song.folder, None)
            self.make_room(session, song.bytes)
            session.songs[song.id] = song
            self.changed.notify_all()

    def make_room(self, session: Session, size: float) -> None:
        """Remove as many of a session's downloads, oldest first, as a new file needs.

        Args:
            session: whose file it is.
            size: its bytes.

        Raises:
            RefusedError: the disk has no room even without them; then they stay.
        """
        with self.changed:
            if self._has_room(size - session.stored_bytes):
                while session.downloads and not self._has_room(size):
                    session.drop_download(next(iter(session.downloads)))
            if not self._has_room(size):
                limit = f"{self.config.max_disk:g} GB (separator serve --max-disk)"
                raise RefusedError(
                    507, f"no room on the disk, or in its {limit}; remove songs that are done"
                )

    def remove(self, session: Session, song: Song) -> None:
        """Cancel a song and remove its files; a worker that is at it does the latter.

        Args:
            session: whose it is.
            song: one of the session's.
        """
        with self.changed:
            session.songs.pop(song.id, None)
            song.cancelled.set()
            busy = song.state is State.SEPARATING
            for id, (_, songs) in list(session.downloads.items()):
                if song in songs:
                    session.drop_download(id)
        if not busy:
            shutil.rmtree(song.folder, ignore_errors=True)

    def take(self) -> Song | None:
        """Wait for the next song to separate.

        Returns:
            None when the server ends.
        """
        with self.changed:
            while not self.stopped and not self._waiting():
                self.changed.wait()
            if self.stopped:
                return None
            song = self._waiting()[0]
            song.state, song.started = State.SEPARATING, time.monotonic()
            for session in self._sessions.values():
                if song.id in session.songs:
                    session.served = song.started
            return song

    def finish(self, song: Song, error: str = "") -> None:
        """Say that a song is separated, or why not.

        Args:
            song: what `take` returned.
            error: the reason, "" if it is separated.
        """
        with self.changed:
            wanted = not song.cancelled.is_set()
            song.error, song.state = error, State.FAILED if error else State.READY
            if wanted and not error:
                self.speed = song.done / max(time.monotonic() - song.started, 1e-3)
        if not wanted or error:
            shutil.rmtree(song.folder, ignore_errors=True)

    def view(self, session: Session) -> list[dict[str, Any]]:
        """Describe a session's songs for its page.

        Returns:
            A mapping for each song, in the order in which they came; "left" is in seconds.
        """
        with self.changed:
            running = [song for song in self._unfinished() if song.state is State.SEPARATING]
            order = running + self._waiting()
            return [self._view(song, order) for song in session.songs.values()]

    def _view(self, song: Song, order: list[Song]) -> dict[str, Any]:
        place = order.index(song) if song in order else 0
        ahead = order[:place] if song.state is State.WAITING else []
        spent = time.monotonic() - song.started
        measured = song.done / spent if song.state is State.SEPARATING and song.done else 0.0
        speed = measured or self.speed
        work = song.remaining + sum(other.remaining for other in ahead) / self.config.jobs
        rows = {"id": song.id, "name": printable(song.path.name), "state": song.state}
        rows |= {"seconds": song.info.seconds, "error": song.error, "notices": song.notices}
        rows |= {"progress": min(song.done / max(song.info.seconds, 1e-3), 1.0)}
        rows |= {"left": work / speed if speed else None, "ahead": len(ahead)}
        if song.state is State.READY:
            rows |= {"stems": song.spool.names, "channels": song.spool.channels}
            rows |= {"rate": song.info.rate, "samples": song.spool.samples}
        return rows

    def _all(self) -> Iterator[Song]:
        for session in self._sessions.values():
            yield from session.songs.values()

    def _unfinished(self) -> list[Song]:
        return [song for song in self._all() if song.state in (State.WAITING, State.SEPARATING)]

    def _waiting(self) -> list[Song]:
        """Return the songs that wait, in turn: of each session one, then of each another."""
        ranked = []
        for session in self._sessions.values():
            waiting = [song for song in session.songs.values() if song.state is State.WAITING]
            ranked += [(rank, session.served, song) for rank, song in enumerate(waiting)]
        return [song for *_, song in sorted(ranked, key=lambda row: (*row[:2], row[2].arrived))]

    def _has_room(self, size: float) -> bool:
        used = sum(song.bytes for song in self._all() if song.state is not State.FAILED)
        used += sum(session.download_bytes for session in self._sessions.values())
        used += sum(self._uploads.values())
        free = shutil.disk_usage(self.folder).free
        return used + size <= self.config.max_disk * GIGA and 2 * size <= free

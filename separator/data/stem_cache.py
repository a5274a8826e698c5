"""MUSDB18's compressed stems, decoded once into a bounded folder.

Six seconds of the four stems of a `.stem.mp4` take four times as long to read as those of FLAC (89
and 22 ms of a processor), so each file is decoded once into the user's cache folder. Entries are
named by what was coded, not by path: moving the collection or running from another folder finds
them again. The user's own folders are never written to.
"""

import contextlib
import hashlib
import logging
import os
import random
import re
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from separator import audio
from separator.atomic import write_text
from separator.errors import DISK_FULL, SeparatorError, one_line
from separator.logs import bar

STEM_SUFFIX = ".stem.mp4"
_STREAMS = (1, 2, 3, 4)  # 0 is the mixture, coded on its own: the sum of the stems is the truth
_LARGEST_16_BIT = 32767 / 32768

log = logging.getLogger(__name__)


def is_compressed(path: Path) -> bool:
    """Return whether a file is read through the cache.

    Args:
        path: the file.
    """
    return path.name.endswith(STEM_SUFFIX)


def default_folder() -> Path:
    """Find the folder of decoded stems: $SEPARATOR_CACHE, or the system's place for caches.

    Returns:
        The folder, which need not exist.
    """
    import platformdirs

    chosen = os.environ.get("SEPARATOR_CACHE") or platformdirs.user_cache_dir("separator")
    return Path(chosen).expanduser()


class StemCache:
    """A bounded folder of decoded stems, one subfolder a song; the least recently used go first.

    Any number of processes may share it: files appear whole or not at all, and one that another
    process has evicted is decoded again.
    """

    def __init__(self, limit_gb: float = 60.0, folder: Path | None = None) -> None:
        self.folder = (folder or default_folder()) / "stems"
        self.keys = self.folder.with_name("keys")
        self.limit = int(limit_gb * 1e9)

    def entry(self, song: Path) -> Path:
        """Find the folder of a song's decoded stems, whether or not they are there.

        The key takes a reading of the whole file, so it is noted for this state of the file.

        Args:
            song: a `.stem.mp4`.

        Returns:
            The folder, named by the song's content.
        """
        state = song.stat()
        text = f"{song.resolve()} {state.st_size} {state.st_mtime_ns}"
        note = self.keys / hashlib.blake2b(os.fsencode(text), digest_size=16).hexdigest()
        key = _noted(note)
        if not key:
            key = audio.content_key(song)
            with self._storing():
                write_text(note, key)
        return self.folder / key

    def path(self, song: Path, stream: int) -> Path:
        """Find the file of a decoded stream; decode the song when it is not there.

        Args:
            song: a `.stem.mp4`.
            stream: number of the stream.

        Returns:
            A FLAC or WAV file.

        Raises:
            SeparatorError: the song cannot be decoded, or the folder cannot be written.
        """
        entry = self.entry(song)
        path = _find(entry, stream)
        if path is None:
            self._decode(song, entry)
            path = _find(entry, stream)
        if path is None:
            raise SeparatorError(f"{song}: has no stem number {stream}; get the file again")
        os.utime(entry)  # when it was last of use, for the eviction
        return path

    def prepare(self, songs: Iterable[Path], threads: int = 2) -> None:
        """Decode songs that are not in the cache, with a progress bar.

        A song that cannot be decoded is logged; reading it raises the error.

        Args:
            songs: `.stem.mp4` files.
            threads: songs decoded at once.
        """
        missing = [s for s in songs if any(_find(self.entry(s), k) is None for k in _STREAMS)]
        random.Random(os.getpid()).shuffle(missing)  # ranks share the work instead of repeating it
        if not missing:
            return
        with ThreadPoolExecutor(threads) as pool:
            jobs = pool.map(self._try, missing)
            hidden = os.environ.get("RANK", "0") != "0"
            for _ in bar(jobs, "decoding stems", len(missing), unit="song", hidden=hidden):
                pass

    def _try(self, song: Path) -> None:
        """Decode one song unless that has been done meanwhile; log a failure."""
        try:
            for stream in _STREAMS:
                self.path(song, stream)
        except (SeparatorError, OSError) as error:
            log.warning("%s", error)

    def _decode(self, song: Path, entry: Path) -> None:
        """Write all stems of a song, then make room."""
        with self._storing():
            if entry.is_file():  # not one of ours: an entry is a folder
                entry.unlink()
            entry.mkdir(parents=True, exist_ok=True)
            for stream in _STREAMS:
                _store(song, stream, entry)
            self._evict(keep=entry)

    @contextlib.contextmanager
    def _storing(self) -> Iterator[None]:
        """Say what to do when the cache folder cannot be written."""
        try:
            yield
        except OSError as error:
            fix = "make room there or set" if error.errno in DISK_FULL else "set"
            raise SeparatorError(
                f"{self.folder}: cannot store decoded stems ({one_line(error)}); {fix} "
                "SEPARATOR_CACHE to another folder"
            ) from error

    def _evict(self, keep: Path) -> None:
        """Remove least recently used entries until the folder is within its limit."""
        entries = {}
        for entry in self.folder.iterdir():
            if not entry.is_dir():
                continue
            try:
                used = entry.stat().st_mtime_ns
                entries[entry] = (used, sum(file.stat().st_size for file in entry.iterdir()))
            except FileNotFoundError:
                continue  # another process is removing it
        total = sum(size for _, size in entries.values())
        for entry, (_, size) in sorted(entries.items(), key=lambda item: item[1][0]):
            if total <= self.limit:
                return
            if entry != keep:
                shutil.rmtree(entry, ignore_errors=True)
                total -= size
                log.warning(
                    "decoded stems exceed %.1f GB: %s removed; a larger data.cache_gb avoids "
                    "decoding it again",
                    self.limit / 1e9,
                    entry.name,
                )


def _noted(note: Path) -> str:
    """The key in a note; "" when there is none, or what is there is no key but perhaps a path."""
    try:
        key = note.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""
    return key if re.fullmatch("[0-9a-f]{64}", key) else ""


def _find(entry: Path, stream: int) -> Path | None:
    """The file of a decoded stream, if it is there."""
    candidates = (entry / f"{stream}.flac", entry / f"{stream}.wav")
    return next((path for path in candidates if path.is_file()), None)


def _store(song: Path, stream: int, entry: Path) -> None:
    """Write a stem of a song as 16-bit FLAC, or as float WAV where 16 bits would clip."""
    wave = audio.to_channels(audio.read_array(song, stream=stream), 2)
    fits = np.abs(wave).max() <= _LARGEST_16_BIT
    format_, subtype = ("flac", "PCM_16") if fits else ("wav", "FLOAT")
    path, rate = entry / f"{stream}.{format_}", audio.probe(song, stream=stream).rate
    with audio.Writer(path, rate, 2, format=format_, subtype=subtype) as writer:
        writer.write(wave)

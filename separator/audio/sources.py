"""Decide which library decodes a file, and how much of it; all readers use this decision."""

import functools
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from separator.audio.channel_layouts import fold, shares
from separator.audio.damage import refuse_truncated
from separator.audio.demuxer import channel_names
from separator.audio.formats import SUFFIXES, format_of
from separator.audio.info import AudioError, AudioInfo, Refused, Report, reporting
from separator.audio.integrity import mp4_is_cut, skip_id3
from separator.audio.mpeg_backend import MpegSource
from separator.audio.mpeg_frames import is_frame
from separator.audio.pyav_backend import EVER, PyAVSource
from separator.audio.soundfile_backend import ChainedSource, Ended, SoundfileSource, open_soundfile
from separator.ranges import MAX_CHANNELS, MAX_RATE, MIN_RATE

BLOCK_SAMPLES = 1 << 18  # samples of a part
_KEPT = 2048  # files whose examination is remembered
_SOUNDFILE = (b"RIFF", b"RF64", b"BW64", b"FORM", b"fLaC", b"OggS", b"caff", b".snd")
_FFMPEG = (b"\x1a\x45\xdf\xa3", b"\x30\x26\xb2\x75", b"MAC ", b"wvpk", b"TTA", b"MP+", b"MPCK")
_OGG = ("ogg", "opus", "flac")  # all of them are called .ogg

Backend = MpegSource | PyAVSource | SoundfileSource | ChainedSource


@dataclass(frozen=True)
class Source:
    """A file with what decodes it; `weights` (2 c) fold its channels, where that is needed."""

    info: AudioInfo
    backend: Backend
    weights: np.ndarray | None = None

    def decode(
        self, start: int, stop: int | None, size: int, report: Report
    ) -> Iterator[np.ndarray]:
        """Yield samples [start, stop) in parts (c t) float32 of about `size`.

        Where libsndfile gives up FFmpeg goes on, if it can. `report` gets start and length
        of samples that do not decode: they are silence, or missing where their number is unknown.
        """
        stop = self.info.samples if stop is None else min(stop, self.info.samples)
        if start >= stop:
            return
        try:
            for part in self.backend.decode(start, stop, size, report):
                yield self._folded(part)
        except Ended as end:
            at = end.at
            for part in self._rest(at, stop, size, report):
                at += part.shape[1]
                yield self._folded(part)
            if at < stop:
                report(at, stop - at)

    def _rest(self, at: int, stop: int, size: int, report: Report) -> Iterator[np.ndarray]:
        """Yield what FFmpeg decodes from sample `at` on, if it reads the file.

        FFmpeg leaves damaged FLAC frames out, and what follows would come too early.
        """
        if isinstance(self.backend, SoundfileSource) and self.info.format == "flac":
            yield from self.backend.mended(at, stop, report)
            return
        try:
            other = PyAVSource(self.info.path)
        except AudioError:
            return
        channels = self.info.channels if self.weights is None else self.weights.shape[1]
        if (other.info.rate, other.info.channels) == (self.info.rate, channels):
            yield from other.decode(at, stop, size, report)

    def _folded(self, part: np.ndarray) -> np.ndarray:
        return part if self.weights is None else fold(part, self.weights)


def source_of(path: str | os.PathLike, stream: int = 0) -> Source:
    """Examine a file, unless that was done already and the file is still the same.

    Args:
        path: the file.
        stream: one of several audio streams.

    Returns:
        The file with the library that decodes it.

    Raises:
        AudioError: as `probe`.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES and os.path.lexists(path) and not path.is_dir():
        raise AudioError(f"{path}: unsupported suffix; use one of {' '.join(sorted(SUFFIXES))}")
    with reporting(path):
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise AudioError(f"{path}: is a folder; give an audio file")
        if not stat.S_ISREG(status.st_mode):  # opening a FIFO would wait for ever
            raise AudioError(f"{path}: is not a regular file; give an audio file")
        if not status.st_size:
            raise AudioError(f"{path}: empty, zero bytes long; copy it again")
    return _examined(path, stream, (status.st_size, status.st_mtime_ns, status.st_ino))


@functools.lru_cache(maxsize=_KEPT)
def _examined(path: Path, stream: int, _stamp: tuple[int, int, int]) -> Source:
    """Find the library that reads most of a file; the stamp tells a changed file."""
    errors = []
    for opener in _openers(path, stream):
        try:
            return _source(opener(path))
        except Refused:
            raise
        except AudioError as error:
            errors.append(error)
    system = [error for error in errors if isinstance(error.__cause__, OSError)]
    if system:  # it may pass the next time: a network drive
        raise system[0]
    if mp4_is_cut(path):
        raise AudioError(
            f"{path}: truncated, the index that stands at its end is missing; copy it again"
        ) from errors[0]
    raise AudioError(
        f"{path}: is no audio file, or is too damaged to be read; check that it plays"
    ) from errors[0]


def _openers(path: Path, stream: int) -> list[Callable[[Path], Backend]]:
    """Order the libraries by what the file begins with, whatever its suffix says."""
    if stream:
        return [functools.partial(PyAVSource, stream=stream)]
    with reporting(path), open(path, "rb") as file:
        skip_id3(file)
        head = file.read(16)
    if head.startswith(_SOUNDFILE):
        return [open_soundfile, PyAVSource]
    if head.startswith(b"riff"):  # libsndfile takes the floats of some W64 for integers
        return [PyAVSource, open_soundfile]
    other = head.startswith(_FFMPEG) or head[4:8] == b"ftyp"
    if is_frame(head) or (format_of(path) == "mp3" and not other):
        return [MpegSource, PyAVSource]
    return [PyAVSource, _mostly_mpeg]


def _mostly_mpeg(path: Path) -> MpegSource:
    """Read MPEG frames that are most of a file; any bytes hold something that looks like one."""
    backend = MpegSource(path)
    if 2 * backend.index.bytes < path.stat().st_size:
        raise AudioError(f"{path}: holds hardly any MPEG frames; check what it is")
    return backend


def _source(backend: Backend) -> Source:
    """Judge what a library says of a file."""
    declared, info = backend.declared, backend.info
    _refuse_absurd(info)
    samples, notices = info.samples, info.notices
    if not backend.exact:
        backend, samples = _compared(backend)
        if declared is not None and declared != samples:
            notices += (f"its header counts {declared} samples, {samples} decode",)
    if not samples:
        raise Refused(f"{info.path}: holds no samples")
    refuse_truncated(info, samples, declared or samples)
    named = format_of(info.path)
    if named != info.format and not (named in _OGG and info.format in _OGG):
        notices += (f"named {info.path.suffix}, it is {info.format}",)
    names = backend.names or (channel_names(info.path) if info.channels > 2 else ())
    weights = shares(names)
    if weights is not None:
        notices += (f"its channels {' '.join(names)} are folded to stereo",)
    channels = info.channels if weights is None else 2
    info = replace(backend.info, samples=samples, channels=channels, notices=notices)
    return Source(info, backend, weights)


def _refuse_absurd(info: AudioInfo) -> None:
    if not MIN_RATE <= info.rate <= MAX_RATE:
        raise Refused(
            f"{info.path}: its header gives a rate of {info.rate} Hz; {MIN_RATE // 1000} kHz to "
            f"{MAX_RATE // 1000} kHz are taken"
        )
    if info.channels > MAX_CHANNELS:
        raise Refused(
            f"{info.path}: has {info.channels} channels, only 1 to {MAX_CHANNELS} are known; mix "
            "it down to stereo first"
        )


def _compared(backend: SoundfileSource) -> tuple[Backend, int]:
    """Decode what a header may be wrong about: the library that reads more, and how much."""
    samples = 0
    try:
        for part in backend.decode(0, EVER, BLOCK_SAMPLES, lambda *_: None):
            samples += part.shape[1]
    except Ended as end:
        samples = end.at
    try:
        other = PyAVSource(backend.info.path)
    except Refused:
        raise
    except AudioError:
        return backend, samples
    return (other, other.info.samples) if other.info.samples >= samples else (backend, samples)

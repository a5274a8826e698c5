"""The table of audio formats, what is known of a file, and how errors are told."""

import contextlib
import errno
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import soundfile

from separator.errors import SeparatorError, printable

MIN_RATE, MAX_RATE = 1000, 768_000  # Hz; others are a damaged header's
MAX_CHANNELS = 8


@dataclass(frozen=True)
class Format:
    """What can be read and, where `max_channels` is not 0, written.

    Attributes:
        name: as in `AudioInfo.format`.
        suffixes: file name endings.
        also: those that are read but not written.
        max_channels: as many can be written; 0: the format is read only.
        subtypes: sample formats of a lossless one, the default first.
        rates: in Hz, where the codec allows only some.
        max_rate: in Hz; above it libsndfile's Vorbis encoder ends the process.
    """

    name: str
    suffixes: tuple[str, ...]
    max_channels: int = 0
    also: tuple[str, ...] = ()
    subtypes: tuple[str, ...] = ()
    rates: tuple[int, ...] = ()
    max_rate: int = MAX_RATE


_MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
FORMATS = {
    row.name: row
    for row in (
        Format(
            "wav",
            (".wav", ".wave"),
            max_channels=8,
            also=(".w64", ".rf64"),
            subtypes=("FLOAT", "PCM_16", "PCM_24"),
        ),
        Format(
            "flac",
            (".flac",),
            max_channels=8,
            subtypes=("PCM_24", "PCM_16"),
            max_rate=655_350,
        ),
        Format("mp3", (".mp3",), max_channels=2, also=(".mp2", ".mpga"), rates=_MP3_RATES),
        Format("ogg", (".ogg", ".oga"), max_channels=8, max_rate=200_000),
        Format("opus", (".opus",), max_channels=8, rates=(8000, 12000, 16000, 24000, 48000)),
        Format(
            "m4a",
            (".m4a", ".mp4", ".m4b"),
            max_channels=6,
            also=(".aac", ".mov", ".alac", ".3gp"),
            rates=(*_MP3_RATES, 64000, 88200, 96000),
        ),
        Format(
            "aiff",
            (".aiff", ".aif"),
            max_channels=8,
            also=(".aifc",),
            subtypes=("PCM_24", "PCM_16", "FLOAT"),
        ),
        Format("caf", (".caf",)),
        Format("wma", (".wma", ".asf")),
        Format("ape", (".ape",)),
        Format("wavpack", (".wv",)),
        Format("matroska", (".mka", ".mkv", ".webm")),
        Format("tta", (".tta",)),
        Format("tak", (".tak",)),
        Format("musepack", (".mpc",)),
        Format("dsd", (".dsf",)),
        Format("ac3", (".ac3", ".eac3")),
        Format("dts", (".dts",)),
        Format("au", (".au", ".snd")),
    )
}
_BY_SUFFIX = {suffix: row.name for row in FORMATS.values() for suffix in row.suffixes + row.also}
SUFFIXES = frozenset(_BY_SUFFIX)
WRITABLE = tuple(row.name for row in FORMATS.values() if row.max_channels)


class AudioError(SeparatorError):
    """A file cannot be read or written: one line, "PATH: what is wrong; the fix"."""


class Refused(AudioError):
    """A file that is known for what it is: no other library is asked."""


@dataclass(frozen=True)
class AudioInfo:
    """What a file holds.

    Attributes:
        path: the file.
        format: a name of `FORMATS`.
        codec: of its sound.
        samples: per channel, as many as decode.
        rate: in Hz.
        channels: as `read` gives them; unusual layouts are folded to stereo.
        streams: number of audio streams.
        notices: what the header said wrongly, what is missing or was folded: without the path.
        subtype: sample format, "PCM_16", "PCM_24", "FLOAT", ...; "" for lossy codecs.
    """

    path: Path
    format: str
    codec: str
    samples: int
    rate: int
    channels: int
    streams: int = 1
    notices: tuple[str, ...] = ()
    subtype: str = ""

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return self.samples / self.rate


def format_of(path: Path) -> str:
    """Return the format that a file's suffix stands for, or ""."""
    return _BY_SUFFIX.get(path.suffix.lower(), "")


def written_as(format: str) -> str:
    """Return the format in which results of a file of `format` can be written."""
    return format if format in WRITABLE else "flac"


def tolerance(samples: int, rate: int) -> int:
    """Return how many samples may be missing or damaged: 1 %, or 1 s but at most a quarter."""
    return max(samples // 100, min(rate, samples // 4))


@contextlib.contextmanager
def reporting(path: Path) -> Iterator[None]:
    """Turn what codecs and the system raise into an AudioError that advises what it knows."""
    try:
        yield
    except (soundfile.LibsndfileError, av.FFmpegError, OSError) as error:
        words = getattr(error, "error_string", None) or getattr(error, "strerror", None) or error
        words = " ".join(str(words).split()).rstrip(".") or "codec error"
        raise AudioError(f"{printable(str(path))}: {words}{_advice(error)}") from error


def _advice(error: Exception) -> str:
    """Return the fix that an error's number supports, if any."""
    number = getattr(error, "errno", None)
    if number in (errno.ENOSPC, errno.EDQUOT):
        return "; free some disk space or write elsewhere"
    if number in (errno.ENOENT, errno.ENOTDIR):
        return "; check the name"
    if number in (errno.EACCES, errno.EPERM):
        return "; check its permissions"
    return ""

"""Which audio formats there are, what is known of a file, and how errors are told."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import soundfile

from separator.errors import SeparatorError

FORMATS = {
    **{".wav": "wav", ".flac": "flac", ".mp3": "mp3", ".ogg": "ogg", ".opus": "opus"},
    **{".m4a": "m4a", ".aac": "m4a", ".mp4": "m4a", ".aif": "aiff", ".aiff": "aiff"},
}
SUFFIXES = frozenset(FORMATS)


class AudioError(SeparatorError):
    """A file cannot be read or written: one line, "PATH: what is wrong; the fix"."""


@dataclass(frozen=True)
class AudioInfo:
    """What a file holds: samples per channel, rate in Hz, number of audio streams.

    `subtype` is the sample format ("PCM_16", "PCM_24", "FLOAT", ...), "" for lossy codecs;
    `notices` say what the header got wrong and what is missing or damaged.
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


@contextlib.contextmanager
def reporting(path: Path, fix: str = "the file is damaged: replace or remove it") -> Iterator[None]:
    """Turn what codecs and the system raise into an AudioError."""
    try:
        yield
    except (soundfile.LibsndfileError, av.FFmpegError, OSError, AssertionError) as error:
        # soundfile asserts that libsndfile took every sample, which a full disk makes false
        words = getattr(error, "error_string", None) or getattr(error, "strerror", None) or error
        raise AudioError(
            f"{path}: {' '.join(str(words).split()) or 'codec error'}; {fix}"
        ) from error

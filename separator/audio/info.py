"""The description of an audio file, and errors of files."""

import contextlib
import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from separator.errors import SeparatorError

_ADVICE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "; free some disk space or write elsewhere"),
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR), "; check the name"),
    **dict.fromkeys((errno.EACCES, errno.EPERM), "; check its permissions"),
}
Report = Callable[[int, int], None]  # gets start and length, in samples, of what does not decode


class AudioError(SeparatorError):
    """A file cannot be read or written: one line, "PATH: what is wrong; the fix"."""


class Refused(AudioError):
    """A file that is known for what it is: no other library is asked."""


@dataclass(frozen=True)
class AudioInfo:
    """Properties of an audio file.

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


def tolerance(samples: int, rate: int) -> int:
    """Return how many samples may be missing or damaged: 1 %, or 1 s but at most a quarter.

    Args:
        samples: of the whole.
        rate: in Hz.
    """
    return max(samples // 100, min(rate, samples // 4))


@contextlib.contextmanager
def reporting(path: Path) -> Iterator[None]:
    """Turn errors of codecs and of the system into one line with a fix.

    Args:
        path: the file that is worked on.

    Yields:
        None, once.

    Raises:
        AudioError: names the file.
    """
    import av
    import soundfile

    try:
        yield
    except (soundfile.LibsndfileError, av.FFmpegError, OSError) as error:
        words = getattr(error, "error_string", None) or getattr(error, "strerror", None) or error
        words = " ".join(str(words).split()).rstrip(".") or "codec error"
        advice = _ADVICE.get(getattr(error, "errno", None) or 0, "")
        raise AudioError(f"{path}: {words}{advice}") from error

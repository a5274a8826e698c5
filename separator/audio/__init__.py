"""Read, check, write, resample and fold audio files: the only package that knows a codec.

libsndfile (soundfile) decodes wav, aiff, flac, mp3, ogg and opus. FFmpeg's libraries (PyAV) decode
m4a, aac, mp4 and the MP3s whose header holds no frame count, for which libsndfile guesses a length.
A slice equals the same slice of the whole: bit for bit (MP3 and Opus to 2e-7, rounding), with one
exception: AAC with noise substitution, which FFmpeg's own encoder uses at moderate bit rates, draws
its noise from the decoder's history, so that there the substituted bands differ. In a 192 kb/s
file half of the slices did, the worst second by -29 dB of the song's power. MUSDB18 has none.

Finding and checking files needs no torch; the names of `_TENSORS` import it when first used, so
that the processes of a scan start in a fraction of the time.
"""

import importlib
from typing import TYPE_CHECKING

from separator.audio.decoding import Checked, content_key, probe, verify
from separator.audio.formats import SUFFIXES, AudioError, AudioInfo
from separator.audio.tags import read_tags

if TYPE_CHECKING:
    from separator.audio.channels import to_channels
    from separator.audio.rates import Resampler, resample
    from separator.audio.reading import blocks, read
    from separator.audio.writing import Writer

__all__ = [
    "SUFFIXES",
    "AudioError",
    "AudioInfo",
    "Checked",
    "Resampler",
    "Writer",
    "blocks",
    "content_key",
    "probe",
    "read",
    "read_tags",
    "resample",
    "to_channels",
    "verify",
]

_TENSORS = {
    **{"read": "reading", "blocks": "reading", "Writer": "writing"},
    **{"resample": "rates", "Resampler": "rates", "to_channels": "channels"},
}


def __getattr__(name: str) -> object:
    """Import what works on tensors on first use."""
    if name in _TENSORS:
        return getattr(importlib.import_module(f"separator.audio.{_TENSORS[name]}"), name)
    raise AttributeError(f"module 'separator.audio' has no attribute {name!r}")

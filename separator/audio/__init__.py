"""Read, check, write, resample and fold audio files: the only package that knows a codec.

What a file begins with says which library is asked first, never its suffix: libsndfile (soundfile)
for wav, aiff, caf, flac, ogg and opus; FFmpeg's libraries (PyAV) for all others and for what
libsndfile does not read rightly; MP3's frames are found here and decoded by FFmpeg. A header's
length is a claim that is compared with the file (`sources`).

A slice equals the same slice of the whole: bit for bit (Opus to 2e-7, rounding), with one
exception: AAC with noise substitution, which FFmpeg's own encoder uses at moderate bit rates, draws
its noise from the decoder's history, so that there the substituted bands differ. In a 192 kb/s
file half of the slices did, the worst second by -29 dB of the song's power. MUSDB18 has none.

Finding and checking files needs no torch; the names of `_TENSORS` import it when first used, so
that the processes of a scan start in a fraction of the time.
"""

import importlib
from typing import TYPE_CHECKING

from separator.audio.decoding import Checked, content_key, probe, verify
from separator.audio.formats import FORMATS, SUFFIXES, AudioError, AudioInfo, written_as
from separator.audio.tags import read_tags

if TYPE_CHECKING:
    from separator.audio.downmix import to_channels
    from separator.audio.rates import Resampler, resample
    from separator.audio.reading import blocks, read
    from separator.audio.writer import Writer

__all__ = [
    "FORMATS",
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
    "written_as",
]

_TENSORS = {
    **{"read": "reading", "blocks": "reading", "Writer": "writer"},
    **{"resample": "rates", "Resampler": "rates", "to_channels": "downmix"},
}


def __getattr__(name: str) -> object:
    """Import what works on tensors on first use."""
    if name in _TENSORS:
        return getattr(importlib.import_module(f"separator.audio.{_TENSORS[name]}"), name)
    raise AttributeError(f"module 'separator.audio' has no attribute {name!r}")

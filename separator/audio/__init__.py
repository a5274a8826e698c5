"""Read, check, write, resample and fold audio files: the only package that knows a codec.

What a file begins with says which library is asked first, never its suffix: libsndfile (soundfile)
for wav, aiff, caf, flac, ogg and opus; FFmpeg's libraries (PyAV) for all others and for what
libsndfile does not read rightly; MP3's frames are found here and decoded by FFmpeg. A header's
length is a claim that is compared with the file (`sources`).

A slice equals the same slice of the whole: bit for bit (Opus to 2e-7, rounding), with one
exception: AAC with noise substitution, which FFmpeg's own encoder uses at moderate bit rates, draws
its noise from the decoder's history, so that there the substituted bands differ. In a 192 kb/s
file half of the slices did, the worst second by -29 dB of the song's power. MUSDB18 has none.

Names are imported when they are first used: formats without codecs, all but tensors without
torch, so that help is fast and the processes of a scan start in a fraction of the time.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from separator.audio.decoding import Checked, blocks, content_key, probe, read_array, verify
    from separator.audio.downmix import to_channels
    from separator.audio.formats import ENCODINGS, SUFFIXES, format_of, written_as
    from separator.audio.info import AudioError, AudioInfo
    from separator.audio.picture import add_picture, video_container
    from separator.audio.resampler import Resampler
    from separator.audio.tag_reader import RESULT_INDEX, RESULT_TAG, read_tags, result_record
    from separator.audio.tensors import read, resample
    from separator.audio.writer import Writer

_NAMES = {
    "decoding": ("Checked", "blocks", "content_key", "probe", "read_array", "verify"),
    "downmix": ("to_channels",),
    "formats": ("ENCODINGS", "SUFFIXES", "format_of", "written_as"),
    "info": ("AudioError", "AudioInfo"),
    "picture": ("add_picture", "video_container"),
    "resampler": ("Resampler",),
    "tag_reader": ("RESULT_INDEX", "RESULT_TAG", "read_tags", "result_record"),
    "tensors": ("read", "resample"),
    "writer": ("Writer",),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> object:
    """Import a name on first use."""
    if name in _MODULES:
        return getattr(importlib.import_module(f"separator.audio.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'separator.audio' has no attribute {name!r}")

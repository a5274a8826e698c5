"""libsndfile: wav, aiff, flac, ogg, opus, and mp3 whose header counts its frames."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from separator.audio.formats import AudioError, AudioInfo, reporting
from separator.audio.wholeness import iff_is_whole, ogg_is_whole, ogg_pages

_CONTAINERS = {"WAVEX": "wav", "RF64": "wav", "W64": "wav"}  # libsndfile's name -> ours
_WARM_UP = {"MPEG_LAYER_III": 9216, "OPUS": 3840, "VORBIS": 4096}  # samples, where libsndfile seeks
# Vorbis and Opus store L C R Ls Rs LFE; every other format, and this module, L R C LFE Ls Rs
# (RFC 7845 section 5.1.1.2; the values are the stored channel of each of ours).
_XIPH_ORDER = {
    **{3: (0, 2, 1), 5: (0, 2, 1, 3, 4), 6: (0, 2, 1, 5, 3, 4)},
    **{7: (0, 2, 1, 6, 5, 3, 4), 8: (0, 2, 1, 7, 5, 6, 3, 4)},
}


def probe(path: Path, stream: int) -> AudioInfo:
    """Look at a file's header, which holds its exact length."""
    _first_stream_only(path, stream)
    with reporting(path, "not an audio file, or damaged: replace or remove it"):
        header = soundfile.info(native_name(path))
        opus = header.subtype == "OPUS"
        name = "opus" if opus else _CONTAINERS.get(header.format, header.format.lower())
        if header.frames >= 1 << 48:
            raise AudioError(f"{path}: the header gives no length; fix: encode it again")
        whole = ogg_is_whole(path) if header.format == "OGG" else iff_is_whole(path)
    if not whole:
        raise AudioError(f"{path}: truncated, it ends before its header says; replace the file")
    if not header.frames:
        raise AudioError(f"{path}: holds no samples; remove it")
    codec = header.subtype.lower()
    linear = header.subtype.startswith(("PCM", "FLOAT", "DOUBLE"))
    subtype = header.subtype if linear else ""
    shape = (header.frames, header.samplerate, header.channels)
    return AudioInfo(path, name, codec, *shape, subtype=subtype)


def decode(
    path: Path, start: int, stop: int | None, size: int, stream: int
) -> Iterator[np.ndarray]:
    """Samples [start, stop) in order, in parts (c t) float32 of at most about `size`."""
    _first_stream_only(path, stream)
    with reporting(path), Forward(native_name(path)) as file:
        stop = file.frames if stop is None else min(stop, file.frames)
        order = xiph_order(file.format, file.channels)
        at = _seek_point(path, file, start) if start else 0
        if 0 < at < stop:
            file.seek(at)
        while at < stop and start < stop:
            wanted = min(max(size, start - at + 1), stop - at)
            part = file.read(wanted, dtype="float32", always_2d=True)
            if len(part) < wanted:
                raise AudioError(
                    f"{path}: truncated or damaged, sound ends after {at + len(part)} of "
                    f"{file.frames} samples; replace the file"
                )
            wave = part[max(start - at, 0) :].T
            at += len(part)
            yield np.ascontiguousarray(wave if order is None else wave[list(order)])


class Forward(soundfile.SoundFile):
    """A file that is not sought after each read and write, which soundfile does by itself.

    In MP3 each of those seeks loses what the decoder knew: up to 0.2 wrong for 300 samples.
    """

    def seekable(self) -> bool:
        """No, says the file, so that its place is left alone; `seek` works all the same."""
        return False


def native_name(path: Path) -> str | bytes:
    """Return what soundfile takes for a path: outside Windows bytes, since names need not be text.

    soundfile encodes text strictly, and so would refuse a name that is not valid UTF-8.
    """
    return str(path) if os.name == "nt" else os.fsencode(path)


def xiph_order(format: str, channels: int) -> tuple[int, ...] | None:
    """Return which stored channel each of ours is, or None where they are in order."""
    return _XIPH_ORDER.get(channels) if format == "OGG" else None


def _first_stream_only(path: Path, stream: int) -> None:
    if stream:
        raise AudioError(f"{path}: has 1 audio stream, stream {stream} was asked for; use 0")


def _seek_point(path: Path, file: soundfile.SoundFile, start: int) -> int:
    """Return the sample to decode from so that sample `start` comes out as in a whole decode."""
    if file.subtype == "VORBIS":  # seeks into the last page land up to a block off in libvorbis
        ends = [int.from_bytes(page[6:14], "little", signed=True) for page in ogg_pages(path)]
        ends = [end for end in ends if end >= 0] or [0]
        last_page = ends[-1] - ends[-2] if len(ends) > 1 else file.frames
        start = min(start, file.frames - last_page)
    return max(start - _WARM_UP.get(file.subtype, 0), 0)

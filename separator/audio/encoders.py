"""Encoders of a stream of samples: libsndfile's, and FFmpeg's for AAC."""

import contextlib
import os
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import av
import numpy as np
import soundfile
from av import AudioFrame

from separator.audio.native_stems import add_stem_box
from separator.audio.soundfile_file import Forward

_PRIMING = 0.5  # seconds; the encoder's rate control takes 0.1 to 0.4 s to settle
_WRITE_SAMPLES = 8192  # samples; libsndfile's Vorbis puts a whole write on the stack

_SET_ADD_PEAK_CHUNK = 0x1050  # a command of libsndfile


class Sound(NamedTuple):
    """A file to be written.

    Attributes:
        path: the file.
        rate: in Hz.
        channels: of all its streams.
        container: the library's name of the container.
        codec: the library's name of the codec.
        options: more of the encoder's.
        dither: whether 16-bit integers are dithered.
    """

    path: Path
    rate: int
    channels: int
    container: str
    codec: str
    options: dict[str, Any]
    dither: bool


class Encoder(Protocol):
    """Takes (c t) float32 in order, and is closed."""

    def write(self, wave: np.ndarray) -> None:
        """Append samples.

        Args:
            wave: (c t) float32.
        """

    def close(self) -> None:
        """Write what is pending."""


class SoundfileEncoder:
    """Encode with libsndfile: everything but AAC.

    Integers are rounded, with triangular dither (two uniform draws of one step each) where asked:
    the rounding error is noise then, not distortion. Its seed is the sound, so that the same sound
    gives the same file and two stems different noise. Digital silence stays silence.

    The same samples give the same bytes: no time of writing in wav (libsndfile's PEAK chunk), and
    in Ogg a serial number that is a checksum of the samples.

    Args:
        sound: with libsndfile's names of container and codec, such as "PCM_16".
    """

    def __init__(self, sound: Sound) -> None:
        self._bits = int(sound.codec[4:]) if sound.codec.startswith("PCM_") else 0
        self._dither = sound.dither and self._bits == 16
        self._noise: np.random.Generator | None = None
        place = os.fsencode(sound.path), "w", sound.rate, sound.channels
        codec = {"subtype": sound.codec, "format": sound.container}
        self._file = Forward(*place, **codec, **sound.options)
        null = soundfile._ffi.NULL
        soundfile._snd.sf_command(self._file._file, _SET_ADD_PEAK_CHUNK, null, 0)
        self._path, self._is_ogg, self._checksum = sound.path, sound.container == "OGG", 0

    def write(self, wave: np.ndarray) -> None:
        """Append samples.

        Args:
            wave: (c t) float32.
        """
        for at in range(0, wave.shape[1], _WRITE_SAMPLES):
            part = np.ascontiguousarray(wave[:, at : at + _WRITE_SAMPLES].T)
            if self._is_ogg:
                self._checksum = zlib.crc32(part, self._checksum)
            self._file.write(self._integers(part) if self._bits else part)

    def _integers(self, part: np.ndarray) -> np.ndarray:
        """Round (t c) to integers in the upper bits of 32.

        libsndfile scales by 2^n - 1, which would change integers that were read.
        """
        full = 1 << (self._bits - 1)
        scaled = part * full
        if self._dither:
            if self._noise is None and part.any():
                self._noise = np.random.default_rng(zlib.crc32(part.tobytes()))
            if self._noise is not None:
                draws = self._noise.random((*part.shape, 2), dtype=np.float32)
                scaled += (draws[..., 0] - draws[..., 1]) * bool(part.any())
        return np.clip(np.rint(scaled), -full, full - 1).astype(np.int32) << (32 - self._bits)

    def close(self) -> None:
        """Complete the file."""
        self._file.close()
        if self._is_ogg:
            _set_serial(self._path, self._checksum)


def _set_serial(path: Path, serial: int) -> None:
    """Give all pages of an Ogg file a serial number instead of libsndfile's random one."""
    from mutagen.ogg import OggPage

    with open(path, "r+b") as file, contextlib.suppress(EOFError):
        while True:
            page = OggPage(file)
            page.serial = serial
            file.seek(page.offset)
            file.write(page.write())


class AacEncoder:
    """AAC in an MP4 whose edit list removes the encoder's delay.

    Without noise substitution, so that slices of the file can be read back exactly. Half a second
    of the beginning, reversed, goes ahead and is removed by the edit list too: FFmpeg's rate
    control begins with far too few bits (residual of pink noise at 256 kb/s in the first 0.1 s:
    -10.6 dBFS, with it -21, as elsewhere in the file).

    With `titles` among the options, the file has a stream for each, the first of which is the
    mixture: Native Instruments' format of stems.
    """

    def __init__(self, sound: Sound) -> None:
        self._path, self._titles = sound.path, sound.options.get("titles", ())
        streams = len(self._titles) or 1
        self._rate, self._layout = sound.rate, "mono" if sound.channels == streams else "stereo"
        self._primes = int(sound.rate * _PRIMING)
        self._waiting: list[np.ndarray] | None = []
        self._held = self._at = 0
        self._container = av.open(f"file:{sound.path}", "w", format=sound.container)
        options = {"rate": sound.rate, "layout": self._layout, "options": {"aac_pns": "0"}}
        self._streams = [self._container.add_stream(sound.codec, **options) for _ in range(streams)]
        for stream in self._streams:
            stream.bit_rate = sound.options["bit_rate"]
        for stream, title in zip(self._streams, self._titles, strict=False):
            stream.metadata["handler_name"] = title
            stream.disposition = int(stream is self._streams[0])  # others are not played

    def write(self, wave: np.ndarray) -> None:
        """Append samples.

        Args:
            wave: (c t) float32.
        """
        if self._waiting is None:
            self._encode(wave)
            return
        self._waiting.append(wave.copy())
        self._held += wave.shape[1]
        if self._held > self._primes:
            self._begin()

    def _begin(self) -> None:
        """Encode the beginning reversed, before the place 0, and then what was held."""
        wave = np.concatenate(self._waiting, axis=1)
        self._waiting = None
        ahead = wave[:, 1 : self._primes + 1][:, ::-1]
        self._at = -ahead.shape[1]
        if ahead.shape[1]:
            self._encode(ahead)
        self._encode(wave)

    def _encode(self, wave: np.ndarray) -> None:
        for stream, sound in zip(self._streams, np.split(wave, len(self._streams)), strict=True):
            samples = np.ascontiguousarray(sound)
            frame = AudioFrame.from_ndarray(samples, format="fltp", layout=self._layout)
            frame.sample_rate, frame.time_base = self._rate, Fraction(1, self._rate)
            frame.pts = self._at
            self._container.mux(stream.encode(frame))
        self._at += wave.shape[1]

    def close(self) -> None:
        """Encode what is pending and complete the file."""
        try:
            if self._waiting:
                self._begin()
            if self._waiting is None:
                for stream in self._streams:
                    self._container.mux(stream.encode(None))
        finally:
            self._container.close()
        if self._titles:
            add_stem_box(self._path, self._titles[1:])


ENCODERS: dict[str, Callable[[Sound], Encoder]] = {"soundfile": SoundfileEncoder, "aac": AacEncoder}

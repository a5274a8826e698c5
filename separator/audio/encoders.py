"""What encodes a stream of samples: libsndfile, and FFmpeg's AAC."""

import zlib
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import av
import numpy as np
from av import AudioFrame

from separator.audio.soundfile_file import Forward, native_name, xiph_order

AAC_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}
_PRIMING = 0.5  # seconds; the encoder's rate control takes 0.1 to 0.4 s to settle
_PIECE = 8192  # samples; libsndfile's Vorbis puts a whole write on the stack


class Encoder(Protocol):
    """Takes (c t) float32 in order, and is closed."""

    def write(self, wave: np.ndarray) -> None:
        """Append samples."""

    def close(self) -> None:
        """Write what is pending."""


class SoundfileEncoder:
    """Everything but AAC.

    Integers are rounded, with triangular dither (two uniform draws of one step each) where asked:
    the rounding error is noise then, not distortion. Its seed is the sound, so that the same sound
    gives the same file and two stems different noise. Digital silence stays silence.
    """

    def __init__(
        self,
        path: Path,
        rate: int,
        channels: int,
        format: str,
        subtype: str,
        bitrate: int | None,
        dither: bool = False,
    ) -> None:
        container = "OGG" if format in ("ogg", "opus") else format.upper()
        coding = {"ogg": "VORBIS", "opus": "OPUS", "mp3": "MPEG_LAYER_III"}.get(format, subtype)
        quality = _quality(format, rate, channels, bitrate)
        self._bits = int(coding[4:]) if coding.startswith("PCM_") else 0
        self._dither = dither and self._bits == 16
        self._noise: np.random.Generator | None = None
        order = xiph_order(container, channels)
        self._order = None if order is None else np.argsort(order)
        self._file = Forward(
            native_name(path), "w", rate, channels, subtype=coding, format=container, **quality
        )

    def write(self, wave: np.ndarray) -> None:
        """Append (c t)."""
        if self._order is not None:
            wave = wave[self._order]
        for at in range(0, wave.shape[1], _PIECE):
            part = np.ascontiguousarray(wave[:, at : at + _PIECE].T)
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


def _quality(format: str, rate: int, channels: int, bitrate: int | None) -> dict[str, object]:
    """Express a bit rate as libsndfile's compression level, 0 (best) to 1."""
    if format == "mp3" and bitrate is None:
        return {"bitrate_mode": "VARIABLE", "compression_level": 0.0}
    if format == "mp3":  # linear between the least and most that the MPEG version allows
        low, high = (32, 320) if rate >= 32000 else (8, 160) if rate >= 16000 else (8, 64)
        # frames of a low constant rate are too small for the header that records the delay
        mode = "CONSTANT" if bitrate >= 64 else "AVERAGE"
        level = min(max((high - bitrate) / (high - low), 0.0), 0.9999)  # libsndfile refuses 1
        return {"bitrate_mode": mode, "compression_level": level}
    if format == "opus":  # libsndfile: 6 to 256 kb/s a channel
        return {"compression_level": min(max(1 - ((bitrate or 192) / channels - 6) / 250, 0), 1)}
    if format == "ogg":  # Vorbis I: nominal rates of quality 0 to 10, stereo
        nominal = (64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 500)
        return {"compression_level": 1 - float(np.interp(bitrate or 256, nominal, range(11))) / 10}
    return {}


class AacEncoder:
    """AAC in an MP4 whose edit list removes the encoder's delay.

    Without noise substitution, so that slices of the file can be read back exactly. Half a second
    of the beginning, reversed, goes ahead and is removed by the edit list too: FFmpeg's rate
    control begins with far too few bits (residual of pink noise at 256 kb/s in the first 0.1 s:
    -10.6 dBFS, with it -21, as elsewhere in the file).
    """

    def __init__(
        self,
        path: Path,
        rate: int,
        channels: int,
        format: str,
        subtype: str,
        bitrate: int | None,
        dither: bool = False,
    ) -> None:
        self._rate, self._layout = rate, AAC_LAYOUTS[channels]
        self._primes = int(rate * _PRIMING)
        self._waiting: list[np.ndarray] | None = []
        self._held = self._at = 0
        self._container = av.open(f"file:{path}", "w", format="mp4")
        self._stream = self._container.add_stream(
            "aac", rate=rate, layout=self._layout, options={"aac_pns": "0"}
        )
        self._stream.bit_rate = (bitrate or 256) * 1000

    def write(self, wave: np.ndarray) -> None:
        """Append (c t)."""
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
        frame = AudioFrame.from_ndarray(
            np.ascontiguousarray(wave), format="fltp", layout=self._layout
        )
        frame.sample_rate, frame.time_base = self._rate, Fraction(1, self._rate)
        frame.pts = self._at
        self._at += wave.shape[1]
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Encode what is pending and complete the file."""
        try:
            if self._waiting:
                self._begin()
            if self._waiting is None:
                self._container.mux(self._stream.encode(None))
        finally:
            self._container.close()

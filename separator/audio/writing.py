"""Write files of every format, a stream at a time."""

import contextlib
import logging
import os
from fractions import Fraction
from pathlib import Path
from typing import Self

import av
import numpy as np
import soundfile
import torch
from av import AudioFrame
from torch import Tensor

from separator.atomic import replacing
from separator.audio.formats import FORMATS, AudioError, reporting
from separator.audio.rates import Resampler
from separator.audio.sndfile import Forward, native_name, xiph_order

log = logging.getLogger(__name__)

_AAC_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}
_MOST_CHANNELS = {"mp3": 2, "flac": 8, "ogg": 8, "opus": 8, "m4a": 6}
_SUBTYPES = {  # the first is the default
    "wav": ("FLOAT", "PCM_16", "PCM_24"),
    "flac": ("PCM_24", "PCM_16"),
    "aiff": ("PCM_24", "PCM_16", "FLOAT"),
}
_BYTES = {"FLOAT": 4, "PCM_24": 3, "PCM_16": 2}  # of a sample
_MOST_BYTES = (1 << 32) - (1 << 16)  # of sound: wav and aiff count in 32 bits, with their headers
_RATES = {  # Hz, where the codec allows only some
    "mp3": (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000),
    "opus": (8000, 12000, 16000, 24000, 48000),
    "m4a": (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000),
}
_HIGHEST_RATES = {"ogg": 200000, "flac": 655350}  # above it libsndfile's Vorbis ends the process


class Writer:
    """Write a stream of (c t) float32 to a file that appears, whole, when the block ends well.

    `format` is one of wav, flac, mp3, ogg, opus, m4a, aiff (default: by the suffix). `subtype`:
    FLOAT (wav's default), PCM_24 (flac's and aiff's), PCM_16. `bitrate` in kb/s: mp3 is VBR V0
    unless given, ogg about 256, opus 192, m4a 256; the others do not use it, with a logged notice.
    Rates that the codec cannot hold are resampled to the next one that it can, with another;
    `rate` stays what `write` takes. `samples`, how many will come, is needed for a wav of more
    than 4 GiB, which becomes an RF64, and lets an aiff be refused before the work is done.

    PCM is rounded, with `dither` after TPDF noise, else without (a read and a write give the same
    integers); samples beyond ±1 are set to ±1 there and counted in `clipped`. FLOAT and the lossy
    formats keep them.

    Raises:
        AudioError: an unknown format, channels, length or bit rate that it cannot hold, NaN or Inf
            in `write` (FLOAT keeps them), nothing written, or the disk is full.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        rate: int,
        channels: int,
        *,
        format: str | None = None,
        subtype: str | None = None,
        bitrate: int | None = None,
        samples: int | None = None,
        dither: bool = False,
    ) -> None:
        self.path, self.rate, self.channels, self.bitrate = Path(path), rate, channels, bitrate
        self.format = format or FORMATS.get(self.path.suffix.lower(), "")
        self.subtype = subtype or _SUBTYPES.get(self.format, ("",))[0]
        self.clipped = self.samples = 0
        self._dither = torch.Generator().manual_seed(0) if dither else None
        self._check()
        self._container = self._container_of(samples or 0)
        if bitrate and self.format in _SUBTYPES:
            log.warning("%s is lossless: a bit rate of %d is not used", self.format, bitrate)
        self.file_rate = _legal_rate(self.format, rate)
        if self.file_rate != rate:
            log.warning(
                "%s cannot hold %d Hz, resampled to %d Hz", self.format, rate, self.file_rate
            )

    def _check(self) -> None:
        known = {*FORMATS.values()}
        if self.format not in known:
            raise AudioError(f"{self.path}: unknown format; use one of {' '.join(sorted(known))}")
        if self.format == "m4a" and self.path.suffix.lower() == ".aac":
            raise AudioError(f"{self.path}: raw AAC cannot record its delay; use .m4a")
        if self.subtype not in _SUBTYPES.get(self.format, (self.subtype,)):
            allowed = " ".join(_SUBTYPES[self.format])
            raise AudioError(f"{self.path}: {self.format} has no {self.subtype}; use {allowed}")
        most = _MOST_CHANNELS.get(self.format, 1 << 10)
        if self.channels > most or (self.format == "m4a" and self.channels not in _AAC_LAYOUTS):
            raise AudioError(
                f"{self.path}: {self.format} cannot hold {self.channels} channels; "
                "fold to stereo or write wav"
            )
        if self.bitrate is not None and not 32 <= self.bitrate <= 512:
            raise AudioError(f"{self.path}: bitrate {self.bitrate}: give 32 to 512 (kb/s)")

    def _container_of(self, samples: int) -> str:
        """Return `format`, or "rf64" for more samples than the 32 bits of a wav can count."""
        if self.format not in ("wav", "aiff"):
            return self.format
        if samples * self.channels * _BYTES[self.subtype] <= _MOST_BYTES:
            return self.format
        if self.format == "aiff":
            raise AudioError(f"{self.path}: aiff cannot hold 4 GiB; write flac or wav")
        return "rf64"

    def __enter__(self) -> Self:
        """Open a temporary file beside the final one."""
        self._resampler = Resampler(self.rate, self.file_rate, self.channels)
        with contextlib.ExitStack() as stack, reporting(self.path, "check the folder"):
            self._temporary = stack.enter_context(replacing(self.path))
            sink = _AacSink if self.format == "m4a" else _SoundfileSink
            self._sink = sink(
                self._temporary,
                self.file_rate,
                self.channels,
                self._container,
                self.subtype,
                self.bitrate,
            )
            stack.push(self._finish)
            self._stack = stack.pop_all()
        return self

    def write(self, wave: Tensor) -> None:
        """Append (c t) float32 at `rate`."""
        if wave.ndim != 2 or wave.shape[0] != self.channels:
            raise ValueError(f"{self.path}: expected ({self.channels}, t), got {tuple(wave.shape)}")
        with reporting(self.path, "free some disk space"):
            self._put(self._resampler.push(wave.detach().float().cpu()))

    def _put(self, wave: Tensor) -> None:
        if self.subtype != "FLOAT" and not bool(wave.isfinite().all()):
            raise AudioError(f"{self.path}: the sound to write has NaN or Inf; nothing is written")
        if self._dither is not None and self.subtype.startswith("PCM"):
            bits, shape = int(self.subtype[4:]), (2, *wave.shape)
            noise = torch.rand(shape, generator=self._dither)
            wave = wave + (noise[0] - noise[1]) / (1 << (bits - 1))
        if self.subtype.startswith("PCM"):
            self.clipped += int((wave.abs() > 1).sum())
        self.samples += wave.shape[1]
        if self._container_of(self.samples) not in (self.format, self._container):
            raise AudioError(f"{self.path}: wav cannot hold 4 GiB; give `samples`, or write flac")
        if wave.shape[1]:
            self._sink.write(wave.numpy())

    def _finish(self, kind: type[BaseException] | None, *_: object) -> None:
        """Write what is pending, close, and make sure that all of it is there."""
        try:
            if kind is None:
                self._put(self._resampler.flush())
        finally:
            self._sink.close()
        if kind is not None:
            return
        if not self.samples:
            raise AudioError(f"{self.path}: nothing to write, 0 samples; nothing is written")
        if self.subtype and soundfile.info(native_name(self._temporary)).frames != self.samples:
            raise AudioError(f"{self.path}: could not be written whole; free some disk space")

    def __exit__(self, *exception: object) -> bool | None:
        """Complete the file and give it its name; on an exception leave nothing."""
        with reporting(self.path, "free some disk space"):
            return self._stack.__exit__(*exception)


def _legal_rate(format: str, rate: int) -> int:
    """Return the lowest rate of the format that loses no band, or its highest."""
    legal = _RATES.get(format, (min(rate, _HIGHEST_RATES.get(format, rate)),))
    return min((one for one in legal if one >= rate), default=legal[-1])


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


class _SoundfileSink:
    """Everything but AAC."""

    def __init__(
        self, path: Path, rate: int, channels: int, format: str, subtype: str, bitrate: int | None
    ) -> None:
        container = "OGG" if format in ("ogg", "opus") else format.upper()
        coding = {"ogg": "VORBIS", "opus": "OPUS", "mp3": "MPEG_LAYER_III"}.get(format, subtype)
        quality = _quality(format, rate, channels, bitrate)
        self._bits = int(coding[4:]) if coding.startswith("PCM_") else 0
        order = xiph_order(container, channels)
        self._order = None if order is None else np.argsort(order)
        self._file = Forward(
            native_name(path), "w", rate, channels, subtype=coding, format=container, **quality
        )

    def write(self, wave: np.ndarray) -> None:
        if self._order is not None:
            wave = wave[self._order]
        for at in range(0, wave.shape[1], 8192):  # libsndfile's Vorbis puts a block on the stack
            part = wave[:, at : at + 8192].T
            if self._bits:  # libsndfile scales by 2^n - 1, which would change integers once read
                full = 1 << (self._bits - 1)
                part = np.clip(np.rint(part * full), -full, full - 1).astype(np.int32)
                part <<= 32 - self._bits
            self._file.write(np.ascontiguousarray(part))

    def close(self) -> None:
        self._file.close()


class _AacSink:
    """AAC in an MP4 whose edit list removes the encoder's delay.

    Without noise substitution, so that slices of the file can be read back exactly.
    """

    def __init__(
        self, path: Path, rate: int, channels: int, format: str, subtype: str, bitrate: int | None
    ) -> None:
        self._rate, self._layout, self._at = rate, _AAC_LAYOUTS[channels], 0
        self._container = av.open(str(path), "w", format="mp4")
        self._stream = self._container.add_stream(
            "aac", rate=rate, layout=self._layout, options={"aac_pns": "0"}
        )
        self._stream.bit_rate = (bitrate or 256) * 1000

    def write(self, wave: np.ndarray) -> None:
        wave = np.ascontiguousarray(wave)
        frame = AudioFrame.from_ndarray(wave, format="fltp", layout=self._layout)
        frame.sample_rate, frame.time_base, frame.pts = (
            self._rate,
            Fraction(1, self._rate),
            self._at,
        )
        self._at += wave.shape[1]
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        try:
            if self._at:
                self._container.mux(self._stream.encode(None))
        finally:
            self._container.close()

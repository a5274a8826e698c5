"""Write files of every format, a stream at a time."""

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import av
import numpy as np
import soundfile

from separator.arguments import as_array
from separator.atomic import replacing
from separator.audio.encoders import ENCODERS, Sound
from separator.audio.formats import ENCODINGS, FORMATS, format_of
from separator.audio.info import AudioError, reporting
from separator.audio.resampler import Resampler

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

_BYTES = {"FLOAT": 4, "PCM_24": 3, "PCM_16": 2}  # of a sample
_MAX_BYTES = (1 << 32) - (1 << 16)  # of sound, so that sound and headers are counted in 32 bits


class Writer:
    """Write a stream of (c t) float32 to a file that appears, whole, when the block ends well.

    `format` is one of wav, flac, mp3, ogg, opus, m4a, aiff (default: by the suffix). `subtype`:
    FLOAT (wav's default), PCM_24 (flac's and aiff's), PCM_16. `bitrate` in kb/s: mp3 is VBR V0
    unless given, ogg about 256, opus 192, m4a 256; the others do not use it, with a logged notice.
    Rates that the codec cannot hold are resampled to the next one that it can, with another;
    `rate` stays what `write` takes. `samples`, how many will come, is needed for a wav of more
    than 4 GiB, which becomes an RF64, and lets an aiff be refused before the work is done.

    `titles` are those of several sounds in one file, of `channels` each, which only stem.mp4 has;
    `write` then takes the channels of all of them.

    PCM is rounded (a read and a write give the same integers), PCM_16 with triangular dither where
    `dither` is set; samples beyond ±1 are set to ±1 there and counted in `clipped`. FLOAT and the
    lossy formats keep them.

    Raises:
        AudioError: an unknown format, channels, length or bit rate that it cannot hold, NaN or Inf
            in `write` (FLOAT keeps them), nothing written, or the system does not write it.
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
        titles: Sequence[str] = (),
    ) -> None:
        self.path, self.rate, self.bitrate, self.titles = Path(path), rate, bitrate, tuple(titles)
        self.channels = channels * (len(titles) or 1)
        self.format = format or self._format_by_suffix()
        row = FORMATS.get(self.format)
        if row is None or row.encoding is None or row.encoding.streams != bool(titles):
            raise AudioError(f"{self.path}: unknown format; use one of {' '.join(ENCODINGS)}")
        self._encoding = row.encoding
        self._subtypes = self._encoding.subtypes + self._encoding.requested_subtypes
        self.subtype = subtype or (self._subtypes or ("",))[0]
        self.dither = dither
        self.clipped = self.samples = 0
        self._check()
        self._container = self._container_of(samples or 0)
        if bitrate and self._subtypes:
            log.warning("%s is lossless: a bit rate of %d is not used", self.format, bitrate)
        self.file_rate = self._legal_rate()
        if self.file_rate != rate:
            log.warning(
                "%s cannot hold %d Hz, resampled to %d Hz", self.format, rate, self.file_rate
            )

    def _format_by_suffix(self) -> str:
        name = format_of(self.path)
        return name if name and self.path.suffix.lower() in FORMATS[name].suffixes else ""

    def _check(self) -> None:
        if self._subtypes and self.subtype not in self._subtypes:
            allowed = " ".join(self._subtypes)
            raise AudioError(f"{self.path}: {self.format} has no {self.subtype}; use {allowed}")
        if self.channels // (len(self.titles) or 1) not in (1, 2):
            raise AudioError(f"{self.path}: {self.channels} channels: fold them to one or two")
        if self.bitrate is not None and not 32 <= self.bitrate <= 512:
            raise AudioError(f"{self.path}: bitrate {self.bitrate}: give 32 to 512 (kb/s)")

    def _legal_rate(self) -> int:
        """Return the lowest rate of the format that loses no band, or its highest."""
        legal = self._encoding.rates or (min(self.rate, self._encoding.max_rate),)
        return min((one for one in legal if one >= self.rate), default=legal[-1])

    def _container_of(self, samples: int) -> str:
        """Return the container for so many samples, which may be more than 32 bits count."""
        encoding = self._encoding
        if encoding.long_container is None:
            return encoding.container
        if samples * self.channels * _BYTES[self.subtype] <= _MAX_BYTES:
            return encoding.container
        if not encoding.long_container:
            raise AudioError(f"{self.path}: {self.format} cannot hold 4 GiB; write flac or wav")
        return encoding.long_container

    def __enter__(self) -> Self:
        """Open a temporary file beside the final one."""
        self._resampler = Resampler(self.rate, self.file_rate, self.channels)
        with contextlib.ExitStack() as stack, reporting(self.path):
            self._temporary = stack.enter_context(replacing(self.path))
            encoding, shape = self._encoding, (self.file_rate, self.channels)
            options = encoding.options(*shape, self.bitrate) if encoding.options else {}
            if self.titles:
                options["titles"] = self.titles
            codec = encoding.codec or self.subtype
            with self._written():
                sound = self._temporary, *shape, self._container, codec, options, self.dither
                self._encoder = ENCODERS[encoding.encoder](Sound(*sound))
            stack.push(self._finish)
            self._stack = stack.pop_all()
        return self

    def write(self, wave: "Tensor | np.ndarray") -> None:
        """Append samples.

        Args:
            wave: (c t) at `rate`.

        Raises:
            AudioError: samples that are not finite, or the system does not write them.
            ValueError: another number of channels.
        """
        if wave.ndim != 2 or wave.shape[0] != self.channels:
            raise ValueError(f"{self.path}: expected ({self.channels}, t), got {tuple(wave.shape)}")
        with reporting(self.path):
            self._put(self._resampler.push(as_array(wave)))

    def _put(self, wave: np.ndarray) -> None:
        if self.subtype != "FLOAT" and not np.isfinite(wave).all():
            raise AudioError(f"{self.path}: the sound to write has NaN or Inf; nothing is written")
        if self.subtype.startswith("PCM"):
            self.clipped += int((np.abs(wave) > 1).sum())
        self.samples += wave.shape[1]
        if self._container_of(self.samples) not in (self._encoding.container, self._container):
            raise AudioError(
                f"{self.path}: {self.format} cannot hold 4 GiB; give `samples`, or write flac"
            )
        if wave.shape[1]:
            with self._written():
                self._encoder.write(wave)

    @contextlib.contextmanager
    def _written(self) -> Iterator[None]:
        """Find out the system's reason where a codec only says that it could not write."""
        try:
            yield
        except (soundfile.LibsndfileError, AssertionError, av.FFmpegError) as error:
            # soundfile asserts that libsndfile took every sample
            self._try_disk()
            raise AudioError(f"{self.path}: could not be written whole ({error})") from error

    def _try_disk(self) -> None:
        """Write some bytes more, so that the system gives its reason, as an OSError."""
        with open(self._temporary, "ab", buffering=0) as file:
            file.write(bytes(1 << 16))
            os.fsync(file.fileno())

    def _finish(self, kind: type[BaseException] | None, *_: object) -> None:
        """Write what is pending, close, and make sure that all of it is there."""
        try:
            if kind is None:
                self._put(self._resampler.flush())
        finally:
            with self._written() if kind is None else contextlib.suppress(Exception):
                self._encoder.close()
        if kind is not None:
            return
        if not self.samples:
            raise AudioError(f"{self.path}: nothing to write, 0 samples; nothing is written")
        if self.subtype and soundfile.info(os.fsencode(self._temporary)).frames != self.samples:
            self._try_disk()
            raise AudioError(f"{self.path}: could not be written whole")

    def __exit__(self, *exception: Any) -> bool | None:
        """Complete the file and give it its name; on an exception leave nothing."""
        with reporting(self.path):
            return self._stack.__exit__(*exception)

"""Slices of stems at one rate and in stereo, from any file, with short songs kept in memory."""

import math
import shutil
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from separator import audio
from separator.data.cache import StemCache, is_compressed
from separator.errors import SeparatorError, printable

_SHORT_SECONDS = 30.0
_MARGIN = 4096  # samples around a slice that let the resampling filter settle
_SLACK = 4608  # samples by which a coded file may fall short of its header: four mp3 frames


@dataclass(frozen=True)
class Source:
    """One audio stream of one file.

    Attributes:
        path: The file.
        samples: Its length, at its own rate.
        rate: Its sampling rate in Hz.
        stream: Number of the audio stream, for files with several.
        gain: Factor; -1 subtracts.
    """

    path: Path
    samples: int
    rate: int
    stream: int = 0
    gain: float = 1.0


class Reader:
    """Reads slices of sources at one rate, in stereo.

    Songs up to 30 s are always read whole and kept in memory up to a limit; others are sliced on
    disk. Which of the two is done depends on the source alone, never on what happens to be in
    memory, so that the samples returned never do either.
    """

    def __init__(self, rate: int, cache: StemCache | None = None, memory_mb: float = 0) -> None:
        self.rate = rate
        self.cache = cache or StemCache()
        self.limit = int(memory_mb * 1e6)
        self._songs: OrderedDict[tuple[Path, int], Tensor] = OrderedDict()
        self._used = 0

    def read(self, source: Source, start: int, samples: int) -> Tensor:
        """Read a slice; start and length are counted at the reader's rate.

        Returns:
            (c t) with c = 2 and t = `samples`, without the source's gain.

        Raises:
            SeparatorError: when the file cannot be read, has NaN or infinite samples, or ends
                before the slice does by more than the slack of a lossy codec.
        """
        if source.samples <= _SHORT_SECONDS * source.rate:
            wave = self._whole(source)[:, start : start + samples]
        else:
            wave = self._slice(source, start, samples)
        name = printable(str(source.path))
        if not math.isfinite(float(wave.sum())):
            raise SeparatorError(f"{name}: has NaN or infinite samples; repair it")
        lack = samples - wave.shape[1]
        if lack > _SLACK:
            raise SeparatorError(
                f"{name}: ends {lack / self.rate:.1f} s early; the file is cut off: copy it again"
            )
        return torch.nn.functional.pad(wave, (0, lack)) if lack else wave

    def _whole(self, source: Source) -> Tensor:
        """All of a short source, from memory when it is there."""
        key = (source.path, source.stream)
        if key in self._songs:
            self._songs.move_to_end(key)
            return self._songs[key]
        wave = audio.resample(self._decode(source, 0, None), source.rate, self.rate)
        wave = audio.to_channels(wave, 2)
        if wave.nbytes <= self.limit:
            self._songs[key] = wave
            self._used += wave.nbytes
        while self._used > self.limit:
            self._used -= self._songs.popitem(last=False)[1].nbytes
        return wave

    def _slice(self, source: Source, start: int, samples: int) -> Tensor:
        """A slice of a long source: with a change of rate, equal to that slice of the whole.

        Resampling starts at an input sample that falls exactly on an output sample (a multiple of
        the two rates' reduced ratio), `_MARGIN` samples early, so the phase is the whole song's.
        """
        shared = math.gcd(source.rate, self.rate)
        up, down = self.rate // shared, source.rate // shared
        if up == down:
            return audio.to_channels(self._decode(source, start, samples), 2)
        margin = math.ceil(_MARGIN / down)
        first = max(0, start // up - margin)
        last = -(-(start + samples) // up) + margin
        wave = self._decode(source, first * down, (last - first) * down)
        skip = start - first * up
        wave = audio.resample(wave, source.rate, self.rate)[:, skip : skip + samples]
        return audio.to_channels(wave, 2)

    def _decode(self, source: Source, start: int, samples: int | None) -> Tensor:
        """(c t) at the file's own rate, through the cache for a `.stem.mp4`; at most stereo."""
        if not is_compressed(source.path):
            wave = audio.read(source.path, start, samples, stream=source.stream)
        else:
            try:
                wave = audio.read(self.cache.path(source.path, source.stream), start, samples)
            except (FileNotFoundError, audio.AudioError):  # evicted since, or damaged
                shutil.rmtree(self.cache.entry(source.path), ignore_errors=True)
                wave = audio.read(self.cache.path(source.path, source.stream), start, samples)
        return audio.to_channels(wave, 2) if wave.shape[0] > 2 else wave

"""Slices of stems at one rate and in stereo, from any file, with short songs kept in memory."""

import functools
import math
import shutil
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from separator import audio
from separator.data.stem_cache import StemCache, is_compressed
from separator.data.stem_files import MIXTURE_ONLY
from separator.data.tracks import Source, Track
from separator.errors import SeparatorError
from separator.stems import TWO_STEMS, StemSet

_SHORT_SECONDS = 30.0
_MARGIN = 4096  # samples around a slice that let the resampling filter settle
_SLACK = 4608  # samples by which a coded file may fall short of its header: four mp3 frames


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
        if not math.isfinite(float(wave.sum())):
            raise SeparatorError(f"{source.path}: has NaN or infinite samples; repair it")
        lack = samples - wave.shape[1]
        if lack > _SLACK:
            raise SeparatorError(
                f"{source.path}: ends {lack / self.rate:.1f} s early; the file is cut off: copy it "
                "again"
            )
        return torch.nn.functional.pad(wave, (0, lack)) if lack else wave

    def _whole(self, source: Source) -> Tensor:
        """Return the whole of a short source, from memory when it is there."""
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


def load_stems(
    track: Track,
    rate: int,
    start: int = 0,
    samples: int | None = None,
    reader: Reader | None = None,
    names: tuple[str, ...] | None = None,
) -> dict[str, Tensor]:
    """Read a song, or a part of it, as stereo stems at `rate`.

    Args:
        track: The song.
        rate: Sampling rate of the result; `start` and `samples` are counted at it.
        start: First sample.
        samples: How many; fewer come back at the song's end. None: to the end.
        reader: Keeps caches between calls; its rate must be `rate`.
        names: Stems of a `StemSet`; by default vocals and accompaniment, or the mixture where
            nothing else is known. ("mixture",) is the sum of all stems.

    Returns:
        For each name (c t) with c = 2. Half of a pool has only its own stem.

    Raises:
        SeparatorError: when a file cannot be read; nothing is ever replaced by zeros.
    """
    reader = reader or Reader(rate)
    remaining = max(0, track.length(rate) - start)
    samples = remaining if samples is None else min(samples, remaining)

    @functools.cache  # pairs use one file twice
    def wave(source: Source) -> Tensor:
        return reader.read(source, start, samples)

    def stem(sources: tuple[Source, ...]) -> Tensor:
        first, *more = (wave(replace(source, gain=1.0)) for source in sources)
        total = first if sources[0].gain == 1 else first * sources[0].gain
        for source, part in zip(sources[1:], more, strict=True):
            total = total.add(part, alpha=source.gain)
        return total

    stems = {name: stem(sources) for name, sources in track.stems}
    return fold(stems, names or (MIXTURE_ONLY if "mixture" in stems else TWO_STEMS.names))


def fold(stems: dict[str, Tensor], names: tuple[str, ...]) -> dict[str, Tensor]:
    """Select or sum stems so that they are those of a set.

    Args:
        stems: by name, of one shape.
        names: of the set; ("mixture",) sums them all.

    Returns:
        The set's stems in its order, without those that `stems` cannot make up.
    """
    if names == MIXTURE_ONLY:
        return {"mixture": torch.stack(list(stems.values())).sum(0)}
    target = StemSet(names)
    folded = {}
    for name, parts in target.parts(stems).items():
        waves = [stems[part] for part in parts]
        if waves:
            folded[name] = torch.stack(waves).sum(0) if name == target.rest else waves[0]
    return folded

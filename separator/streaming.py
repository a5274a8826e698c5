"""Songs of any rate, layout and length in chunks, whatever computes a chunk: arrays alone."""

import copy
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypedDict, TypeVar, overload

import numpy as np

from separator import audio
from separator.arguments import (
    Device,
    Samples,
    Source,
    check_kind,
    file_of,
    is_samples,
    number_of,
    rate_of,
    results_of,
    samples_of,
)
from separator.dsp.config import STFTConfig
from separator.dsp.overlap_add import overlap_add
from separator.errors import SeparatorError
from separator.stems import StemSet, public_name

if TYPE_CHECKING:
    from torch import Tensor

CHUNK_SECONDS = 12.0
OVERLAP_SECONDS = 1.0
MAX_SHIFTS = 16
MAX_CHUNK = 120  # seconds
Wave = TypeVar("Wave", "Tensor", np.ndarray)
Progress: TypeAlias = Callable[[float, float], None]


class Quality(TypedDict, total=False):
    """Settings that trade time for quality, see `StreamingSeparator`."""

    shifts: int
    chunk: float | None
    overlap: float | None


Model: TypeAlias = Callable[[np.ndarray], np.ndarray]  # chunks (b 2 t) to their stems (b s 2 t)


class StreamingSeparator(ABC, Generic[Wave]):
    """Applies to songs what estimates the stems of a chunk at the model's rate.

    Attributes:
        stft: the transform of the model.
        rate: the model's sample rate in hertz.
        description: what the model's file says of itself.
        stems: what the model separates songs into.
        shifts: the estimate is the mean of so many, between which the song is shifted by parts of
            a hop: a higher SDR, in so many times the time.
        chunk: seconds that the model sees at once, 1 to 120; by default 12.
        overlap: seconds that a chunk shares with the next, at most half a chunk; by default 1.
    """

    def __init__(
        self,
        stft: STFTConfig,
        rate: int,
        description: dict[str, Any] | None,
        stems: StemSet,
        shifts: int = 1,
        chunk: float | None = None,
        overlap: float | None = None,
    ) -> None:
        check_kind(stft, "stft", STFTConfig, "STFTConfig")
        check_kind(stems, "stems", StemSet, "StemSet")
        chunk = CHUNK_SECONDS if chunk is None else chunk
        overlap = OVERLAP_SECONDS if overlap is None else overlap
        self.shifts: int = number_of(shifts, "shifts", f"[1, {MAX_SHIFTS}]", whole=True)
        self.chunk: float = number_of(chunk, "chunk", f"[1, {MAX_CHUNK}]")
        self.overlap: float = number_of(overlap, "overlap", f"[0, {self.chunk / 2}]")
        self.stft, self.rate, self.stems = stft, rate_of(rate), stems
        self._given: Callable[[np.ndarray], Wave]  # makes of an array what callers get
        self.description = description or {}

    @abstractmethod
    def _masked(self, mixtures: np.ndarray) -> np.ndarray:
        """Estimate the stems that masks are of: (b 2 t) to (b s 2 t)."""

    @overload
    def with_results(self, results: Literal["numpy"]) -> "StreamingSeparator[np.ndarray]": ...
    @overload
    def with_results(self, results: Device) -> "StreamingSeparator[Tensor]": ...
    def with_results(self, results: "Literal['numpy'] | Device") -> "StreamingSeparator[Any]":
        """Return this separator with results of another kind, or on another device.

        Chunks are joined and brought to the song's rate by the CPU, with memory that does not grow.
        What is finished is then copied to the device: all of a song at once by `separate`, piece by
        piece by `stream`. On the CPU nothing is copied. A call of a `Separator` itself still
        returns a tensor on the CPU.

        Args:
            results: "numpy" for arrays; "cpu", "cuda", "mps", "auto" or a `torch.device` for
                tensors there, wherever the model runs.

        Returns:
            A separator of the same model.

        Raises:
            SeparatorError: there is no such device, or torch is not installed.
        """
        other: StreamingSeparator[Any] = copy.copy(self)
        other._given = results_of(results)
        return other

    def estimate(self, mixtures: np.ndarray) -> np.ndarray:
        """Separate chunks, whose stems add up to them.

        Args:
            mixtures: (b 2 t) at the model's rate.

        Returns:
            (b s 2 t), in the order of `stems`.
        """
        stems = self._shifted(mixtures).swapaxes(0, 1)
        names = self.stems.names
        waves = dict(zip(self.stems.estimated, stems, strict=True))
        # what is not estimated, or else the rest, is what the others leave: the sum is exact
        missing = next((name for name in names if name not in waves), self.stems.rest)
        waves[missing] = mixtures - np.sum([waves[n] for n in names if n != missing], axis=0)
        return np.stack([waves[name] for name in names], axis=1)

    def _shifted(self, mixtures: np.ndarray) -> np.ndarray:
        """Average the estimates of the mixtures, each delayed by another part of a hop."""
        if self.shifts == 1:
            return self._masked(mixtures)
        delays = [round(number * self.stft.hop / self.shifts) for number in range(self.shifts)]
        late = (np.pad(mixtures, ((0, 0), (0, 0), (delay, 0))) for delay in delays)
        estimates = [self._masked(m)[..., d:] for m, d in zip(late, delays, strict=True)]
        return np.mean(estimates, axis=0)

    def stream(
        self, blocks: Iterable[Samples], rate: int, batch: int = 1, model: Model | None = None
    ) -> Iterator[tuple[Wave, Wave]]:
        """Separate audio that never is in memory as a whole, or that is still going on.

        All stems but `stems.rest` are estimated at the model's rate and brought back to `rate`; the
        rest is the mixture without them, so it holds what the model's rate cannot.

        Args:
            blocks: (c t) pieces of one recording, not to be written to afterwards; more than two
                channels are folded to stereo.
            rate: its sample rate in hertz.
            batch: chunks processed at once.
            model: separates chunks instead of `estimate`, such as in another thread.

        Yields:
            The mixture (c t) with c at most 2, and its stems (s c t) in the order of `stems`; as
            many samples in all as came in.

        Raises:
            SeparatorError: samples that are not finite, more than 8 channels, or no rate of sound.
        """
        for mixture, stems in self._pieces(blocks, rate, batch, model):
            yield self._given(mixture), self._given(stems)

    def _pieces(
        self, blocks: Iterable[Samples], rate: int, batch: int = 1, model: Model | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Separate as `stream` does, to arrays."""
        rate, batch = rate_of(rate), number_of(batch, "batch", "[1, 4096]", whole=True)
        check_kind(blocks, "blocks", Iterable, "series of blocks (c t)")
        mixtures: deque[np.ndarray] = deque()
        names, rest = self.stems.names, self.stems.rest
        others = [place for place, name in enumerate(names) if name != rest]
        ways: list[audio.Resampler] = []  # down to the model's rate, and up again
        channels = 2

        def stereo() -> Iterator[np.ndarray]:
            nonlocal channels
            for block in blocks:
                wave = samples_of(block)
                if not np.isfinite(wave).all():
                    raise SeparatorError("the audio holds NaN or infinite samples; repair it first")
                mixture = audio.to_channels(wave, min(wave.shape[0], 2))
                if not ways:
                    channels = mixture.shape[0]
                    ways.append(audio.Resampler(rate, self.rate, channels))
                    ways.append(audio.Resampler(self.rate, rate, len(others) * channels))
                if mixture.shape[0] != channels:
                    raise SeparatorError(f"blocks: {mixture.shape[0]} channels after {channels}")
                mixtures.append(mixture)
                yield audio.to_channels(ways[0].push(mixture), 2)
            if ways:
                yield audio.to_channels(ways[0].flush(), 2)

        def estimate(chunks: np.ndarray) -> np.ndarray:
            stems = (model or self.estimate)(chunks)[:, others]
            return stems.reshape(len(chunks), -1, chunks.shape[-1])

        chunk = int(self.chunk * self.rate) // self.stft.hop * self.stft.hop
        overlap = min(int(self.overlap * self.rate), chunk // 2)
        for waves in overlap_add(stereo(), estimate, chunk, overlap, batch):
            stems = [audio.to_channels(waves[i : i + 2], channels) for i in range(0, len(waves), 2)]
            for mixture, part in _paired(mixtures, ways[1].push(np.concatenate(stems))):
                yield mixture, self._complete(mixture, part)
        if ways:
            for mixture, part in _paired(mixtures, ways[1].flush()):
                yield mixture, self._complete(mixture, part)

    def _complete(self, mixture: np.ndarray, waves: np.ndarray) -> np.ndarray:
        """Return the stems (s c t) of a mixture (c t), of which `waves` lacks the rest."""
        stems = [*waves.reshape(-1, *mixture.shape)]
        stems.insert(self.stems.names.index(self.stems.rest), mixture - np.sum(stems, axis=0))
        return np.stack(stems)

    def separate_wave(
        self, mixture: Samples, rate: int, progress: Progress | None = None
    ) -> dict[str, Wave]:
        """Separate a recording held in memory.

        Args:
            mixture: (c t) samples, floats of which ±1 is full scale.
            rate: their sample rate in hertz.
            progress: called with the seconds that are done and those there are; an exception that
                it raises ends the work, and is what the caller gets.

        Returns:
            The stems of the model by name, such as "instrumental" and "vocals": (c t) with c at
            most 2 (more are folded to stereo). One is the mixture minus the others, so they add up
            to the mixture, to the rounding of float32 additions.

        Raises:
            SeparatorError: the samples are not finite, not floats or not (c t), or the rate is not
                one of sound.
        """
        wave, rate = samples_of(mixture), rate_of(rate)
        if progress is not None:
            check_kind(progress, "progress", Callable, "function of two numbers")
        whole: np.ndarray = audio.to_channels(wave, min(wave.shape[0], 2))
        waves = np.empty((len(self.stems.names), *whole.shape), np.float32)
        at, total = 0, whole.shape[-1]
        for _, piece in self._pieces([whole], rate):
            waves[..., at : at + piece.shape[-1]] = piece
            at += piece.shape[-1]
            if progress:
                progress(at / rate, total / rate)
        names, stems = map(public_name, self.stems.names), self._given(waves)
        return dict(zip(names, stems, strict=True))

    def separate(
        self, source: Source, rate: int | None = None, progress: Progress | None = None
    ) -> dict[str, Wave]:
        """Separate a file, or samples as `separate_wave` does.

        Args:
            source: a path, the bytes of a file, a file object, or samples (c t).
            rate: the sample rate of samples; a file has its own.
            progress: as of `separate_wave`.

        Returns:
            The stems by name, as of `separate_wave`.

        Raises:
            SeparatorError: as of `separate_wave`, or the file cannot be read.
        """
        if is_samples(source):
            if rate is None:
                raise SeparatorError("separate: give rate= (hertz) with samples")
            return self.separate_wave(source, rate, progress)
        if rate is not None:
            raise SeparatorError("separate: rate= is for samples; a file has its own, leave it out")
        with file_of(source) as path:
            info = audio.probe(path)  # refuses what cannot be read before all of it is
            wave = audio.read_array(path)
        return self.separate_wave(wave, info.rate, progress)


def _paired(
    mixtures: deque[np.ndarray], waves: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pair new estimates with as many samples from the front of the waiting mixture.

    Two resamplings, each of which rounds its length up, may give a sample too many at the end.
    """
    while mixtures and waves.shape[-1]:
        mixture = mixtures.popleft()
        count = min(mixture.shape[-1], waves.shape[-1])
        if count < mixture.shape[-1]:
            mixtures.appendleft(mixture[:, count:])
        if count:
            yield mixture[:, :count], waves[:, :count]
        waves = waves[:, count:]

"""Endless training batches, in which item i depends on (seed, i) and nothing else.

So a run resumed at batch k sees what the uninterrupted run saw, and the number of worker processes,
and of ranks that share the batches out, changes the speed only.
"""

import itertools
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from separator.data import augment, workers
from separator.data.config import NORMAL, DataConfig
from separator.data.reader import Reader, load_stems
from separator.data.sampling import Segment, draw_segment, segment_table, uniforms
from separator.data.stem_cache import StemCache
from separator.data.stem_files import MIXTURE_ONLY
from separator.data.tracks import Track, stem_names
from separator.errors import SeparatorError
from separator.stems import FOUR_STEMS, TWO_STEMS

_SILENT_ATTEMPTS = 4
_ATTEMPTS = 16
_AUGMENT = 0x617567  # keeps the augmentation's draws apart from the segments'

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batch:
    """One training batch.

    Attributes:
        stems: (b s c t) waves at the model's rate, augmented; c = 2, full scale is 1.
        names: The s stems' names, vocals last; ("mixture",) where only mixtures were asked for.
        valid: (b) samples that are music; the rest, of songs shorter than the segment, is zero.
        songs: (b) place of each segment's song in the list of tracks (before any remixing).
    """

    stems: Tensor
    names: tuple[str, ...]
    valid: Tensor
    songs: Tensor

    @property
    def mixture(self) -> Tensor:
        """(b c t) sum of the stems."""
        return self.stems.sum(1)

    def seconds(self, rate: int) -> float:
        """Return the duration of all segments together in seconds.

        Args:
            rate: sampling rate in Hz.

        Returns:
            Batch size × samples / rate.
        """
        return self.stems.shape[0] * self.stems.shape[-1] / rate


# One segment: (s c t) stems or None, (s) valid samples, the song, the messages of what was skipped.
_Item = tuple[Tensor | None, list[int], int, list[str]]


class _Segments(Dataset):
    """Segments by number; the number is all that a segment depends on."""

    def __init__(
        self,
        tracks: Sequence[Track],
        config: DataConfig,
        rate: int,
        seed: int,
        names: tuple[str, ...],
    ) -> None:
        self.tracks, self.config, self.names = tracks, config, names
        self.seed = seed
        samples = config.augment.source_samples(round(config.segment_seconds * rate))
        self.table = segment_table(tracks, samples, rate)
        memory = config.memory_mb / max(1, config.workers)
        self.reader = Reader(rate, StemCache(config.cache_gb), memory)

    def __getitem__(self, number: int) -> _Item:
        """Draw, read, and draw again what is unreadable or silent."""
        batch, index = divmod(number, self.config.batch)
        skipped: list[str] = []
        silent = 0
        for attempt in range(_ATTEMPTS):
            segments = draw_segment(self.table, self.seed, batch, index, attempt)
            try:
                stems, valid = self._read(segments)
            except (SeparatorError, OSError) as error:
                skipped.append(str(error))
                continue
            if silent < _SILENT_ATTEMPTS and _decibels(stems.sum(0)) < self.config.silence_db:
                silent += 1
                continue
            return stems, valid, segments[0].track, skipped
        return None, [], 0, skipped  # raised by the training process: its errors stay one line

    def _read(self, segments: tuple[Segment, ...]) -> tuple[Tensor, list[int]]:
        """(s c t) stems and (s) valid samples of one segment, or of a pool's two."""
        names = self.names
        if len(segments) == 2 and names == MIXTURE_ONLY:
            names = TWO_STEMS.names  # of a pool, summed below
        valid = [0] * len(names)
        out = torch.zeros(len(names), 2, self.table.samples)
        for segment in segments:
            track, rate = self.tracks[segment.track], self.reader.rate
            stems = load_stems(track, rate, segment.start, segment.valid, self.reader, names)
            for name, wave in stems.items():
                place = names.index(name)
                out[place, :, : wave.shape[-1]] = wave
                valid[place] = wave.shape[-1]
        if names != self.names:
            return out.sum(0, keepdim=True), [max(valid)]
        return out, valid


def _decibels(mixture: Tensor) -> float:
    """RMS level of a (c t) wave in dB of full scale."""
    return 10 * float(mixture.square().mean().clamp_min(1e-20).log10())


@dataclass(frozen=True)
class _Collate:
    """Makes a batch of segments; small things are plain numbers, which need no shared memory."""

    stack: workers.Stack

    def __call__(
        self, items: list[_Item]
    ) -> tuple[Tensor | np.ndarray | None, list[list[int]], list[int], list[str]]:
        """(b s c t) stems, b lists of s valid samples, b songs, messages; no stems if one lacks."""
        stems, valid, songs, messages = zip(*items, strict=True)
        skipped = [message for item in messages for message in item]
        if any(wave is None for wave in stems):
            return None, [], [], skipped
        return self.stack(stems), list(valid), list(songs), skipped


def _loader(dataset: _Segments, places: tuple[int, int], pin: bool) -> DataLoader:
    """torch's loader over the batches of numbers that start and go on as `places` says."""
    config = dataset.config
    numbers = (range(k * config.batch, (k + 1) * config.batch) for k in itertools.count(*places))
    size = 4 * math.prod((config.batch, len(dataset.names), 2, dataset.table.samples))  # bytes
    workers.check_size(size)
    context = workers.context_of(config.workers) if config.workers else None
    number = config.workers if context else 0
    return DataLoader(
        dataset,
        batch_sampler=numbers,
        num_workers=number,
        collate_fn=_Collate(workers.Stack(workers.fits_shared(size, number))),
        pin_memory=pin,
        worker_init_fn=workers.start_worker,
        multiprocessing_context=context,
        prefetch_factor=workers.AHEAD if number else None,
    )


def batches(
    tracks: Sequence[Track],
    config: DataConfig,
    rate: int,
    seed: int,
    start: int = 0,
    stride: int = 1,
    mixtures: bool = False,
    device: torch.device | str = "cpu",
) -> Iterator[Batch]:
    """Yield batches number `start`, `start + stride`, … without end.

    Args:
        tracks: The songs to draw from, normally those of the split "train".
        config: Sources, sizes, augmentation.
        rate: Sampling rate of the batches in Hz.
        seed: Number of the run.
        start: Number of the first batch.
        stride: From one batch to the next: ranks that share a run take every so many-th.
        mixtures: Give mixtures only, (b 1 c t): what songs of any kind can serve for.
        device: Where the batch is augmented and left.

    Raises:
        SeparatorError: when stems are asked of songs that have none, or files cannot be read.
    """
    names = MIXTURE_ONLY if mixtures else stem_names(tracks)
    if names == MIXTURE_ONLY and not mixtures:
        lacking = next(track for track in tracks if "mixture" in track.names)
        raise SeparatorError(
            f"{lacking.root}: has mixed songs without stems; training needs stems: remove it from "
            "data.roots, or pretrain on it"
        )
    dataset = _Segments(tracks, config, rate, seed, names)
    places = start, stride
    loader = _loader(dataset, places, torch.device(device).type == "cuda")
    return _finish(loader, places, device)


def _finish(
    loader: DataLoader, places: tuple[int, int], device: torch.device | str
) -> Iterator[Batch]:
    """Move, augment and label batches; log each unreadable file once."""
    dataset, config, logged = loader.dataset, loader.dataset.config, set()
    samples = round(config.segment_seconds * dataset.reader.rate)
    incoming = workers.received(loader, loader.collate_fn.stack.shared)
    for number, (waves, counts, numbers, skipped) in zip(
        itertools.count(*places), incoming, strict=False
    ):
        for message in skipped:
            if message not in logged:
                log.warning("%s; another segment is used instead", message)
                logged.add(message)
        if waves is None:
            raise SeparatorError(f"too many unreadable files in a row; the last: {skipped[-1]}")
        stems, valid, songs = torch.as_tensor(waves), torch.tensor(counts), torch.tensor(numbers)
        drawn = int(uniforms(_AUGMENT, dataset.seed, 0, number)[0] * 2**53)
        generator = torch.Generator().manual_seed(drawn)
        whole = [dataset.tracks[song].names != FOUR_STEMS.names for song in numbers]
        changes = augment.draw(generator, *stems.shape[:2], config.augment, whole)
        stems = augment.apply(stems.to(device, non_blocking=True), changes, samples)
        valid = valid.gather(0, changes.song) * NORMAL // changes.speed
        valid = valid.amax(1).clamp(max=samples)
        yield Batch(stems, dataset.names, valid, songs)

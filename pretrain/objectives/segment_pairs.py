"""Segment pairs for next-spectrogram prediction, with [SEP] frames over the boundary.

Level, spectral balance, stereo width and bandwidth are drawn for every half or crop in both
classes, so that they do not tell positive pairs from negative ones.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor

from separator.data.config import DataConfig
from separator.dsp.config import STFTConfig
from separator.errors import SeparatorError
from separator.pretrain.crops import CropBatch, Crops
from separator.pretrain.masking.corruption import Corrupted, restore_patches
from separator.pretrain.masking.grid import PatchGrid

if TYPE_CHECKING:
    from separator.data.dataset import Batch
    from separator.pretrain.config import PretrainConfig
    from separator.pretrain.objectives.auxiliary.next_spectrogram import NextConfig

LOWPASS = (0.15, 0.6)  # of the highest frequency: 3 to 13 kHz, below the 16 kHz of many MP3s
STEEP = 64  # poles of the low-pass: 80 dB down within a fifth of an octave above the cut-off


class SegmentPairs(Crops):
    """Crops of two halves, of which the second continues the first or does not.

    Items of twice the crops' length are read, and two where one crop is asked for, so that there is
    another song to go on with. They keep their order: a remix of mixtures would change it, and the
    song of each item would not be known.

    Args:
        run: settings of the run.
        config: settings of the pairs.
    """

    def __init__(self, run: "PretrainConfig", config: "NextConfig") -> None:
        super().__init__(run)
        self.config = config

    def data(self) -> DataConfig:
        """Return the settings by which the items of a batch are read."""
        run, data = self.run, self.run.data
        frames = 2 * run.segment_frames + sum(edge_frames(run.stft)) - 1
        batch = max(2, data.batch) if self.config.same < 1 else data.batch
        seconds = frames * run.stft.hop / run.rate
        augment = replace(data.augment, remix=0.0)
        return replace(data, segment_seconds=seconds, batch=batch, augment=augment)

    def samples(self, frames: int) -> int:
        """Return how many samples are read for a crop of so many frames."""
        return (2 * frames + sum(edge_frames(self.run.stft)) - 1) * self.run.stft.hop

    def seconds(self, batch: "Batch") -> float:
        """Return the seconds of audio in the crops of a batch."""
        return self.run.data.batch * self.run.data.segment_seconds

    def make(
        self, spectrogram: Tensor, generator: Generator, songs: Tensor, cropped: Tensor
    ) -> CropBatch:
        """Make pairs of the spectrograms of items."""
        items = inside(spectrogram, self.run.stft)
        return make_pairs(items, items.shape[-1] // 2, generator, self.config, songs, cropped)

    def allowed(self, grid: PatchGrid) -> Tensor:
        """Return the frame groups of a grid that do not touch [SEP]."""
        return allowed_groups(grid, self.config)

    def finish(
        self, target: Tensor, corrupted: Corrupted, music: Tensor | None
    ) -> tuple[Tensor, Corrupted]:
        """Cover the boundary with [SEP]; songs should be longer than items."""
        return with_sep(target, corrupted, self.config)


def edge_frames(config: STFTConfig) -> tuple[int, int]:
    """Count the frames at both ends of an item whose windows reach beyond it.

    There is one more at the end, because the wave was padded up to a multiple of the hop.

    Args:
        config: window and hop.

    Returns:
        Frames at the start and frames at the end.
    """
    edge = -(-config.n_fft // (2 * config.hop))
    return edge, edge + 1


def inside(spectrogram: Tensor, config: STFTConfig) -> Tensor:
    """Leave out the frames whose windows reach beyond the ends of the item.

    These frames include padding, which tells that a half is from an end of the item; that is more
    often so in negatives.

    Args:
        spectrogram: (… f N).
        config: window and hop.

    Returns:
        (… f n).
    """
    before, after = edge_frames(config)
    return spectrogram[..., before:-after]


def make_pairs(
    spectrogram: Tensor,
    frames: int,
    generator: Generator,
    config: "NextConfig",
    songs: Tensor | None = None,
    cropped: Tensor | None = None,
) -> CropBatch:
    """Cut a pair of halves out of each item; in half of the pairs the second is from elsewhere.

    Frames are joined, not samples, so that the boundary does not click. The second half of a
    negative is from a random place in an item of another song. With the probability `config.same`,
    and where there is no other song, it is from the same item, where it overlaps neither the first
    half nor the true continuation.

    Args:
        spectrogram: (i c f N) complex, N at least 2 n; see `inside`.
        frames: n, of which the first half has n // 2.
        generator: on the CPU; all randomness comes from it.
        config: where negatives come from, and how halves are varied.
        songs: (i) the song of each item; all are of different songs without.
        cropped: (b) items that crops are made of; the others only lend second halves.

    Returns:
        Crops (b c f n), and whether the second half of each continues the first.

    Raises:
        SeparatorError: the items are too short, or the crops for [SEP].
    """
    items, _, bins, total = spectrogram.shape
    songs = torch.arange(items) if songs is None else songs.cpu()
    cropped = torch.arange(items) if cropped is None else cropped
    if total < 2 * frames or frames < config.token + 2:
        raise SeparatorError(
            f"next.token: crops of {frames} frames out of items of {total}; crops must be longer "
            f"than [SEP], {config.token}, and items twice as long as a crop: use longer segments"
        )
    partner, other_song = _partners(songs, cropped, generator)
    start, place, foreign, continues = _places(total, frames, other_song, generator, config)
    source = torch.where(foreign, partner, cropped).tolist()
    middle = frames // 2
    first = [
        spectrogram[item, ..., s : s + middle]
        for item, s in zip(cropped.tolist(), start, strict=True)
    ]
    second = [
        spectrogram[item, ..., s : s + frames - middle]
        for item, s in zip(source, place, strict=True)
    ]
    lowpass = _lowpass(len(cropped), bins, generator, config)
    halves = [_varied(torch.stack(half), lowpass, generator, config) for half in (first, second)]
    return CropBatch(torch.cat(halves, dim=-1), continues.to(spectrogram.device))


def _partners(songs: Tensor, cropped: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Draw an item of another song for each of `cropped`: (b) items, (b) whether there is one."""
    different = songs[cropped][:, None] != songs
    draw = torch.rand(different.shape, generator=generator)
    return torch.where(different, draw, -1.0).argmax(dim=1), different.any(dim=1)


def _places(
    total: int, frames: int, other_song: Tensor, generator: Generator, config: "NextConfig"
) -> tuple[list[int], list[int], Tensor, Tensor]:
    """First frames of both halves; whether the second is of another song, or continues: (b)."""
    batch, length = len(other_song), frames - frames // 2
    start = torch.randint(total - frames + 1, (batch,), generator=generator)
    anywhere = torch.randint(total - length + 1, (batch,), generator=generator)
    draws = torch.rand(3, batch, generator=generator, dtype=torch.float64)
    continues = draws[0] < 0.5
    foreign = (draws[1] >= config.same) & other_song & ~continues
    before = (start - length + 1).clamp(min=0)  # places for the whole half ahead of the crop
    after = (total - length - (start + frames) + 1).clamp(min=0)
    chosen = (draws[2] * (before + after)).long()
    elsewhere = torch.where(chosen < before, chosen, start + frames + chosen - before)
    place = torch.where(foreign, anywhere, elsewhere)
    place = torch.where(continues, start + frames // 2, place)
    return start.tolist(), place.tolist(), foreign, continues


def _lowpass(batch: int, bins: int, generator: Generator, config: "NextConfig") -> Tensor:
    """Low-passes (b 1 f 1), flat for the crops that get none; the cut-off is uniform in octaves.

    Recordings end at different frequencies, coded ones most of all. It is common to both halves:
    one for each would be a difference that the network could learn.
    """
    low, high = LOWPASS
    draw = torch.rand(2, batch, 1, 1, 1, generator=generator)
    cutoff = low * (high / low) ** draw[0]
    cutoff = torch.where(draw[1] < config.lowpass, cutoff, torch.inf)
    frequency = torch.linspace(0, 1, bins)[:, None]
    return (1 + (frequency / cutoff) ** (2 * STEEP)).rsqrt()


def _varied(half: Tensor, lowpass: Tensor, generator: Generator, config: "NextConfig") -> Tensor:
    """Filter, tilt, bend, widen and level half crops (b c f n).

    The tilt hides how a song was mastered, which only continuations and a song's own other places
    share; the bend, because centroid and roll-offs together give a mere tilt away; the gain of what
    the channels differ by, how wide it is. The level comes last: it is the gain drawn, whatever the
    filters took, so that no half brings the loudness of its item or of its place in it, and the
    step between the halves says nothing. It is the power's, as single beats make the peak.
    """
    draws = 2 * torch.rand(4, len(half), 1, 1, 1, generator=generator) - 1
    octaves = torch.arange(half.shape[2]).clamp(min=1).log2()[:, None]
    x = 2 * octaves / octaves[-1] - 1  # from -1 to 1
    curve = (draws[0] * x + draws[1] * (1.5 * x.square() - 0.5)) * octaves[-1] / 2
    side, gain = (10 ** (config.gain_db * draws[2:] / 20)).to(half.device)
    half = half * (lowpass * 10 ** (config.tilt_db * curve / 20)).to(half.device)
    middle = half.mean(dim=1, keepdim=True)
    half = middle + side * (half - middle)
    rms = half.abs().square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    return half * gain / rms.clamp(min=1e-9)


def sep_frames(frames: int, config: "NextConfig") -> tuple[int, int]:
    """Return the first and the last frame of [SEP].

    Args:
        frames: of a crop.
        config: `token`, the length of [SEP] in frames.
    """
    return frames // 2 - config.token // 2, frames // 2 + config.token // 2 - 1


def allowed_groups(grid: PatchGrid, config: "NextConfig") -> Tensor:
    """Return the groups that do not touch [SEP]: boolean (m).

    Args:
        grid: the patches.
        config: `token`, the length of [SEP] in frames.
    """
    first, last = sep_frames(grid.frames, config)
    group = torch.arange(grid.groups)
    return (group < first // grid.size) | (group > last // grid.size)


def with_sep(
    target: Tensor, corrupted: Corrupted, config: "NextConfig"
) -> tuple[Tensor, Corrupted]:
    """Cover the boundary with [SEP], frames of 1, 0, 1, 0, … over bins, in target and input.

    Chosen patches that it overlaps are restored as wholes: their rest would be easier.

    Args:
        target: (b c f n) in [0, 1], not modified.
        corrupted: of the same crops, not modified.
        config: length of [SEP].

    Returns:
        The target and the corrupted crops; the frames of [SEP] are of kind -2, the rest of the
        restored patches is as in the target and of kind -1.
    """
    bins, frames = target.shape[2:]
    first, last = sep_frames(frames, config)
    frame = torch.arange(frames, device=target.device)
    covered = (frame >= first) & (frame <= last)
    group, size = frame // corrupted.grid.size, corrupted.grid.size
    touched = (group >= first // size) & (group <= last // size)
    pattern = (1 - torch.arange(bins, device=target.device) % 2).to(target.dtype)[:, None]
    restored = restore_patches(target, corrupted, covered, touched)
    spectrogram = torch.where(covered, pattern, restored.spectrogram)
    return torch.where(covered, pattern, target), replace(restored, spectrogram=spectrogram)

"""From waves to what the model is shown and what it is to answer."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from separator.dsp.stft import compress, normalise, stft
from separator.pretrain import schedules
from separator.pretrain.config import PretrainConfig
from separator.pretrain.joint import (
    Spliced,
    ends,
    free_groups,
    inside,
    splice,
    with_separator,
)
from separator.pretrain.masking.config import MaskConfig
from separator.pretrain.masking.corruption import (
    Corrupted,
    corrupt,
    grid_of,
    ignore_padding,
    mix_with_previous,
)
from separator.pretrain.masking.grid import PatchGrid


@dataclass(frozen=True)
class Example:
    """A batch of the pretext task.

    Attributes:
        spectrogram: (b c f n) complex, of the crops as they are.
        target: (b c f n) compressed magnitudes in [0, 1], to be restored.
        corrupted: what the model is shown.
        continues: boolean (b), whether the second half of a crop is the true one; None where all
            are.
    """

    spectrogram: Tensor
    target: Tensor
    corrupted: Corrupted
    continues: Tensor | None


def make_example(
    waves: Tensor,
    config: PretrainConfig,
    mask: MaskConfig,
    step: int,
    generator: torch.Generator,
    valid: Tensor | None = None,
    predict: Callable[[Tensor, PatchGrid], Tensor] | None = None,
    songs: Tensor | None = None,
    own: int | None = None,
) -> Example:
    """Cut waves into the step's crops, splice them if that is asked, and corrupt them.

    Args:
        waves: (b c t), as read.
        config: everything but the mask.
        mask: which cells are hidden; the run's own, or that of the validation.
        step: finished steps of the run.
        generator: on the CPU; all randomness comes from it.
        valid: (b) samples of each wave that are music; what is padded behind them counts nowhere.
            All of it without.
        predict: maps the target and the grid to the predicted error of each cell (b k m), for
            `mask.strategy=hard`; without it all are alike.
        songs: (b) the song of each wave, for `next`; all are of different songs without.
        own: number of waves that crops are made of; those behind them, which only `next` reads,
            lend it second halves. All of them without.
    """
    crops = cut_crops(waves, config, step)
    spectrogram, continues, allowed = stft(crops, config.stft), None, None
    if schedules.enabled(config.next.weight):
        spliced = _spliced(spectrogram, config, len(waves), generator, songs, own)
        spectrogram, continues = spliced.spectrogram, spliced.continues
        allowed = free_groups(grid_of(spectrogram, mask, step), config.next)
    target, scale = normalise(spectrogram.abs(), config.stft)
    mixed = predicted_error = None
    if mask.mix:
        mixed = compress(mix_with_previous(spectrogram, generator).abs(), scale, config.stft)
    if mask.chosen_strategy.predicted_error and predict:
        predicted_error = predict(target, grid_of(target, mask, step))
    corrupted = corrupt(target, mask, step, generator, mixed, predicted_error, allowed)
    if continues is not None:
        target, corrupted = with_separator(target, corrupted, config.next)
    elif valid is not None:
        corrupted = ignore_padding(target, corrupted, _music(valid, crops, config))
    return Example(spectrogram, target, corrupted, continues)


def _spliced(
    items: Tensor,
    config: PretrainConfig,
    waves: int,
    generator: torch.Generator,
    songs: Tensor | None,
    own: int | None,
) -> Spliced:
    """Make crops of two halves out of items (k·b c f N), k of each of b waves."""
    items = inside(items, config.stft)
    wave = torch.arange(len(items)) % waves
    songs = wave if songs is None else songs.cpu()[wave]
    mine = (wave < (own or waves)).nonzero().flatten()
    return splice(items, items.shape[-1] // 2, generator, config.next, songs, mine)


def cut_crops(waves: Tensor, config: PretrainConfig, step: int) -> Tensor:
    """Cut segments into crops of `crop_frames` at this step: (b c t) to (k·b c t').

    Short crops are more crops, so that a step hears as much music at any length, and nothing that
    was read is thrown away but the rest of the division.
    """
    frames = int(schedules.step_value(config.crop_frames, step))
    samples = crop_samples(frames, config)
    if not frames or samples >= waves.shape[-1]:
        return waves
    pieces = waves.shape[-1] // samples
    # neighbours in the batch are of different songs: one covers the other in `corrupt.covered`
    return rearrange(waves[..., : pieces * samples], "b c (k t) -> (k b) c t", k=pieces)


def _music(valid: Tensor, crops: Tensor, config: PretrainConfig) -> Tensor:
    """Frames of each crop that begin in music, from the samples of each wave: (b) to (k·b)."""
    length = crops.shape[-1]
    pieces = torch.arange(len(crops) // len(valid))[:, None]
    samples = (valid.cpu() - pieces * length).clamp(0, length).flatten()
    return -(-samples // config.stft.hop) + (samples == length)


def crop_samples(frames: int, config: PretrainConfig) -> int:
    """Samples that must be read for a crop of so many frames."""
    if not schedules.enabled(config.next.weight):
        return (frames - 1) * config.stft.hop
    return (2 * frames + sum(ends(config.stft)) - 1) * config.stft.hop

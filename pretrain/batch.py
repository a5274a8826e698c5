"""Batches of the pretext task: crops of waves, their targets and their corruption."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from separator.dsp.stft import compress, normalise, stft
from separator.pretrain import schedules
from separator.pretrain.config import PretrainConfig
from separator.pretrain.masking.config import MaskConfig
from separator.pretrain.masking.corruption import Corrupted, corrupt, grid_of, mix_with_previous
from separator.pretrain.masking.grid import PatchGrid


@dataclass(frozen=True)
class Example:
    """A batch of the pretext task.

    Attributes:
        spectrogram: (b c f n) complex, of the crops as they are.
        target: (b c f n) compressed magnitudes in [0, 1], to be restored.
        corrupted: the input of the model.
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
    cropped: int | None = None,
) -> Example:
    """Make crops of waves, and corrupt them.

    Args:
        waves: (b c t), as read.
        config: everything but the mask.
        mask: which patches are masked; the run's own, or that of the validation.
        step: finished steps of the run.
        generator: on the CPU; all randomness comes from it.
        valid: (b) samples of each wave that are music; the padding behind them is ignored. All
            of them by default.
        predict: maps the target and the grid to the predicted error of each patch (b k m), for
            strategies that need it; the same for all patches by default.
        songs: (b) the song of each wave; all are of different songs by default.
        cropped: number of waves that crops are made of, the first ones; the others may lend parts.
            All of them by default.
    """
    media, crops = config.crops, cut_crops(waves, config, step)
    wave = torch.arange(len(crops)) % len(waves)
    crop_songs = wave if songs is None else songs.cpu()[wave]
    sources = (wave < (cropped or len(waves))).nonzero().flatten()
    made = media.make(stft(crops, config.stft), mask, step, generator, crop_songs, sources)
    spectrogram = made.spectrogram
    target, scale = normalise(spectrogram.abs(), config.stft)
    mixed = predicted_error = None
    if mask.mix:
        mixed = compress(mix_with_previous(spectrogram, generator).abs(), scale, config.stft)
    if mask.chosen_strategy.predicted_error and predict:
        predicted_error = predict(target, grid_of(target, mask, step))
    corrupted = corrupt(target, mask, step, generator, mixed, predicted_error, made.allowed)
    music = None if valid is None else _music(valid, crops, config)
    target, corrupted = media.finish(target, corrupted, music)
    return Example(spectrogram, target, corrupted, made.continues)


def cut_crops(waves: Tensor, config: PretrainConfig, step: int) -> Tensor:
    """Cut segments into crops of `crop_frames` at this step.

    Shorter crops are more crops, so that a step has the same amount of music at any length; only
    the remainder of the division is unused.

    Args:
        waves: (b c t), as read.
        config: of the run.
        step: finished steps of the run.

    Returns:
        Crops (k·b c t'), k from each wave; the crops of one wave are b places apart.
    """
    frames = int(schedules.step_value(config.crop_frames, step))
    samples = config.crops.samples(frames)
    if not frames or samples >= waves.shape[-1]:
        return waves
    number = waves.shape[-1] // samples
    # neighbours in the batch are of different songs, as `mix_with_previous` needs
    return rearrange(waves[..., : number * samples], "b c (k t) -> (k b) c t", k=number)


def _music(valid: Tensor, crops: Tensor, config: PretrainConfig) -> Tensor:
    """Frames of each crop that begin in music, from the samples of each wave: (b) to (k·b)."""
    length = crops.shape[-1]
    index = torch.arange(len(crops) // len(valid))[:, None]
    samples = (valid.cpu() - index * length).clamp(0, length).flatten()
    return -(-samples // config.stft.hop) + (samples == length)

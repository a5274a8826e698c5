"""Batches of the pretext task: crops of waves, their targets and their corruption."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from separator.dsp.stft import compress, normalise, stft
from separator.pretrain import schedules
from separator.pretrain.config import PretrainConfig
from separator.pretrain.masking.config import MaskConfig
from separator.pretrain.masking.corruption import KINDS, Corrupted, corrupt, grid_of
from separator.pretrain.masking.grid import PatchGrid

MIX_DB = (-10.0, 5.0)  # level of the other crop relative to the crop it is mixed with


@dataclass(frozen=True)
class Example:
    """A batch of the pretext task.

    Attributes:
        spectrogram: (b c f n) complex, of the crops as they are.
        target: (b c f n) compressed magnitudes in [0, 1], to be restored.
        scale: (b 1 1 1) the largest magnitudes, which are 1 in the target.
        corrupted: the input of the model.
        mixed: for the kinds "mix" and "voice", if they occur, the crops mixed with another one or
            with a voice: (b c f n) complex.
        continues: boolean (b), whether the second half of a crop is the true one; None where all
            are.
    """

    spectrogram: Tensor
    target: Tensor
    scale: Tensor
    corrupted: Corrupted
    mixed: Mapping[str, Tensor]
    continues: Tensor | None

    @property
    def mixture(self) -> Tensor:
        """(b c f n) complex: the crops, and in mixed patches what they were mixed into."""
        mixture = self.spectrogram
        for kind, crops in self.mixed.items():
            mixture = torch.where(self.corrupted.kinds == KINDS.index(kind), crops, mixture)
        return mixture


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
    voices: Tensor | None = None,
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
        voices: (b c t) the voice that is mixed with patches of each wave, at its level; needed
            where `mask.voices` are given.
    """
    media, crops = config.crops, cut_crops(waves, config, step)
    wave = torch.arange(len(crops)) % len(waves)
    crop_songs = wave if songs is None else songs.cpu()[wave]
    sources = (wave < (cropped or len(waves))).nonzero().flatten()
    whole = stft(crops, config.stft)
    made = media.make(whole, generator, crop_songs, sources)
    spectrogram = made.spectrogram
    target, scale = normalise(spectrogram.abs(), config.stft)
    grid = grid_of(target, mask, step)
    mixed, predicted_error = {}, None
    if "mix" in mask.kinds:
        mixed["mix"] = mix_with_previous(spectrogram, generator)
    if voices is not None:
        voice = stft(cut_crops(voices, config, step), config.stft)[sources]
        # `next` makes crops of another length and level
        gain = rms(spectrogram) / rms(whole[sources]).clamp(min=1e-9)
        mixed["voice"] = spectrogram + gain * voice[..., : spectrogram.shape[-1]]
    raised = {kind: compress(x.abs(), scale, config.stft) for kind, x in mixed.items()}
    if mask.chosen_strategy.predicted_error and predict:
        predicted_error = predict(target, grid)
    allowed = media.allowed(grid)
    corrupted = corrupt(target, mask, step, generator, raised, predicted_error, allowed)
    music = None if valid is None else _music(valid, crops, config)
    target, corrupted = media.finish(target, corrupted, music)
    return Example(spectrogram, target, scale, corrupted, mixed, made.continues)


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


def mix_with_previous(spectrogram: Tensor, generator: torch.Generator) -> Tensor:
    """Add to each crop of a batch the one before it, at a random level relative to its own.

    Crops are drawn at random, so it is most often of another song.

    Args:
        spectrogram: (b c f n) complex; with b = 1 a crop is added to itself.
        generator: on the CPU.

    Returns:
        (b c f n) complex.
    """
    low, high = MIX_DB
    decibels = low + (high - low) * torch.rand(len(spectrogram), 1, 1, 1, generator=generator)
    gain = (10 ** (decibels / 20)).to(spectrogram.device)
    loudness = rms(spectrogram)
    gain = gain * loudness / loudness.roll(1, 0).clamp(min=1e-9)
    return spectrogram + gain * spectrogram.roll(1, 0)


def rms(spectrogram: Tensor) -> Tensor:
    """Compute the root mean square of each crop's magnitudes.

    Args:
        spectrogram: (b c f n) complex.

    Returns:
        (b 1 1 1).
    """
    return spectrogram.abs().square().mean(dim=(1, 2, 3), keepdim=True).sqrt()


def _music(valid: Tensor, crops: Tensor, config: PretrainConfig) -> Tensor:
    """Frames of each crop that begin in music, from the samples of each wave: (b) to (k·b)."""
    length = crops.shape[-1]
    index = torch.arange(len(crops) // len(valid))[:, None]
    samples = (valid.cpu() - index * length).clamp(0, length).flatten()
    return -(-samples // config.stft.hop) + (samples == length)

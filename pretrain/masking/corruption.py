"""Corruption of chosen patches: filled with 1.0, raised to noise, mixed with a song, or kept."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from separator.pretrain.masking.config import MaskConfig
from separator.pretrain.masking.grid import PatchGrid, first_of_run

KINDS = ("mask", "noise", "mix", "voice", "keep", "clean")  # "clean" is the kind of whole crops
UNTOUCHED, IGNORED = -1, -2  # kinds of patches not chosen, and of frames that no loss counts


@dataclass(frozen=True)
class Corrupted:
    """A corrupted batch and where it was corrupted.

    Attributes:
        spectrogram: (b c f n) the model's input.
        kinds: (b 1 f n), or (b 1 1 n) of whole frames: index into KINDS, -1 where nothing was
            chosen, -2 where no loss counts.
        grid: the patches.
    """

    spectrogram: Tensor
    kinds: Tensor
    grid: PatchGrid

    @property
    def chosen(self) -> Tensor:
        """Boolean, of the shape of `kinds`: patches to be restored; all of a clean crop's."""
        return self.kinds >= 0

    @property
    def masked(self) -> Tensor:
        """Boolean, of the shape of `kinds`: patches filled with ones."""
        return self.kinds == KINDS.index("mask")

    @property
    def masked_patches(self) -> Tensor:
        """Boolean (b k m): patches filled with ones."""
        rows = self.masked[:, 0, :: (self.grid.bins - 1) // self.grid.bands]
        return rows[:, : self.grid.bands, :: self.grid.size]

    def draw_masked(self, most: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw some masked patches of each crop.

        Args:
            most: largest number of patches of a crop.
            generator: on the CPU.

        Returns:
            (b l) places among the k·m patches, and boolean (b l), false where there were too few.
        """
        masked = self.masked_patches.flatten(1)
        draw = torch.rand(masked.shape, generator=generator).to(masked.device)
        number = min(most, masked.shape[1])
        order, place = torch.where(masked, draw, 2.0).topk(number, dim=1, largest=False)
        return place, order < 2

    @property
    def untouched(self) -> Tensor:
        """Boolean, of the shape of `kinds`: patches that were not chosen and count."""
        return self.kinds == UNTOUCHED


def patch_frames(step: int, config: MaskConfig) -> int:
    """Compute the frames in a patch, from 1 linearly to `group` over the first `warmup_steps`.

    Args:
        step: finished steps of the run.
        config: `group` and `warmup_steps`.

    Returns:
        A number of frames, at least 1.
    """
    if config.warmup_steps <= 0:
        return config.group
    grown = math.ceil(step * config.group / config.warmup_steps)
    return max(1, min(config.group, grown))


def grid_of(spectrogram: Tensor, config: MaskConfig, step: int) -> PatchGrid:
    """Return the patches into which a spectrogram is cut at a step.

    Args:
        spectrogram: (b c f n).
        config: sizes of the patches.
        step: finished steps of the run.
    """
    bins, frames = spectrogram.shape[-2:]
    bands = (bins - 1) // config.band if config.band else 1
    return PatchGrid(bins, frames, bands, min(patch_frames(step, config), frames))


def corrupt(
    target: Tensor,
    config: MaskConfig,
    step: int,
    generator: torch.Generator,
    mixed: Mapping[str, Tensor] | None = None,
    predicted_error: Tensor | None = None,
    allowed: Tensor | None = None,
) -> Corrupted:
    """Corrupt patches of a batch: fill them with 1.0, raise them to noise or a mix, or keep them.

    Where a patch was chosen the result is at least the target, so that a factor in [0, 1] can
    restore it; elsewhere it is equal to the target, bit for bit. The target is not modified.

    Args:
        target: (b c f n) in [0, 1].
        config: the strategy and the shares.
        step: finished steps of the run, for schedules.
        generator: on the CPU; all randomness comes from it.
        mixed: for the kinds "mix" and "voice", each crop mixed with another one or with a voice:
            (b c f n) in [0, 1], on the target's scale. Patches of a kind without any are kept.
        predicted_error: (b k m) of each patch of `grid_of(target, config, step)`, for strategies
            that need it instead of the target; the same for all patches by default.
        allowed: boolean (m), groups among which patches are chosen; all of them by default.

    Returns:
        The corrupted spectrogram, the kind of each bin, and the grid of patches.
    """
    grid, values = grid_of(target, config, step), target
    if config.chosen_strategy.predicted_error:
        values = predicted_error
        if values is None:
            values = torch.zeros(len(target), grid.bands, grid.groups)
    chosen = _choose(values, grid, config, step, generator, allowed)
    kinds = _draw_kinds(chosen, config, generator)
    noisy = grid.frames_of(kinds == KINDS.index("noise")) if config.noise else None
    kinds = grid.expand(kinds.to(target.device, torch.int8))
    spectrogram = torch.where(kinds == KINDS.index("mask"), 1.0, target)
    for kind, crops in (mixed or {}).items():
        raised = torch.maximum(target, crops)
        spectrogram = torch.where(kinds == KINDS.index(kind), raised, spectrogram)
    if config.noise:
        limit = torch.ones(1, device=target.device)
        if config.noise_level == "local":
            limit = 2 * target.mean(dim=-1)
        _add_noise(spectrogram, kinds, noisy, limit.expand(target.shape[:3]), generator)
    return Corrupted(spectrogram, kinds, grid)


def _choose(
    values: Tensor,
    grid: PatchGrid,
    config: MaskConfig,
    step: int,
    generator: torch.Generator,
    allowed: Tensor | None,
) -> Tensor:
    """Choose patches, boolean (b k m), as if there were no groups but the `allowed` ones.

    So the share is that of the allowed patches, and every crop has a chosen one.
    """
    strategy = config.chosen_strategy
    options = config.options_of(strategy)
    if allowed is None or bool(allowed.all()):
        return strategy.choose(values, grid, options, step, generator)
    frames = allowed.repeat_interleave(grid.size)[: grid.frames]
    places = allowed if strategy.predicted_error else frames
    part = PatchGrid(grid.bins, int(frames.sum()), grid.bands, grid.size)
    chosen = torch.zeros(len(values), grid.bands, grid.groups, dtype=torch.bool)
    values = values[..., places.to(values.device)]
    chosen[..., allowed] = strategy.choose(values, part, options, step, generator)
    return chosen


def _draw_kinds(chosen: Tensor, config: MaskConfig, generator: torch.Generator) -> Tensor:
    """Draw the corruption of chosen patches: boolean (b k m) to indices into KINDS or -1."""
    if config.mask >= 1:
        kinds = chosen.to(torch.int8) - 1  # "mask" or untouched
    else:
        draw = torch.rand(chosen.shape, generator=generator)
        if config.chosen_strategy.one_draw_per_run:
            draw = first_of_run(draw, chosen)
        shares = torch.tensor([config.mask, config.noise, config.mix - config.voice, config.voice])
        kinds = torch.where(chosen, torch.bucketize(draw, shares.cumsum(0), right=True), UNTOUCHED)
    clean = torch.rand(len(chosen), 1, 1, generator=generator) < config.clean_share
    return torch.where(clean, KINDS.index("clean"), kinds) if clean.any() else kinds


def _add_noise(
    spectrogram: Tensor, kinds: Tensor, noisy: Tensor, limit: Tensor, generator: torch.Generator
) -> None:
    """Raise the patches of that kind to noise, uniform from 0 to `limit`, in place.

    Noise is drawn for their frames only: for all of them it took longer than all the rest.

    Args:
        spectrogram: (b c f n), changed.
        kinds: (b 1 f n) or (b 1 1 n).
        noisy: boolean (b n), the frames that have such patches; on the CPU.
        limit: (b c f); values above 1 are cut to 1.
        generator: on the CPU.
    """
    crop, frame = noisy.nonzero(as_tuple=True)
    noise = torch.rand(len(crop), *spectrogram.shape[1:3], generator=generator)
    crop, frame, noise = (x.to(spectrogram.device) for x in (crop, frame, noise))
    noise = (noise * limit[crop]).clamp_(max=1)
    noisy_bins = kinds[crop, :, :, frame] == KINDS.index("noise")
    before = spectrogram[crop, :, :, frame]
    spectrogram[crop, :, :, frame] = torch.where(noisy_bins, torch.maximum(before, noise), before)


def ignore_padding(target: Tensor, corrupted: Corrupted, music: Tensor) -> Corrupted:
    """Ignore frames behind a song's end, and restore the chosen patches that reach beyond it.

    Args:
        target: (b c f n) in [0, 1].
        corrupted: of the same crops, not modified.
        music: (b) frames of each crop that are music, on the CPU.

    Returns:
        The corrupted crops; the loss does not count their padding.
    """
    frames, size = target.shape[-1], corrupted.grid.size
    if bool((music >= frames).all()):
        return corrupted
    frame, end = torch.arange(frames), music[:, None, None, None]
    padded = (frame >= end).to(target.device)
    touched = ((frame // size + 1) * size > end) & (end < frames)
    return restore_patches(target, corrupted, padded, touched.to(target.device))


def with_masked_group(corrupted: Corrupted) -> Corrupted:
    """Fill a group with 1.0 in each crop that has no masked patch.

    It is the crop's first chosen group, or its first group where none is chosen.

    Args:
        corrupted: not modified.

    Returns:
        Corrupted crops, each with a masked patch.
    """
    grid = corrupted.grid
    lacks = ~corrupted.masked.flatten(1).any(dim=1, keepdim=True)
    first = corrupted.chosen.any(dim=2)[:, 0].int().argmax(dim=-1, keepdim=True) // grid.size
    groups = torch.arange(grid.groups, device=first.device)
    patches = (lacks & (groups == first))[:, None].expand(-1, grid.bands, -1)
    filled = grid.expand(patches)
    kinds = torch.where(filled, KINDS.index("mask"), corrupted.kinds)
    return Corrupted(torch.where(filled, 1.0, corrupted.spectrogram), kinds, grid)


def restore_patches(
    target: Tensor, corrupted: Corrupted, ignored: Tensor, touched: Tensor
) -> Corrupted:
    """Restore chosen patches, and mark frames that the loss ignores.

    Args:
        target: (b c f n) the uncorrupted crops.
        corrupted: of the same crops, not modified.
        ignored: boolean, broadcast to (b 1 f n): bins to be ignored.
        touched: boolean, broadcast to (b 1 f n): where chosen patches are restored.

    Returns:
        The corrupted crops, with the frames marked and without those patches.
    """
    restored = touched & corrupted.chosen
    kinds = torch.where(restored, UNTOUCHED, corrupted.kinds)
    spectrogram = torch.where(restored, target, corrupted.spectrogram)
    return Corrupted(spectrogram, torch.where(ignored, IGNORED, kinds), corrupted.grid)

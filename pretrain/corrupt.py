"""What happens to the chosen cells: filled with ones, raised to noise or another song, or kept."""

from dataclasses import dataclass

import torch
from torch import Tensor

from separator.pretrain.mask_config import MaskConfig
from separator.pretrain.masks import RUNS, STRATEGIES
from separator.pretrain.masks.geometry import Grid, first_of_run
from separator.pretrain.masks.schedule import group_frames

KINDS = ("mask", "noise", "other", "kept", "clean")  # the last is that of whole crops
UNTOUCHED, OUTSIDE = -1, -2  # kinds of what was not chosen, and of frames that count nowhere
OTHER_DB = (-10.0, 5.0)  # how loud another song is, next to the crop that it covers


@dataclass(frozen=True)
class Corrupted:
    """A corrupted batch and where it was corrupted.

    Attributes:
        spectrogram: (b c f n) what the model sees.
        kinds: (b 1 f n), or (b 1 1 n) of whole frames: index into KINDS, -1 where nothing was
            chosen, -2 where nothing counts.
        grid: the cells.
    """

    spectrogram: Tensor
    kinds: Tensor
    grid: Grid

    @property
    def chosen(self) -> Tensor:
        """Boolean, of the shape of `kinds`: cells to be restored; all of a clean crop's."""
        return self.kinds >= 0

    @property
    def hidden(self) -> Tensor:
        """Boolean, of the shape of `kinds`: cells filled with ones."""
        return self.kinds == KINDS.index("mask")

    @property
    def hidden_cells(self) -> Tensor:
        """Boolean (b k m): cells filled with ones."""
        rows = self.hidden[:, 0, :: (self.grid.bins - 1) // self.grid.bands]
        return rows[:, : self.grid.bands, :: self.grid.size]

    def draw_hidden(self, most: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw up to `most` hidden cells of each crop.

        Returns:
            (b l) places among the k·m cells, and boolean (b l), false where there were too few.
        """
        hidden = self.hidden_cells.flatten(1)
        draw = torch.rand(hidden.shape, generator=generator).to(hidden.device)
        number = min(most, hidden.shape[1])
        order, place = torch.where(hidden, draw, 2.0).topk(number, dim=1, largest=False)
        return place, order < 2

    @property
    def untouched(self) -> Tensor:
        """Boolean, of the shape of `kinds`: cells that were not chosen and count."""
        return self.kinds == UNTOUCHED


def grid_of(spectrogram: Tensor, config: MaskConfig, step: int) -> Grid:
    """Return the cells into which (b c f n) is cut at a step."""
    bins, frames = spectrogram.shape[-2:]
    bands = (bins - 1) // config.band if config.band else 1
    return Grid(bins, frames, bands, min(group_frames(step, config), frames))


def corrupt(
    target: Tensor,
    config: MaskConfig,
    step: int,
    generator: torch.Generator,
    mixed: Tensor | None = None,
    difficulty: Tensor | None = None,
    free: Tensor | None = None,
) -> Corrupted:
    """Hide cells of a batch: some become 1.0, some are raised to noise or to a mix, some stay.

    Wherever a cell was chosen the result is at least the target, so that a factor in [0, 1] can
    restore it; elsewhere it is the target bit for bit. The target is not modified.

    Args:
        target: (b c f n) in [0, 1].
        config: the strategy and the shares.
        step: finished steps of the run, for what changes over it.
        generator: on the CPU; all randomness comes from it.
        mixed: (b c f n) in [0, 1], each crop with another one, on the target's scale; needed where
            `config.other` is above 0.
        difficulty: (b k m) predicted error of each cell of `grid_of(target, config, step)`, which
            `hard` looks at instead of the target; without it all are alike.
        free: boolean (m), groups among which cells are chosen; all of them without.
    """
    grid = grid_of(target, config, step)
    if config.strategy == "hard" and difficulty is None:
        difficulty = torch.zeros(len(target), grid.bands, grid.groups)
    seen = difficulty if config.strategy == "hard" else target
    chosen = _choose(seen, grid, config, step, generator, free)
    kinds = _draw_kinds(chosen, config, generator)
    noisy = grid.frames_of(kinds == KINDS.index("noise")) if config.noise else None
    kinds = grid.expand(kinds.to(target.device, torch.int8))
    spectrogram = torch.where(kinds == KINDS.index("mask"), 1.0, target)
    if config.other:
        raised = torch.maximum(target, mixed)
        spectrogram = torch.where(kinds == KINDS.index("other"), raised, spectrogram)
    if config.noise:
        level = torch.ones(1, device=target.device)
        if config.noise_level == "local":
            level = 2 * target.mean(dim=-1)
        _add_noise(spectrogram, kinds, noisy, level.expand(target.shape[:3]), generator)
    return Corrupted(spectrogram, kinds, grid)


def _choose(
    seen: Tensor,
    grid: Grid,
    config: MaskConfig,
    step: int,
    generator: torch.Generator,
    free: Tensor | None,
) -> Tensor:
    """Choose cells, boolean (b k m), as if there were no groups but the `free` ones.

    So the share is that of what can be chosen, and no crop is without a chosen cell.
    """
    strategy = STRATEGIES[config.strategy]
    if free is None or bool(free.all()):
        return strategy(seen, grid, config, step, generator)
    frames = free.repeat_interleave(grid.size)[: grid.frames]
    places = free if config.strategy == "hard" else frames
    part = Grid(grid.bins, int(frames.sum()), grid.bands, grid.size)
    chosen = torch.zeros(len(seen), grid.bands, grid.groups, dtype=torch.bool)
    seen = seen[..., places.to(seen.device)]
    chosen[..., free] = strategy(seen, part, config, step, generator)
    return chosen


def _draw_kinds(chosen: Tensor, config: MaskConfig, generator: torch.Generator) -> Tensor:
    """Decide what becomes of chosen cells: boolean (b k m) to indices into KINDS or -1."""
    if config.fill >= 1:
        kinds = chosen.to(torch.int8) - 1  # "mask" or untouched
    else:
        draw = torch.rand(chosen.shape, generator=generator)
        if config.strategy in RUNS:
            draw = first_of_run(draw, chosen)
        edges = torch.tensor([config.fill, config.noise, config.other]).cumsum(0)
        kinds = torch.where(chosen, torch.bucketize(draw, edges, right=True), UNTOUCHED)
    clean = torch.rand(len(chosen), 1, 1, generator=generator) < config.clean_share
    return torch.where(clean, KINDS.index("clean"), kinds) if clean.any() else kinds


def _add_noise(
    spectrogram: Tensor, kinds: Tensor, noisy: Tensor, level: Tensor, generator: torch.Generator
) -> None:
    """Raise the cells of that kind to noise, uniform from 0 to `level`, in place.

    Noise is drawn for their frames only: for all of them it took longer than all the rest.

    Args:
        spectrogram: (b c f n), changed.
        kinds: (b 1 f n) or (b 1 1 n).
        noisy: boolean (b n), the frames that have such cells; on the CPU.
        level: (b c f); of what is above 1, 1 is left.
        generator: on the CPU.
    """
    crop, frame = noisy.nonzero(as_tuple=True)
    noise = torch.rand(len(crop), *spectrogram.shape[1:3], generator=generator)
    crop, frame, noise = (x.to(spectrogram.device) for x in (crop, frame, noise))
    noise = (noise * level[crop]).clamp_(max=1)
    here = kinds[crop, :, :, frame] == KINDS.index("noise")
    before = spectrogram[crop, :, :, frame]
    spectrogram[crop, :, :, frame] = torch.where(here, torch.maximum(before, noise), before)


def covered(spectrogram: Tensor, generator: torch.Generator) -> Tensor:
    """Add to each crop of a batch the one before it, at a random level relative to its own.

    Crops are drawn at random, so it is most often of another song.

    Args:
        spectrogram: (b c f n) complex; with b = 1 a crop is added to itself.
        generator: on the CPU.

    Returns:
        (b c f n) complex.
    """
    low, high = OTHER_DB
    decibels = low + (high - low) * torch.rand(len(spectrogram), 1, 1, 1, generator=generator)
    gain = (10 ** (decibels / 20)).to(spectrogram.device)
    level = spectrogram.abs().square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    gain = gain * level / level.roll(1, 0).clamp(min=1e-9)
    return spectrogram + gain * spectrogram.roll(1, 0)


def without_padding(target: Tensor, corrupted: Corrupted, music: Tensor) -> Corrupted:
    """Let frames behind a song's end count nowhere; cells that reach beyond it are given up.

    Args:
        target: (b c f n) in [0, 1].
        corrupted: of the same crops, not modified.
        music: (b) frames of each crop that are music, on the CPU.
    """
    frames, size = target.shape[-1], corrupted.grid.size
    if bool((music >= frames).all()):
        return corrupted
    frame, end = torch.arange(frames), music[:, None, None, None]
    padded = (frame >= end).to(target.device)
    touched = ((frame // size + 1) * size > end).to(target.device) & (end < frames).to(
        target.device
    )
    spectrogram, kinds = left_out(target, corrupted, padded, touched)
    return Corrupted(spectrogram, kinds, corrupted.grid)


def with_masked_group(corrupted: Corrupted) -> Corrupted:
    """Fill a group of each crop that has no masked cell: its first chosen group, or its first."""
    grid = corrupted.grid
    lacks = ~corrupted.hidden.flatten(1).any(dim=1, keepdim=True)
    first = corrupted.chosen.any(dim=2)[:, 0].int().argmax(dim=-1, keepdim=True) // grid.size
    groups = torch.arange(grid.groups, device=first.device)
    cells = (lacks & (groups == first))[:, None].expand(-1, grid.bands, -1)
    filled = grid.expand(cells)
    kinds = torch.where(filled, KINDS.index("mask"), corrupted.kinds)
    return Corrupted(torch.where(filled, 1.0, corrupted.spectrogram), kinds, grid)


def left_out(
    target: Tensor, corrupted: Corrupted, outside: Tensor, touched: Tensor
) -> tuple[Tensor, Tensor]:
    """Give up chosen cells where `touched`, and mark the kinds `outside` as counted nowhere."""
    given_up = touched & corrupted.chosen
    kinds = torch.where(given_up, UNTOUCHED, corrupted.kinds)
    return (
        torch.where(given_up, target, corrupted.spectrogram),
        torch.where(outside, OUTSIDE, kinds),
    )

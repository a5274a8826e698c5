"""Cells in which much happens are hidden more often."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from separator.pretrain.masks.config import MaskConfig
from separator.pretrain.masks.geometry import Grid, channel_mean, lowest, wanted
from separator.pretrain.masks.schedule import hint

FLOOR = 1e-2  # -80 dB on magnitudes to the power of 0.5


def dispersion(
    spectrogram: Tensor, grid: Grid, config: MaskConfig, step: int, generator: torch.Generator
) -> Tensor:
    """Choose exactly `share` of the cells, in proportion to their mean absolute deviation.

    Dispersion-weighted masking (arXiv 2603.23810). Of the chosen cells, the schedule's share is
    shown again and as many others, drawn uniformly, are hidden instead; it falls from 1, which is
    uniform, to 0.
    """
    batch, number = len(spectrogram), wanted(config.share, grid.cells)
    weight = _spread(spectrogram, grid).flatten(1).cpu() + 1e-12
    noise = torch.rand(batch, grid.cells, generator=generator)
    # the lowest of Exp(1) / weight: draws without replacement (Efraimidis and Spirakis 2006)
    chosen = lowest(-noise.clamp(min=1e-12).log() / weight, number)
    swapped = int(number * hint(step, config))
    again = torch.rand(batch, grid.cells, generator=generator)
    shown = chosen & lowest(torch.where(chosen, again, 2.0), swapped)
    others = torch.rand(batch, grid.cells, generator=generator)
    free = ~chosen | shown
    chosen = (chosen & ~shown) | (free & lowest(torch.where(free, others, 2.0), swapped))
    return chosen.unflatten(1, (grid.bands, grid.groups))


def _spread(spectrogram: Tensor, grid: Grid) -> Tensor:
    """Measure how much log magnitudes vary within each cell: (b c f n) to (b k m).

    Of plain magnitudes it would only follow loudness. Cells of an even number of frames are looked
    at in every second one, for neighbours overlap and all of them take twice the time.
    """
    stride = 1 if grid.size % 2 else 2
    level = channel_mean(spectrogram[..., ::stride]).log().clamp_(min=math.log(FLOOR))
    return replace(grid, frames=level.shape[-1], size=grid.size // stride).deviation(level)

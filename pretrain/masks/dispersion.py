"""Cells in which much happens are hidden more often."""

import math

import torch
from torch import Tensor

from separator.pretrain.mask_config import MaskConfig
from separator.pretrain.masks.geometry import Grid, channel_mean, lowest, wanted
from separator.pretrain.masks.schedule import hint

FLOOR = 1e-2  # -80 dB on magnitudes to the power of 0.5


def dispersion(
    spectrogram: Tensor, grid: Grid, config: MaskConfig, step: int, generator: torch.Generator
) -> Tensor:
    """Choose `share` of the cells, in proportion to their mean absolute deviation.

    Dispersion-weighted masking (arXiv 2603.23810). Of the chosen cells, the schedule's share is
    shown again and as many others, drawn uniformly, are hidden instead; it falls from 1, which is
    uniform, to 0.
    """
    batch = len(spectrogram)
    number = wanted(config.share, grid.cells, batch, generator)
    weight = _spread(spectrogram, grid).flatten(1).cpu() + 1e-12
    noise = torch.rand(batch, grid.cells, generator=generator)
    # the lowest of Exp(1) / weight: draws without replacement (Efraimidis and Spirakis 2006)
    chosen = lowest(-noise.clamp(min=1e-12).log() / weight, number)
    swapped = (number * hint(step, config)).long()
    again, others = torch.rand(2, batch, grid.cells, generator=generator)
    kept = lowest(torch.where(chosen, again, 2.0), number - swapped)
    drawn = lowest(torch.where(kept, 2.0, others), swapped)
    return (kept | drawn).unflatten(1, (grid.bands, grid.groups))


def _spread(spectrogram: Tensor, grid: Grid) -> Tensor:
    """Measure how much log magnitudes vary within each cell: (b c f n) to (b k m).

    Of plain magnitudes it would only follow loudness. Windows overlap in both directions, so cells
    of many bins are looked at in every fourth, those of an even number of frames in every second.
    """
    band = (grid.bins - 1) // grid.bands
    down, right = math.gcd(4, band) if band >= 32 else 1, math.gcd(2, grid.size)
    level = channel_mean(spectrogram[:, :, ::down, ::right]).log().clamp_(min=math.log(FLOOR))
    bins, frames = level.shape[2:]
    return Grid(bins, frames, grid.bands, grid.size // right).deviation(level)

"""Cells in which much happens are hidden more often."""

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

    Dispersion-weighted masking (arXiv 2603.23810). The deviation is that of log magnitudes: of
    plain ones it would only follow loudness. Of the chosen cells, the schedule's share is shown
    again and as many others, drawn uniformly, are hidden instead; it falls from 1, which is
    uniform, to 0.
    """
    batch, number = len(spectrogram), wanted(config.share, grid.cells)
    level = channel_mean(spectrogram).clamp_(min=FLOOR).log_()
    weight = grid.deviation(level).flatten(1).cpu() + 1e-12
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

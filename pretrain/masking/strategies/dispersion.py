"""Patches in which much happens are masked more often."""

import math

from separator.pretrain.lazy_torch import Generator, Tensor, torch
from separator.pretrain.masking.grid import PatchGrid, channel_mean, lowest, wanted
from separator.pretrain.masking.options import WeightedOptions
from separator.pretrain.masking.strategy import register

MIN_MAGNITUDE = 1e-2  # -80 dB on magnitudes to the power of 0.5


def uniform_share(step: int, config: WeightedOptions) -> float:
    """Compute the share of the chosen patches that is replaced by uniformly drawn ones.

    It falls as 1 - (step / weighted_steps)^2, and is 1 during the first `uniform_steps` steps.

    Args:
        step: finished steps of the run.
        config: `uniform_steps` and `weighted_steps`.

    Returns:
        A number in [0, 1].
    """
    if step < config.uniform_steps:
        return 1.0
    return max(0.0, 1 - (step / max(1, config.weighted_steps)) ** 2)


@register(WeightedOptions)
def dispersion(
    spectrogram: Tensor, grid: PatchGrid, config: WeightedOptions, step: int, generator: Generator
) -> Tensor:
    """Choose `share` of the patches, in proportion to their mean absolute deviation.

    Dispersion-weighted masking (arXiv 2603.23810). A part of the chosen patches, `uniform_share`,
    is replaced by as many others, drawn uniformly; it falls from 1, which is uniform masking, to 0.
    """
    batch = len(spectrogram)
    number = wanted(config.share, grid.patches, batch, generator)
    weight = _spread(spectrogram, grid).flatten(1).cpu() + 1e-12
    noise = torch.rand(batch, grid.patches, generator=generator)
    # the lowest of Exp(1) / weight: draws without replacement (Efraimidis and Spirakis 2006)
    chosen = lowest(-noise.clamp(min=1e-12).log() / weight, number)
    swapped = (number * uniform_share(step, config)).long()
    again, others = torch.rand(2, batch, grid.patches, generator=generator)
    retained = lowest(torch.where(chosen, again, 2.0), number - swapped)
    drawn = lowest(torch.where(retained, 2.0, others), swapped)
    return (retained | drawn).unflatten(1, (grid.bands, grid.groups))


def _spread(spectrogram: Tensor, grid: PatchGrid) -> Tensor:
    """Measure how much log magnitudes vary within each patch: (b c f n) to (b k m).

    Deviations of plain magnitudes would only follow loudness. Windows overlap in both directions,
    so every fourth bin of large patches, and every second frame of an even number, is enough.
    """
    band = (grid.bins - 1) // grid.bands
    down, right = math.gcd(4, band) if band >= 32 else 1, math.gcd(2, grid.size)
    log_magnitude = channel_mean(spectrogram[:, :, ::down, ::right])
    log_magnitude = log_magnitude.log().clamp_(min=math.log(MIN_MAGNITUDE))
    bins, frames = log_magnitude.shape[2:]
    return PatchGrid(bins, frames, grid.bands, grid.size // right).deviation(log_magnitude)

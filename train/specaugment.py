"""SpecAugment in fine-tuning: blocks of frames and of bins set to 0, at random or at hard places.

SpecAugment: Park et al. 2019, arXiv:1904.08779. Hard places: Prediction-error-based Adaptive
SpecAugment (PEAS), Zhang et al., which masks where the network is worst at predicting its own
reconstruction error.
"""

import functools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from separator.train.config import SpecAugmentConfig, TrainConfig

Network = Callable[[Tensor], Tensor]


def blocks_to_keep(
    magnitude: Tensor, network: Network, config: TrainConfig, step: int, generator: torch.Generator
) -> Tensor:
    """Draw the blocks of a batch of crops.

    Args:
        magnitude: (b c f n) what the network is shown, in [0, 1].
        network: maps magnitudes to their mask (b c f n); used for peas alone, without gradient.
        config: of the run.
        step: finished steps of the run.
        generator: on the CPU; all randomness comes from it.

    Returns:
        (b 1 f n): 0 in the blocks, 1 elsewhere.
    """
    batch, _, bins, frames = magnitude.shape
    about, progress = config.specaugment, step / config.steps
    width = min(round(about.seconds * config.rate / config.stft.hop), frames)
    height = min(round(about.hertz * config.stft.n_fft / config.rate), bins)
    error = None
    if about.positions == "peas":
        error = prediction_error(magnitude, network).mean(dim=1).cpu()  # (b f n)
    keep = torch.ones(batch, 1, bins, frames)
    draw = functools.partial(_draw, config=about, progress=progress, generator=generator)
    for crop in range(batch):
        by_frame = None if error is None else error[crop].mean(dim=0)
        by_bin = None if error is None else error[crop].mean(dim=1)
        for first, last in draw(frames, about.time_blocks, width, by_frame):
            keep[crop, :, :, first:last] = 0
        for first, last in draw(bins, about.frequency_blocks, height, by_bin):
            keep[crop, :, first:last] = 0
    return keep.to(magnitude.device)


@torch.no_grad()
def prediction_error(magnitude: Tensor, network: Network) -> Tensor:
    """Squared error of the network at reproducing its own reconstruction error (PEAS, eq. 1 and 2).

    The reconstruction of x is the network's mask times x: e_rec = (m(x) x - x)², and
    e_pred = (m(e_rec) e_rec - e_rec)².

    Args:
        magnitude: (b c f n) x, in [0, 1].
        network: maps magnitudes to their mask.

    Returns:
        e_pred (b c f n), without gradient.
    """
    reconstruction = (network(magnitude) * magnitude - magnitude).square()
    return (network(reconstruction) * reconstruction - reconstruction).square()


def adaptive_blocks(epoch: float, epochs: int, total: int) -> float:
    """Compute the expected number of masked blocks at hard places (PEAS, eq. 3).

    It grows by 0.1 an epoch; in the last fifth of the run all blocks are at hard places.

    Args:
        epoch: finished epochs, with fractions.
        epochs: length of the run.
        total: number of masked blocks.

    Returns:
        A number from 0 to `total`.
    """
    last = epoch >= 0.8 * epochs
    return min(total, 0.1 * epoch + 0.9 * total * last)


def hardest_windows(error: Tensor, width: int, count: int) -> list[int]:
    """Return where the `count` windows of largest mean error begin, none of which overlap.

    Args:
        error: (n) error of each frame or bin.
        width: frames or bins of a window, which moves by one.
        count: windows wanted; fewer are returned where no more fit.
    """
    means = F.avg_pool1d(error[None, None].double(), width, stride=1)[0, 0]
    starts: list[int] = []
    while len(starts) < count and bool((means > -math.inf).any()):
        start = int(means.argmax())
        starts.append(start)
        means[max(0, start - width + 1) : start + width] = -math.inf
    return starts


def _draw(
    length: int,
    count: int,
    widest: int,
    error: Tensor | None,
    config: SpecAugmentConfig,
    progress: float,
    generator: torch.Generator,
) -> list[tuple[int, int]]:
    """Draw (first, last + 1) of `count` blocks along one axis of `length` frames or bins."""
    if not count or not widest:
        return []
    expected = max(1, round(widest / 2))
    fixed = config.fixed_late and progress >= 0.8
    widths = [expected if fixed else _integer(widest, generator) for _ in range(count)]
    starts: list[int] = []
    if error is not None:
        wanted = adaptive_blocks(progress * config.epochs, config.epochs, count)
        number = int(wanted + torch.rand((), generator=generator).item())  # exact in the mean
        windows = hardest_windows(error, expected, min(number, count))
        for window, width in zip(windows, widths, strict=False):
            starts.append(min(max(0, window + (expected - width) // 2), length - width))
    starts += [_integer(length - width, generator) for width in widths[len(starts) :]]
    return [(start, start + width) for start, width in zip(starts, widths, strict=True)]


def _integer(highest: int, generator: torch.Generator) -> int:
    """Draw a whole number from 0 to `highest`."""
    return int(torch.randint(highest + 1, (), generator=generator))

"""Spectrograms as pictures, for logs and the demo."""

from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from separator.dsp.config import STFTConfig
from separator.dsp.stft import stft

RANGE_DB = 80.0
TICKS_KHZ = (0.1, 1, 4, 10, 20)
WIDTH, HEIGHT = 480, 256  # pixels inside the axes
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 10, 54  # pixels around them


def colour(values: Tensor) -> Tensor:
    """Return a picture (3 h w) with h = `HEIGHT` of values (f n) in [0, 1], low bins at the bottom.

    The vertical axis is stretched towards low frequencies (a square-root scale), where music is.
    """
    import matplotlib

    table = torch.tensor(matplotlib.colormaps["magma"].colors).float()
    bins = values.shape[0]
    position = torch.linspace(0, 1, HEIGHT).square() * (bins - 1)
    step = max(1, bins // HEIGHT)
    smooth = F.max_pool1d(values.T[:, None], step, 1, padding=step // 2)[:, 0, :bins].T
    rows = smooth[position.long()].flip(0).cpu()
    return table[(rows.clamp(0, 1) * 255).long()].permute(2, 0, 1)


def spectrogram_image(wave: Tensor, config: STFTConfig) -> Tensor:
    """Return a picture (3 h w) of a wave (c t) by the transform of a config, 80 dB deep."""
    magnitude = stft(wave.cpu(), config).abs().mean(0)
    decibels = 20 * (magnitude / (config.n_fft / 4)).clamp(min=1e-8).log10()
    return colour(1 + decibels / RANGE_DB)


def label_axes(axes: Any, seconds: float, rate: int) -> None:
    """Write seconds and kHz at the axes of a picture made by `colour`.

    Args:
        axes: matplotlib's, with the picture between (0, 0) and (seconds, 1).
        seconds: length of the sound.
        rate: its sample rate in Hz.
    """
    top = rate / 2000
    ticks = [khz for khz in TICKS_KHZ if khz <= top]
    axes.set_yticks([(khz / top) ** 0.5 for khz in ticks], [f"{khz:g}" for khz in ticks])
    axes.set(xlim=(0, seconds), ylim=(0, 1), xlabel="seconds", ylabel="kHz")


def with_axes(picture: Tensor, seconds: float, rate: int) -> Tensor:
    """Return a picture (3 h w) of so many seconds between axes, up to half the rate: (3 H W)."""
    framed = _axes(seconds, rate).clone()
    rows = torch.arange(HEIGHT) * picture.shape[1] // HEIGHT
    columns = torch.arange(WIDTH) * picture.shape[2] // WIDTH
    framed[:, TOP : TOP + HEIGHT, LEFT : LEFT + WIDTH] = picture[:, rows][:, :, columns].cpu()
    return framed


@lru_cache(maxsize=4)  # drawing them takes 0.1 s, and all pictures of a validation have the same
def _axes(seconds: float, rate: int) -> Tensor:
    """Draw empty axes (3 H W)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    wide, high, dots = LEFT + WIDTH + RIGHT, TOP + HEIGHT + BOTTOM, 125
    figure = Figure(figsize=(wide / dots, high / dots), dpi=dots)
    canvas = FigureCanvasAgg(figure)
    box = LEFT / wide, BOTTOM / high, WIDTH / wide, HEIGHT / high
    label_axes(figure.add_axes(box), seconds, rate)
    canvas.draw()
    pixels = torch.from_numpy(np.array(canvas.buffer_rgba()))
    return pixels[..., :3].permute(2, 0, 1).float() / 255

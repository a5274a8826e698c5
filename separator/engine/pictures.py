"""Spectrograms as pictures, for logs and the demo."""

import torch
import torch.nn.functional as F
from torch import Tensor

from separator.stft import STFTConfig, stft

RANGE_DB = 80.0


def colour(values: Tensor, height: int = 256) -> Tensor:
    """Turn values (f n) in [0, 1] into a picture (3 h w), low bins at the bottom.

    The vertical axis is stretched towards low frequencies (a square-root scale), where music is.
    """
    import matplotlib

    table = torch.tensor(matplotlib.colormaps["magma"].colors).float()
    bins = values.shape[0]
    position = torch.linspace(0, 1, height).square() * (bins - 1)
    step = max(1, bins // height)
    smooth = F.max_pool1d(values.T[:, None], step, 1, padding=step // 2)[:, 0, :bins].T
    rows = smooth[position.long()].flip(0).cpu()
    return table[(rows.clamp(0, 1) * 255).long()].permute(2, 0, 1)


def spectrogram_image(wave: Tensor, config: STFTConfig) -> Tensor:
    """Turn a wave (c t) into a picture (3 h w) of its level over time, 80 dB deep."""
    magnitude = stft(wave.cpu(), config).abs().mean(0)
    decibels = 20 * (magnitude / (config.n_fft / 4)).clamp(min=1e-8).log10()
    return colour(1 + decibels / RANGE_DB)

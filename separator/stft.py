"""Waves to complex spectrograms and back, and the scale on which the model sees magnitudes."""

import torch
import torch.nn.functional as F
from torch import Tensor

from separator.stft_config import STFTConfig

FLOOR = 1e-3  # a full-scale sine peaks near n_fft / 4; below -60 dB of that a crop is not amplified


def stft(wave: Tensor, config: STFTConfig) -> Tensor:
    """Spectrogram with a periodic Hann window, frames centred on multiples of the hop.

    Args:
        wave: (… t) samples.
        config: window and hop.

    Returns:
        complex64 (… f n), f = n_fft / 2 + 1, n = ceil(t / hop) + 1. The ends are padded with zeros,
        up to a multiple of the hop, since the inverse of a masked spectrogram has no bound where
        only the last window's edge reaches.
    """
    window = torch.hann_window(config.n_fft, device=wave.device)
    flat = wave.reshape(-1, wave.shape[-1]).float()
    flat = F.pad(flat, (0, -flat.shape[-1] % config.hop))
    spectrogram = torch.stft(
        flat, config.n_fft, config.hop, window=window, return_complex=True, pad_mode="constant"
    )
    return spectrogram.reshape(*wave.shape[:-1], *spectrogram.shape[-2:])


def istft(spectrogram: Tensor, config: STFTConfig, length: int) -> Tensor:
    """Inverse of `stft`: (… f n) complex to (… length) samples; exact to float precision.

    `length` is what `stft` was given, at most (n - 1) · hop.
    """
    flat = spectrogram.reshape(-1, *spectrogram.shape[-2:])
    return _Inverse.apply(flat, config, length).reshape(*spectrogram.shape[:-2], length)


class _Inverse(torch.autograd.Function):
    """torch.istft, whose gradient is one more `stft` and is laid out in memory like one.

    Composed of its steps' gradients it takes half as long again, and turns the spectrogram around,
    so that whatever is multiplied with it in the backward pass takes twice as long.
    """

    @staticmethod
    def forward(context, spectrogram: Tensor, config: STFTConfig, length: int) -> Tensor:
        context.config, context.frames = config, spectrogram.shape[-1]
        window = torch.hann_window(config.n_fft, device=spectrogram.device)
        return torch.istft(spectrogram, config.n_fft, config.hop, window=window, length=length)

    @staticmethod
    def backward(context, gradient: Tensor) -> tuple[Tensor, None, None]:
        config, half = context.config, context.config.n_fft // 2
        total = (context.frames - 1) * config.hop + config.n_fft
        ends = half, total - half - gradient.shape[-1]
        window = torch.hann_window(config.n_fft, device=gradient.device)
        square = window.square()[None, :, None].expand(1, -1, context.frames)
        overlap = F.fold(square, (1, total), (1, config.n_fft), stride=config.hop).flatten()
        gradient = gradient / overlap[half : total - ends[1]]
        result = torch.stft(
            F.pad(gradient, ends), config.n_fft, config.hop, window=window, center=False,
            return_complex=True,
        )  # fmt: skip
        result[:, 1:-1] *= 2  # each of these bins stands for its conjugate as well
        return result.div_(config.n_fft), None, None


def normalise(magnitude: Tensor, config: STFTConfig) -> tuple[Tensor, Tensor]:
    """Scale crops to [0, 1] and compress them.

    Each crop is divided by its largest magnitude over channels, bins and frames, so the model's
    input does not depend on the level. Crops below -60 dB are not lifted to full scale.

    Args:
        magnitude: (b c f n) linear magnitudes.
        config: `power` and `n_fft` (whose size fixes the floor).

    Returns:
        (b c f n) in [0, 1], and the scales (b 1 1 1) to pass to `compress` for targets.
    """
    floor = FLOOR * config.n_fft / 4
    scale = magnitude.amax(dim=(1, 2, 3), keepdim=True).clamp(min=floor)
    return compress(magnitude, scale, config), scale


def compress(magnitude: Tensor, scale: Tensor, config: STFTConfig) -> Tensor:
    """`(magnitude / scale)`, clipped to [0, 1], to the power of `config.power`: (b c f n)."""
    relative = (magnitude / scale).clamp(0, 1)
    if config.power == 1:
        return relative
    if config.power == 0.5:
        return (relative + 1e-12).sqrt()  # the derivative at 0 stays finite
    return (relative + 1e-12) ** config.power


def linear_mask(mask: Tensor, config: STFTConfig) -> Tensor:
    """The factor on linear magnitudes that equals `mask` on compressed ones: mask^(1/power)."""
    if config.power == 1:
        return mask
    return mask.square() if config.power == 0.5 else mask ** (1 / config.power)

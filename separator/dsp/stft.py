"""Waves to complex spectrograms and back, and the scale on which the model sees magnitudes."""

import torch
import torch.nn.functional as F
from torch import Tensor

from separator.dsp.config import FLOOR, STFTConfig
from separator.dsp.kernels import InverseSTFT


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


def magnitude(spectrogram: Tensor) -> Tensor:
    """Compute absolute values up to 1e18, where nothing is to be differentiated.

    Args:
        spectrogram: complex, of any shape.

    Returns:
        Floats of that shape.
    """
    # `abs` takes twice as long on a CPU, since it allows larger values; its slope at 0 is finite
    real, imag = spectrogram.real, spectrogram.imag
    return torch.addcmul(real.square(), imag, imag).sqrt()


def istft(spectrogram: Tensor, config: STFTConfig, length: int) -> Tensor:
    """Invert `stft`, exactly to float precision.

    Args:
        spectrogram: (… f n) complex.
        config: window and hop.
        length: samples that `stft` was given, at most (n - 1) · hop.

    Returns:
        (… length) samples.
    """
    flat = spectrogram.reshape(-1, *spectrogram.shape[-2:])
    return InverseSTFT.apply(flat, config, length).reshape(*spectrogram.shape[:-2], length)


def normalise(magnitude: Tensor, config: STFTConfig) -> tuple[Tensor, Tensor]:
    """Scale crops to [0, 1] and compress them.

    Each crop is divided by its largest magnitude over channels, bins and frames, so the model's
    input does not depend on loudness. Crops below -60 dB are not amplified to full scale.

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
    """Return magnitude / scale, clipped to [0, 1], to the power in the config: (b c f n)."""
    relative = (magnitude / scale).clamp(0, 1)
    if config.power == 1:
        return relative
    if config.power == 0.5:
        return (relative + 1e-12).sqrt()  # the derivative at 0 stays finite
    return (relative + 1e-12) ** config.power


def linear_mask(mask: Tensor, config: STFTConfig) -> Tensor:
    """Return the mask of linear magnitudes that equals one of compressed magnitudes (config)."""
    if config.power == 1:
        return mask
    return mask.square() if config.power == 0.5 else mask ** (1 / config.power)


def linear_masks(masks: Tensor, config: STFTConfig) -> Tensor:
    """Convert a model's masks, which are for compressed magnitudes, to masks for linear ones.

    The masks of several stems are divided by their sum, as in Spleeter and open-unmix, so that the
    estimates add up to the mixture and no part of the song is lost.

    Args:
        masks: (b c f n) of one stem, or (b s c f n) of all.
        config: `power`, the exponent of the compression.

    Returns:
        Masks in [0, 1]: (b s c f n), with s = 1 for one stem.
    """
    linear = linear_mask(masks, config)
    return linear[:, None] if linear.ndim == 4 else linear / linear.sum(dim=1, keepdim=True)

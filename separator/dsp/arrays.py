"""The transform, the model's scale and the Wiener filter with arrays: a separation without torch.

Each function does what the one of its name in `stft` or `wiener` does, to the rounding of float32.
Spectrograms have their bins last here, (… n f), as they lie in memory.
"""

import numpy as np

from separator.dsp.config import COVARIANCE_SHRINKAGE, FLOOR, POWER_FLOOR, STFTConfig


def stft(wave: np.ndarray, config: STFTConfig) -> np.ndarray:
    """Transform waves.

    Args:
        wave: (… t) samples.
        config: window and hop.

    Returns:
        complex64 (… n f).
    """
    half, hop = config.n_fft // 2, config.hop
    ends = [(0, 0)] * (wave.ndim - 1) + [(half, half + -wave.shape[-1] % hop)]
    padded = np.pad(wave, ends)
    frames = np.lib.stride_tricks.sliding_window_view(padded, config.n_fft, axis=-1)[..., ::hop, :]
    return np.fft.rfft(frames * _window(config)).astype(np.complex64, copy=False)


def istft(spectrogram: np.ndarray, config: STFTConfig, length: int) -> np.ndarray:
    """Invert `stft`.

    Args:
        spectrogram: (… n f) complex.
        config: window and hop.
        length: samples that `stft` was given.

    Returns:
        (… length) samples.
    """
    window, hop = _window(config), config.hop
    frames = np.fft.irfft(spectrogram, config.n_fft).astype(np.float32, copy=False)
    frames *= window
    count = frames.shape[-2]
    total = config.n_fft + (count - 1) * hop
    wave = np.zeros((*frames.shape[:-2], total), np.float32)
    weight = np.zeros(total, np.float32)
    for number in range(count):
        place = slice(number * hop, number * hop + config.n_fft)
        wave[..., place] += frames[..., number, :]
        weight[place] += window * window
    kept = slice(config.n_fft // 2, config.n_fft // 2 + length)
    return wave[..., kept] / weight[kept]


def normalise(magnitude: np.ndarray, config: STFTConfig) -> tuple[np.ndarray, np.ndarray]:
    """Scale crops to [0, 1] and compress them.

    Args:
        magnitude: (b c n f) linear magnitudes.
        config: `power` and `n_fft`.

    Returns:
        (b c n f) in [0, 1], and the scales (b 1 1 1).
    """
    largest = magnitude.max(axis=(1, 2, 3), keepdims=True)
    scale = np.maximum(largest, FLOOR * config.n_fft / 4).astype(np.float32)
    relative = np.minimum(magnitude / scale, 1)
    if config.power == 1:
        return relative, scale
    return (relative + np.float32(1e-12)) ** np.float32(config.power), scale


def linear_masks(masks: np.ndarray, config: STFTConfig) -> np.ndarray:
    """Return masks of all stems for linear magnitudes, which add up to 1: (b s c n f).

    Args:
        masks: of a model: (b c n f) of the first of two stems, or (b s c n f) of all.
        config: `power`.
    """
    linear = masks ** np.float32(1 / config.power)
    if linear.ndim == 4:
        return np.stack([linear, 1 - linear], axis=1)
    return linear / linear.sum(axis=1, keepdims=True)


def wiener(
    mixture: np.ndarray,
    masks: np.ndarray,
    count: int,
    target: np.ndarray | None = None,
    finer: int = 1,
) -> np.ndarray:
    """Estimate stems with the filter of `wiener_stems`, v R (Σ v R)⁻¹ for each.

    Args:
        mixture: (b 2 n f), scaled to about 1.
        masks: (b s 2 n f), which add up to 1.
        count: how many of the stems are wanted, the first ones.
        target: (b 2 m f) the spectrogram to filter, by default the first one.
        finer: the first one's hop by the target's: m is (n - 1) · finer + 1.

    Returns:
        (b count 2 m f).
    """
    cross = mixture[:, 0] * mixture[:, 1].conj()
    powers = (mixture.real**2 + mixture.imag**2 + np.float32(POWER_FLOOR)).swapaxes(0, 1)
    channels = [mask.swapaxes(0, 1) for mask in masks.swapaxes(0, 1)]
    shares = np.stack([(pair * powers).sum(0) for pair in channels])
    shares /= shares.sum(0)
    target = mixture if target is None else target
    if finer > 1:
        shares = _interpolate(shares, finer)
    left, right = np.moveaxis(target, 1, 0)
    first = second = both = np.zeros((), np.float32)
    stems = []  # of each, the entries of v R: left, right, and left by right's conjugate
    for pair, share in zip(channels, shares, strict=True):
        parts = [share * part for part in _covariance(pair, powers, cross)]
        first, second, both = first + parts[0], second + parts[1], both + parts[2]
        stems.append(parts)
    # the inverse of the 2x2 sum, times the mixture
    scale = 1 / (first * second - both.real**2 - both.imag**2)
    x = (second * left - both * right) * scale
    y = (first * right - both.conj() * left) * scale
    estimates = [np.stack([a * x + c * y, c.conj() * x + b * y], 1) for a, b, c in stems[:count]]
    return np.stack(estimates, axis=1)


def _interpolate(values: np.ndarray, finer: int) -> np.ndarray:
    """Interpolate (… n f) linearly to (… m f), m = (n - 1) · finer + 1."""
    steps = np.arange(finer, dtype=np.float32)[:, None] / np.float32(finer)
    before, after = values[..., :-1, None, :], values[..., 1:, None, :]
    between = before + steps * (after - before)
    between = between.reshape(*values.shape[:-2], -1, values.shape[-1])
    return np.concatenate([between, values[..., -1:, :]], axis=-2)


def _covariance(
    masks: np.ndarray, powers: np.ndarray, cross: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the entries of a stem's covariance (b 1 f), whose trace is 2.

    Args:
        masks: (2 b n f), of left and right.
        powers: of both channels, (2 b n f).
        cross: left times right's conjugate, (b n f).
    """
    a, b = (masks * masks * powers).mean(2, keepdims=True)
    c = (masks[0] * masks[1] * cross).mean(1, keepdims=True)
    mean = (a + b) / 2 + np.float32(POWER_FLOOR)
    shrinkage = np.float32(COVARIANCE_SHRINKAGE)
    a, b = ((x / mean + shrinkage) / (1 + shrinkage) for x in (a, b))
    return a, b, c / mean / (1 + shrinkage)


def _window(config: STFTConfig) -> np.ndarray:
    """Return the periodic Hann window."""
    turn = 2 * np.pi * np.arange(config.n_fft) / config.n_fft
    return (0.5 - 0.5 * np.cos(turn)).astype(np.float32)

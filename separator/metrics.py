"""Signal-to-distortion ratios of both kinds, and the ideal ratio mask to hold them against.

`frame_sdr` is the SDR of BSSEval v4: one ratio for each second, as museval computes it. museval
splits the error into spatial, interference and artifact parts with 512-tap filters; the SDR adds
the parts up again, so it is the plain ratio of energies, which costs milliseconds, not minutes.
`global_sdr` is one ratio for the whole signal. The two differ by decibels: always say which.
"""

import warnings
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from separator.dsp.config import STFTConfig
from separator.dsp.stft import istft, stft

BLOCK = 1 << 20  # samples worked on at once, so that memory does not grow with the song


def frame_sdr(reference: Tensor, estimate: Tensor, rate: int) -> Tensor:
    """SDR of BSSEval v4 (museval) for each second of each stem.

    Frames are 1 s long and do not overlap; a ragged tail is dropped, but a signal shorter than
    one second is one frame. museval's rule for silence is kept: where the channels of any
    reference or estimate cancel to zero at every sample of a frame, that frame is NaN for all
    stems. Stöter, Liutkus and Ito, The 2018 Signal Separation Evaluation Campaign.

    Args:
        reference: (s c t) true stems.
        estimate: (s c t) their estimates, in the same order.
        rate: samples per second.

    Returns:
        float64 (s n) in dB, n = max(1, t // rate), 0 frames when t is 0; inf where the estimate
        is exact. On the CPU when the device has no float64.

    Raises:
        ValueError: the shapes differ or are not (s c t).
    """
    _check(reference, estimate, dims=3)
    samples = reference.shape[-1]
    count = max(1, samples // rate) if samples else 0
    length = min(rate, samples)
    spans = [slice(n * length, (n + 1) * length) for n in range(count)]
    frames = [_one_frame(*_double(reference, estimate, span)) for span in spans]
    if not frames:
        return torch.empty(reference.shape[0], 0, dtype=torch.float64)
    return torch.stack(frames, dim=-1)


def median_sdr(frames: Tensor) -> Tensor:
    """Compute the median of frame-wise ratios over the frames that are not NaN.

    An even number of frames gives the mean of the two middle ones, as in numpy;
    `torch.nanmedian` gives the lower one.

    Args:
        frames: (… n) in dB; infinite values count.

    Returns:
        (…) in dB; NaN where all frames are NaN.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # about no frames
        return torch.as_tensor(np.nanmedian(frames.cpu().numpy(), axis=-1))


def global_sdr(reference: Tensor, estimate: Tensor) -> Tensor:
    """10 log10(sum reference² / sum (reference - estimate)²), over all channels and samples.

    Args:
        reference: (… c t) true signal on any device.
        estimate: (… c t) its estimate.

    Returns:
        float64 (…) in dB: NaN where the reference is silent, inf where the estimate is exact. On
        the CPU when the device has no float64.

    Raises:
        ValueError: the shapes differ or have fewer than two axes.
    """
    _check(reference, estimate)
    signal = error = torch.zeros(reference.shape[:-2], dtype=torch.float64)
    for start in range(0, reference.shape[-1], BLOCK):
        block, guess = _double(reference, estimate, slice(start, start + BLOCK))
        signal = signal.to(block.device) + _energy(block)
        error = error.to(block.device) + _energy(block - guess)
    return _ratio(signal, error)


def ideal_mask(stem: Tensor, mixture: Tensor, config: STFTConfig) -> Tensor:
    """Separate a stem with the mask that knows the answer: min(|S| / |X|, 1) on X's phase.

    This is where a mask of magnitudes ends that makes no error. It is not the best mask in
    [0, 1] there is: one that may lower a bin because its phase is wrong scores 1.5 to 2 dB more.

    Args:
        stem: (… c t) true stem, S.
        mixture: (… c t) mixture that contains it, X.
        config: the transform in which the mask is applied.

    Returns:
        float32 (… c t), worked out block by block and equal to the whole signal at once.
    """
    _check(stem, mixture)
    parts = [
        _masked(stem[..., outer], mixture[..., outer], config)[..., inner]
        for outer, inner in _blocks(stem.shape[-1], config)
    ]
    return torch.cat(parts, dim=-1) if parts else torch.zeros_like(mixture)


def _masked(stem: Tensor, mixture: Tensor, config: STFTConfig) -> Tensor:
    """Mask one block (… c t)."""
    spectrogram = stft(mixture, config)
    magnitude = spectrogram.abs()
    mask = (stft(stem, config).abs() / magnitude.clamp(min=1e-12)).clamp(max=1)
    return istft(spectrogram * mask, config, mixture.shape[-1])


def _blocks(samples: int, config: STFTConfig) -> Iterator[tuple[slice, slice]]:
    """Spans of a signal with context on both sides, and where the block lies in each span.

    Starts are multiples of the hop, so a block has the whole signal's frames; a sample depends on
    others up to one window away, which is the context.
    """
    context = -(-config.n_fft // config.hop) * config.hop
    step = max(1, BLOCK // config.hop) * config.hop
    for start in range(0, samples, step):
        first = max(0, start - context)
        stop = min(start + step, samples)
        yield slice(first, min(stop + context, samples)), slice(start - first, stop - first)


def _one_frame(reference: Tensor, estimate: Tensor) -> Tensor:
    """Ratio of one frame (s c t) for each stem (s), NaN for all when one of them is silent."""
    ratio = _ratio(_energy(reference), _energy(reference - estimate))
    sums = torch.cat([reference, estimate]).sum(dim=-2)  # museval adds the channels first
    silent = (sums == 0).all(dim=-1).any()
    return torch.where(silent, torch.nan, ratio)


def _energy(wave: Tensor) -> Tensor:
    """Sum of squares over channels and samples: (… c t) to (…)."""
    return wave.square().sum(dim=(-2, -1))


def _ratio(signal: Tensor, error: Tensor) -> Tensor:
    """Energies to dB; NaN where there is no signal."""
    return torch.where(signal > 0, 10 * torch.log10(signal / error), torch.nan)


def _double(reference: Tensor, estimate: Tensor, span: slice) -> tuple[Tensor, Tensor]:
    """Take a span of both, in float64."""
    pair = reference[..., span], estimate[..., span]
    if reference.device.type == "mps":  # has no float64
        pair = pair[0].cpu(), pair[1].cpu()
    return pair[0].double(), pair[1].double()


def _check(reference: Tensor, estimate: Tensor, dims: int | None = None) -> None:
    """Refuse shapes that would broadcast into a wrong number."""
    if reference.shape != estimate.shape:
        shapes = f"{tuple(reference.shape)} and {tuple(estimate.shape)}"
        raise ValueError(f"reference and estimate must have one shape, not {shapes}")
    if reference.ndim < 2 or (dims and reference.ndim != dims):
        wanted = "(s c t)" if dims else "(… c t)"
        raise ValueError(f"expected {wanted}, not the shape {tuple(reference.shape)}")

"""Read a file, or a slice of it, as a tensor; change the sampling rate of a tensor."""

import math
import os

import torch
from torch import Tensor

from separator.audio.decoding import read_array
from separator.audio.resampler import Resampler


def read(
    path: str | os.PathLike, start: int = 0, samples: int | None = None, *, stream: int = 0
) -> Tensor:
    """Read a part of a file as a tensor (c t); path, start, samples, stream: see `read_array`."""
    return torch.from_numpy(read_array(path, start, samples, stream=stream))


def resample(wave: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """Change the sampling rate (soxr, quality HQ); the same samples as of a `Resampler`.

    Args:
        wave: (… t) float32.
        from_rate: of the wave, in Hz.
        to_rate: of the result, in Hz.

    Returns:
        (… ceil(t * to_rate / from_rate)); `wave` itself where the rates are equal.
    """
    if from_rate == to_rate:
        return wave
    flat = wave.detach().reshape(math.prod(wave.shape[:-1]), wave.shape[-1]).cpu().numpy()
    stream = Resampler(from_rate, to_rate, flat.shape[0])
    out = torch.cat([torch.from_numpy(part) for part in (stream.push(flat), stream.flush())], dim=1)
    return out.reshape(*wave.shape[:-1], out.shape[1]).to(wave.device)

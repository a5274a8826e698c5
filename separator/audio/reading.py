"""Read a file, or a slice of it, as a tensor."""

import os

import torch
from torch import Tensor

from separator.audio.decoding import read_array


def read(
    path: str | os.PathLike, start: int = 0, samples: int | None = None, *, stream: int = 0
) -> Tensor:
    """Decode a part of a file into a tensor, as `read_array` does into an array.

    Args:
        path: the file.
        start: first sample.
        samples: how many; to the end when not given.
        stream: one of several audio streams (.stem.mp4).

    Returns:
        (c t) float32.

    Raises:
        AudioError: more than a little does not decode.
        ValueError: `start` or `samples` is negative.
    """
    return torch.from_numpy(read_array(path, start, samples, stream=stream))

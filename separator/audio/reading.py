"""Read files as tensors: a slice, or the whole in blocks."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from separator.audio.decoding import decoded, probe, regrouped


def read(
    path: str | os.PathLike, start: int = 0, samples: int | None = None, *, stream: int = 0
) -> Tensor:
    """Decode (c t) float32 from sample `start`, at the file's rate; shorter only at its end.

    `stream` picks one of several audio streams (.stem.mp4). Nothing is clipped or normalised.

    Raises:
        AudioError: as `probe`, and when decoding fails or ends before the header says.
        ValueError: `start` or `samples` is negative.
    """
    path = Path(path)
    if start < 0 or (samples is not None and samples < 0):
        raise ValueError(f"read: start and samples must not be negative ({start}, {samples})")
    stop = None if samples is None else start + samples
    parts = list(decoded(path, start, stop, 1 << 20, stream))
    if not parts:
        return torch.zeros(probe(path, stream=stream).channels, 0)
    whole = np.concatenate(parts, axis=1) if len(parts) > 1 else np.ascontiguousarray(parts[0])
    return torch.from_numpy(whole)


def blocks(
    path: str | os.PathLike, size: int = 1 << 18, *, stream: int = 0, strict: bool = False
) -> Iterator[Tensor]:
    """Decode a whole file in order as (c t) with t = size, the last one shorter.

    `strict` refuses what is damaged.

    Raises:
        AudioError: as `read`; a truncated file raises at the latest where it breaks off.
    """
    path = Path(path)
    probe(path, stream=stream)  # sees a truncated container before anything is handed out
    for block in regrouped(decoded(path, 0, None, size, stream), size):
        yield torch.from_numpy(block)

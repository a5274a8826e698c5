"""Read files as tensors: a slice, or the whole in blocks."""

import logging
import os
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from separator.audio.damage import Damage
from separator.audio.decoding import regrouped
from separator.audio.sources import source_of
from separator.errors import printable

log = logging.getLogger(__name__)


def read(
    path: str | os.PathLike, start: int = 0, samples: int | None = None, *, stream: int = 0
) -> Tensor:
    """Decode a part of a file, at the file's rate.

    Nothing is clipped or normalised. Damage is silence, or missing where its length is unknown: at
    most 1 s or 1 % of the whole.

    Args:
        path: the file.
        start: first sample.
        samples: how many; to the end when not given.
        stream: one of several audio streams (.stem.mp4).

    Returns:
        (c t) float32, shorter than asked for only at the file's end.

    Raises:
        AudioError: as `probe`, and when more than that does not decode.
        ValueError: `start` or `samples` is negative.
    """
    if start < 0 or (samples is not None and samples < 0):
        raise ValueError(f"read: start and samples must not be negative ({start}, {samples})")
    source = source_of(path, stream)
    info = source.info
    stop = info.samples if samples is None else min(start + samples, info.samples)
    damage = Damage(info.path, info.rate)
    parts = list(source.decode(start, stop, 1 << 20, damage))
    damage.check(info.samples)
    if not parts:
        return torch.zeros(info.channels, 0)
    whole = np.concatenate(parts, axis=1) if len(parts) > 1 else np.ascontiguousarray(parts[0])
    return torch.from_numpy(whole)


def blocks(
    path: str | os.PathLike, size: int = 1 << 18, *, stream: int = 0, strict: bool = False
) -> Iterator[Tensor]:
    """Decode a whole file in order.

    Damage is silence, or left out where its length is unknown, and a warning is logged.

    Args:
        path: the file.
        size: samples of a block.
        stream: one of several audio streams.
        strict: raise where the damage is, instead.

    Yields:
        (c t) with t = size, the last one shorter.

    Raises:
        AudioError: as `probe`; more than half of it does not decode.
    """
    source = source_of(path, stream)
    info = source.info
    damage = Damage(info.path, info.rate, strict)
    for block in regrouped(source.decode(0, None, size, damage), size):
        yield torch.from_numpy(block)
    for notice in damage.notices():
        log.warning("%s: %s", printable(str(info.path)), notice)
    damage.check(info.samples, info.samples // 2)

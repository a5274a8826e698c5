"""The stems of one song in one file of 32-bit floats, from which they are played and mixed."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

BARS = 1000  # of a waveform
MAX_READ_BYTES = 4 << 20  # at most, of what is read at once


class Spool:
    """Stems written a chunk at a time and read at any place.

    The file holds frames: of each sample the stems in turn, of each stem its channels. It is
    written by one thread and, once complete, read by several.

    Args:
        path: the file, which is made anew.
        names: the stems, which add up to the mixture.
        channels: 1 or 2.
        samples: how many are expected of each channel; the waveform's resolution.
    """

    def __init__(self, path: Path, names: tuple[str, ...], channels: int, samples: int) -> None:
        self.path, self.names, self.channels = path, names, channels
        self.samples, self.peak = 0, 0.0
        self.bar = max(1, -(-samples // BARS))  # samples of it
        self._bars = np.zeros((len(names) + 1, 0), dtype=np.float32)
        path.write_bytes(b"")

    @property
    def frame_bytes(self) -> int:
        """Bytes of a sample of all stems and channels."""
        return 4 * len(self.names) * self.channels

    def write(self, stems: Tensor) -> None:
        """Append the next samples.

        Args:
            stems: (s c t), in the order of `names`.
        """
        chunk = stems.float().cpu().numpy()
        with self.path.open("ab") as file:
            file.write(np.ascontiguousarray(chunk.transpose(2, 0, 1), dtype="<f4").data)
        if chunk.shape[-1]:
            self.peak = max(self.peak, float(np.abs(chunk).max()))
            self._measure(np.abs(np.concatenate([chunk.sum(0, keepdims=True), chunk])).max(1))
        self.samples += chunk.shape[-1]

    def _measure(self, loudness: np.ndarray) -> None:
        """Fold absolute values (s t) of the next samples into the waveforms' bars."""
        bars = np.arange(self.samples, self.samples + loudness.shape[-1]) // self.bar
        starts = np.flatnonzero(np.diff(bars, prepend=-1))
        peaks = np.maximum.reduceat(loudness, starts, axis=-1)
        first, last = bars[0], bars[-1]
        grown = np.zeros((len(loudness), last + 1), dtype=np.float32)
        grown[:, : self._bars.shape[1]] = self._bars
        grown[:, first:] = np.maximum(grown[:, first:], peaks)
        self._bars = grown

    def waveform(self) -> dict[str, list[int]]:
        """Return the peaks of "mixture" and of each stem: BARS or so integers from 0 to 255."""
        scaled = np.clip(np.round(self._bars * 255), 0, 255).astype(int)
        return dict(zip(("mixture", *self.names), scaled.tolist(), strict=True))

    def read(self, start: int, count: int) -> bytes:
        """Return frames as little-endian floats.

        Args:
            start: the first frame.
            count: how many; there are fewer at the song's end, and MAX_READ_BYTES at most.
        """
        count = min(count, MAX_READ_BYTES // self.frame_bytes)
        with self.path.open("rb") as file:
            file.seek(start * self.frame_bytes)
            return file.read(count * self.frame_bytes)

    def blocks(self) -> Iterator[Tensor]:
        """Yield all of it as (s c t)."""
        with self.path.open("rb") as file:
            while data := file.read((1 << 16) * self.frame_bytes):
                frames = torch.frombuffer(bytearray(data), dtype=torch.float32)
                yield frames.view(-1, len(self.names), self.channels).permute(1, 2, 0)

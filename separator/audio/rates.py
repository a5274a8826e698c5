"""Change the sampling rate, of a whole or of a stream (soxr)."""

import math

import numpy as np
import soxr
import torch
from torch import Tensor

_PIECE = 1 << 18  # samples in and out of one call


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
    flat = wave.detach().reshape(math.prod(wave.shape[:-1]), wave.shape[-1]).cpu()
    stream = Resampler(from_rate, to_rate, flat.shape[0])
    out = torch.cat([stream.push(flat), stream.flush()], dim=1)
    return out.reshape(*wave.shape[:-1], out.shape[1]).to(wave.device)


class Resampler:
    """Change the rate of a stream; the outputs together equal `resample` of the whole."""

    def __init__(self, from_rate: int, to_rate: int, channels: int) -> None:
        self.from_rate, self.to_rate, self.channels = from_rate, to_rate, channels
        self._taken = self._given = 0
        self._soxr = None
        if from_rate != to_rate:
            self._soxr = soxr.ResampleStream(
                from_rate, to_rate, channels, dtype="float32", quality="HQ"
            )

    def push(self, wave: Tensor) -> Tensor:
        """Take samples and return output that is ready.

        Args:
            wave: (c t) float32.

        Returns:
            (c t'), perhaps empty.
        """
        if self._soxr is None:
            return wave
        self._taken += wave.shape[-1]
        return self._run(wave, last=False)

    def flush(self) -> Tensor:
        """Return the rest of the output (c t'); the stream is over."""
        if self._soxr is None:
            return torch.zeros(self.channels, 0)
        # soxr rounds the length down; a little silence after the end makes it a sample longer
        silence = torch.zeros(self.channels, 4 * (self.from_rate // self.to_rate + 1))
        total = -(-self._taken * self.to_rate // self.from_rate)
        return self._run(silence, last=True)[:, : total - self._given]

    def _run(self, wave: Tensor, last: bool) -> Tensor:
        """Resample in pieces, each of them soon done: an interrupt waits for no more than one."""
        size = max(min(_PIECE, _PIECE * self.from_rate // self.to_rate), 1)
        frames = wave.numpy().T
        starts = range(0, max(len(frames), 1), size)
        pieces = [
            self._soxr.resample_chunk(
                np.ascontiguousarray(frames[at : at + size]), last=last and at == starts[-1]
            )
            for at in starts
        ]
        out = np.concatenate(pieces).T
        self._given += out.shape[1]
        return torch.from_numpy(np.ascontiguousarray(out))

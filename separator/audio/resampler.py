"""Change the sampling rate of a stream of arrays (soxr)."""

import numpy as np
import soxr

_PIECE = 1 << 18  # samples in and out of one call


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

    def push(self, wave: np.ndarray) -> np.ndarray:
        """Take samples and return output that is ready.

        Args:
            wave: (c t) float32.

        Returns:
            (c t'), perhaps empty.
        """
        if self._soxr is None:
            return wave
        self._taken += wave.shape[-1]
        return self._run(self._soxr, wave, last=False)

    def flush(self) -> np.ndarray:
        """Return the rest of the output (c t'); the stream is over."""
        if self._soxr is None:
            return np.zeros((self.channels, 0), np.float32)
        # soxr rounds the length down; a little silence after the end makes it a sample longer
        silence = np.zeros((self.channels, 4 * (self.from_rate // self.to_rate + 1)), np.float32)
        total = -(-self._taken * self.to_rate // self.from_rate)
        return self._run(self._soxr, silence, last=True)[:, : total - self._given]

    def _run(self, stream: soxr.ResampleStream, wave: np.ndarray, last: bool) -> np.ndarray:
        """Resample in pieces, each of them soon done: an interrupt waits for no more than one."""
        size = max(min(_PIECE, _PIECE * self.from_rate // self.to_rate), 1)
        frames = wave.T
        starts = range(0, max(len(frames), 1), size)
        pieces = []
        for at in starts:
            piece = np.ascontiguousarray(frames[at : at + size])
            pieces.append(stream.resample_chunk(piece, last=last and at == starts[-1]))
        out = np.concatenate(pieces).T
        self._given += out.shape[1]
        return np.ascontiguousarray(out)

"""Weights of the losses."""

from dataclasses import dataclass

from separator.errors import SeparatorError
from separator.ranges import require


@dataclass(frozen=True)
class LossConfig:
    """Weights of the losses; 0 leaves one out.

    Attributes:
        magnitude: L1 between masked and true magnitudes of the accompaniment, compressed.
        wave: L1 between waves, relative to the accompaniment's RMS.
        sdr: energy of the waves' difference relative to the accompaniment's, in decibels; some
            hundred times as large as the others, so 0.1 is much.
        multi_stft: multi-resolution STFT loss of auraloss (spectral convergence + log magnitude).
    """

    magnitude: float = 1.0
    wave: float = 0.0
    sdr: float = 0.0
    multi_stft: float = 0.0

    def __post_init__(self) -> None:
        weights = vars(self)
        require(self, "[0, 1000000]", *(f"loss.{name}" for name in weights))
        if not any(weights.values()):
            raise SeparatorError("loss: all weights are 0; give loss.magnitude or another one")

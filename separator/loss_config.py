"""Weights of the losses."""

from dataclasses import dataclass
from typing import Annotated

from separator.ranges import CheckedConfig, Within


@dataclass(frozen=True)
class LossConfig(CheckedConfig):
    """Weights of the losses; 0 leaves one out.

    Attributes:
        magnitude: L1 between masked and true magnitudes of the accompaniment, compressed.
        wave: L1 between waves, relative to the accompaniment's RMS.
        sdr: energy of the waves' difference relative to the accompaniment's, in decibels; some
            hundred times as large as the others, so 0.1 is much.
        multi_stft: multi-resolution STFT loss of auraloss (spectral convergence + log magnitude).
    """

    magnitude: Annotated[float, Within("[0, 1000000]")] = 1.0
    wave: Annotated[float, Within("[0, 1000000]")] = 0.0
    sdr: Annotated[float, Within("[0, 1000000]")] = 0.0
    multi_stft: Annotated[float, Within("[0, 1000000]")] = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not any(vars(self).values()):
            raise self.invalid("magnitude", "all weights are 0; give this or another one")

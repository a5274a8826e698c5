"""The configuration that training on stems reads."""

from typing import Protocol

from separator.data.config import DataConfig
from separator.dsp.config import STFTConfig
from separator.models.config import Sizes
from separator.stems import StemSet


class SupervisedConfig(Protocol):
    """The part of a run's configuration that this task reads."""

    data: DataConfig
    stft: STFTConfig
    loss: dict[str, float]
    sizes: Sizes
    stems: StemSet
    rate: int
    seed: int
    device: str
    valid_seconds: float

"""The configuration that training on stems reads."""

from dataclasses import dataclass, field
from typing import Annotated

from separator.data.config import DataConfig
from separator.dsp.config import STFTConfig
from separator.engine.run_config import RunConfig
from separator.loss_config import DEFAULT_LOSS, check_weights
from separator.models.registry import ModelChoice
from separator.ranges import Within


@dataclass(frozen=True, kw_only=True)
class SupervisedConfig(ModelChoice, RunConfig):
    """Settings that both trainers have.

    Attributes:
        data: songs with stems.
        stft: the transform and the scale on which the model sees magnitudes.
        loss: weights by name: magnitude_l1 (compressed magnitudes), wave_l1 (relative to the
            target's RMS), sdr (in decibels, about a hundred times larger than the others, so that
            0.1 is a large weight), or a class of auraloss, such as MultiResolutionSTFTLoss. A
            file's losses replace those before it.
        valid_seconds: at most this many seconds of each validation song are scored (0: all of it).
    """

    data: DataConfig
    stft: STFTConfig = field(default_factory=STFTConfig)
    loss: dict[str, float] = field(default_factory=DEFAULT_LOSS.copy)
    valid_seconds: Annotated[float, Within("[0, inf)")] = 60.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_weights(self.loss)

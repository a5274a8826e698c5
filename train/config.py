"""What `separator train` can be told."""

from dataclasses import dataclass, field
from typing import Literal

from separator.data.loader import DataConfig
from separator.engine.task import RunConfig
from separator.losses import LossConfig
from separator.models import ModelChoice
from separator.ranges import require
from separator.stft import STFTConfig
from separator.train.specaugment import SpecAugmentConfig


@dataclass(frozen=True, kw_only=True)
class TrainConfig(ModelChoice, RunConfig):
    """Train on songs with stems, from scratch or from a pretrained file.

    Attributes:
        data: songs with stems.
        stft: the transform and the scale on which the model sees magnitudes.
        loss: weights of the losses.
        pretrained: model file of `separator pretrain` to start from; empty starts from scratch.
        head: whether the last layer of a pretrained model is kept or starts anew.
        layer_decay: factor on the learning rate from each stage of a pretrained model to the one
            below it (1 trains all alike).
        specaugment: blocks of the mixture that are set to 0.
        valid_seconds: most seconds of each validation song that are scored (0 takes all).
    """

    data: DataConfig
    run: str = "runs/train"
    stft: STFTConfig = field(default_factory=STFTConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    pretrained: str = ""
    head: Literal["keep", "reset"] = "reset"
    layer_decay: float = 1.0
    specaugment: SpecAugmentConfig = field(default_factory=SpecAugmentConfig)
    valid_seconds: float = 60.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "(0, 1]", "layer_decay")
        require(self, "[0, inf)", "valid_seconds")

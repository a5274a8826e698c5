"""The configuration of `separator train`."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from separator.ranges import CheckedConfig, Within
from separator.supervised.config import SupervisedConfig


@dataclass(frozen=True)
class SpecAugmentConfig(CheckedConfig):
    """Set blocks of the mixture's spectrogram to 0 in training.

    Attributes:
        time_blocks: blocks of frames in each crop, all bins of them (0: none).
        seconds: largest width of a block of frames; widths are uniform from 0 to it.
        frequency_blocks: blocks of bins in each crop, in all frames (0: none).
        hertz: largest width of a block of bins.
        target: alike sets the same blocks of the target to 0; whole keeps the target, so that the
            network has to guess a hidden block from its surroundings.
        positions: random; or peas, which puts a growing number of blocks where the network's
            prediction error is largest.
        fixed_late: in the last fifth of the run give every block the expected width, half of the
            largest, as in the published PEAS.
        epochs: parts of the run that the schedule of peas counts as epochs.
    """

    time_blocks: Annotated[int, Within("[0, 100]")] = 0
    seconds: Annotated[float, Within("[0, 600]")] = 0.5
    frequency_blocks: Annotated[int, Within("[0, 100]")] = 0
    hertz: Annotated[float, Within("[0, 400000]")] = 1000.0
    target: Literal["alike", "whole"] = "alike"
    positions: Literal["random", "peas"] = "random"
    fixed_late: bool = False
    epochs: Annotated[int, Within("[1, 10000]")] = 25

    @property
    def on(self) -> bool:
        """Whether anything is masked."""
        return self.time_blocks + self.frequency_blocks > 0


@dataclass(frozen=True, kw_only=True)
class TrainConfig(SupervisedConfig):
    """Train on songs with stems, from scratch or from a pretrained file.

    Attributes:
        pretrained: model file of `separator pretrain` to start from; empty starts from scratch.
        head: whether the last layer of a pretrained model is kept or starts anew.
        grow: start from a pretrained model that is smaller than `model.*` says, with the same masks
            (only model.channels, encoder_blocks, decoder_blocks and ffn_dim may be larger).
        layer_decay: factor of the learning rate from each group of a pretrained model's layers to
            the group before it, nearer to the input; 1 trains all alike.
        frozen_steps: number of first steps in which only the last layer of a pretrained model and
            its mask bias are trained.
        specaugment: blocks of the mixture that are set to 0.
    """

    run: str = "runs/train"
    pretrained: str = ""
    head: Literal["keep", "reset"] = "reset"
    grow: bool = False
    layer_decay: Annotated[float, Within("(0, 1]")] = 1.0
    frozen_steps: Annotated[int, Within("[0, inf)")] = 0
    specaugment: SpecAugmentConfig = field(default_factory=SpecAugmentConfig)

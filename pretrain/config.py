"""The configuration of `separator pretrain`.

Modules that import torch are imported where they are used: `--help` does not wait for it.
"""

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

from separator.engine.run_config import OptimConfig
from separator.errors import SeparatorError
from separator.loss_config import DEFAULT_LOSS
from separator.pretrain import schedules
from separator.pretrain.crops import Crops
from separator.pretrain.masking.config import MaskConfig
from separator.pretrain.objectives import (
    OBJECTIVES,
    PRIMARY,
    Objective,
    PrimaryObjective,
    all_settings,
)
from separator.pretrain.schedules import Schedule
from separator.ranges import Within
from separator.stems import TWO_STEMS
from separator.supervised.config import SupervisedConfig


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(all_settings(), SupervisedConfig):
    """Pretrain on songs without stems, by default by restoring masked frames with a sigmoid mask.

    Other objectives separate, as training on stems does: `remix` removes isolated voices that were
    mixed with songs, `teacher` learns from the stems that trained models estimate, `mixit` splits
    sums of two songs.

    Weights and `crop_frames` are numbers, or [[step, value], …]: weights follow straight lines
    from one to the next, the crop's length jumps.

    Attributes:
        objective: restore restores masked patches; remix, teacher and mixit learn to separate.
            `mask`, `error`, `masked_weight`, `unmasked_weight`, `crop_frames`, `balance` and the
            objectives beside the masked error apply to restore only.
        data: songs of any kind; where songs have stems, all objectives but remix use their sum.
        optim: optimizer and learning-rate schedule.
        mask: which patches are masked, and how.
        error: error on the patches: mean absolute (l1) or mean squared (mse).
        masked_weight: weight of the error on the chosen patches; a number, or [[step, weight], …].
        unmasked_weight: weight of the error on the other patches.
        crop_frames: frames of a crop; each segment is cut into as many crops as it holds (0: the
            whole segment is one crop).
        balance: scale each objective beside the masked error so that the norm of its gradient is
            `weight` times the masked error's; otherwise `weight` is a plain factor.
        loss: weights of the losses of remix and teacher.
        valid_crops: crops of validation songs that are scored, always the same; for remix and
            teacher, the largest number of validation songs.
        valid_seconds: remix and teacher score at most this many seconds of each validation song (0:
            all of it).
    """

    objective: Literal[tuple(PRIMARY)] = "restore"
    run: str = "runs/pretrain"
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=1e-3))
    mask: MaskConfig = field(default_factory=MaskConfig)
    error: Literal["l1", "mse"] = "l1"
    masked_weight: Schedule = 1.0
    unmasked_weight: Schedule = 0.0
    crop_frames: Schedule = 0
    balance: bool = True
    valid_crops: Annotated[int, Within("[1, 65536]")] = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.primary.separates and self.loss != DEFAULT_LOSS:
            users = [f"objective={key}" for key, one in PRIMARY.items() if one.separates]
            raise SeparatorError(
                f"loss: only {' and '.join(users)} use it; leave it out, or give presets of train/ "
                "to `separator train`"
            )
        if self.stems != TWO_STEMS and not self.primary.any_stems:
            users = [f"objective={key}" for key, one in PRIMARY.items() if one.any_stems]
            raise SeparatorError(
                f"model.stems: pretraining without {' or '.join(users)} has one mask, from which "
                "training for any stems can start; leave it out"
            )
        self.primary.check()

    @property
    def primary(self) -> PrimaryObjective:
        """The run's objective."""
        return PRIMARY[self.objective](getattr(self, self.objective, None), self)

    @property
    def objectives(self) -> list[Objective]:
        """Objectives beside the masked error, those that train a discriminator last.

        Each call makes new ones.
        """
        objectives = [
            objective(getattr(self, key), self)
            for key, objective in OBJECTIVES.items()
            if schedules.enabled(getattr(self, key).weight)
        ]
        return sorted(objectives, key=lambda objective: objective.meeting_point == "restored")

    @property
    def crops(self) -> Crops:
        """The way in which crops are made of waves."""
        made = [crops for objective in self.objectives if (crops := objective.crops())]
        return made[0] if made else Crops(self)

    @property
    def segment_frames(self) -> int:
        """Frames of a segment."""
        return math.ceil(self.data.segment_seconds * self.rate / self.stft.hop) + 1

    @property
    def shortest_crop(self) -> int:
        """Frames of the shortest crops of the run.

        Raises:
            SeparatorError: `crop_frames` is longer than a segment.
        """
        frames = self.segment_frames
        longest = schedules.highest(self.crop_frames)
        if longest > frames:
            raise SeparatorError(
                f"crop_frames: {longest:g}, but a segment has {frames}; use a longer "
                "data.segment_seconds"
            )
        return int(min(value or frames for _, value in schedules.pairs(self.crop_frames)))

"""The configuration of `separator pretrain`.

Modules that import torch are imported where they are used: `--help` does not wait for it.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

from separator.data.config import DataConfig
from separator.dsp.config import STFTConfig
from separator.engine.run_config import OptimConfig, RunConfig
from separator.errors import SeparatorError
from separator.loss_config import DEFAULT_LOSS, check_weights
from separator.models.registry import ModelChoice
from separator.pretrain import schedules
from separator.pretrain.crops import Crops
from separator.pretrain.masking.config import MaskConfig
from separator.pretrain.objectives import OBJECTIVES, Objective, all_settings
from separator.pretrain.schedules import Schedule
from separator.pretrain.separation_config import MixitConfig, RemixConfig, TeacherConfig
from separator.ranges import require
from separator.stems import TWO_STEMS


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(all_settings(), ModelChoice, RunConfig):
    """Pretrain on mixed songs: mask groups of frames and restore them with a sigmoid mask.

    Other objectives separate, as training on stems does: `remix` removes isolated voices that were
    mixed with songs, `teacher` learns from the stems that trained models estimate, `mixit` takes
    sums of two songs apart.

    Weights and `crop_frames` are numbers, or [[step, value], …]: weights follow straight lines
    from one to the next, the crop's length jumps.

    Attributes:
        objective: restore fills in masked patches; remix, teacher and mixit separate. `mask`,
            `error`, `masked_weight`, `unmasked_weight`, `crop_frames`, `balance` and the objectives
            beside the masked error apply to restore only.
        data: songs of any kind; all but remix use the sum of stems, where there are any.
        optim: optimizer and learning-rate schedule.
        stft: the transform and the scale on which the model sees magnitudes.
        mask: which patches are masked, and how.
        error: mean absolute or mean squared error.
        masked_weight: weight of the error on chosen patches.
        unmasked_weight: weight of the error on the others.
        crop_frames: frames of a crop; segments are cut into so many crops as they hold (0: one).
        balance: take the weight of each objective beside the masked error as the norm of its
            gradient, a share of the masked error's; otherwise as a plain factor.
        remix: which voices are mixed with the songs, and how.
        teacher: which models separate the songs, and which crops are learned from.
        mixit: into how many parts a sum of two songs is split.
        loss: weights of the losses of remix and teacher.
        valid_crops: crops of validation songs that are scored, always the same; for remix and
            teacher, the largest number of validation songs.
        valid_seconds: most seconds of each validation song that remix and teacher score (0: all).
    """

    data: DataConfig
    objective: Literal["restore", "remix", "teacher", "mixit"] = "restore"
    run: str = "runs/pretrain"
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=1e-3))
    stft: STFTConfig = field(default_factory=STFTConfig)
    mask: MaskConfig = field(default_factory=MaskConfig)
    error: Literal["l1", "mse"] = "l1"
    masked_weight: Schedule = 1.0
    unmasked_weight: Schedule = 0.0
    crop_frames: Schedule = 0
    balance: bool = True
    remix: RemixConfig = field(default_factory=RemixConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    mixit: MixitConfig = field(default_factory=MixitConfig)
    loss: dict[str, float] = field(default_factory=DEFAULT_LOSS.copy)
    valid_crops: int = 64
    valid_seconds: float = 60.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_weights(self.loss)
        require(self, "[1, 65536]", "valid_crops")
        require(self, "[0, inf)", "valid_seconds")
        if self.objective not in ("remix", "teacher") and self.loss != DEFAULT_LOSS:
            raise SeparatorError(
                "loss: only objective=remix and objective=teacher use it; leave it out, or give "
                "presets of train/ to `separator train`"
            )
        if self.stems != TWO_STEMS:
            raise SeparatorError(
                "model.stems: pretraining has one mask, from which training for any stems can "
                "start; leave it out"
            )
        if self.objective != "restore":
            getattr(self, self.objective).check(self)
            return
        for key in ("masked_weight", "unmasked_weight", "crop_frames"):
            if reason := schedules.refusal(getattr(self, key)):
                raise SeparatorError(f"{key}: {reason}")
        weights = self.masked_weight, self.unmasked_weight
        steps = {int(step) for weight in weights for step, _ in schedules.pairs(weight)}
        if not all(sum(schedules.value(weight, step) for weight in weights) for step in steps):
            raise SeparatorError(
                "masked_weight, unmasked_weight: both are 0 at a step; 1 and 0 are usual"
            )
        frames_per_second = self.rate / self.stft.hop
        for key in ("mask", *OBJECTIVES):  # some lengths may be in seconds
            object.__setattr__(self, key, getattr(self, key).in_frames(frames_per_second))
        self._check_mask()
        self._check_objectives()

    @property
    def objectives(self) -> list[Objective]:
        """Objectives beside the masked error, those that train a discriminator last.

        Each call makes new ones.
        """
        found = [
            objective(getattr(self, key), self)
            for key, objective in OBJECTIVES.items()
            if schedules.enabled(getattr(self, key).weight)
        ]
        return sorted(found, key=lambda objective: objective.meeting_point == "restored")

    @property
    def crops(self) -> Crops:
        """How crops are made of the waves."""
        made = [crops for objective in self.objectives if (crops := objective.crops())]
        return made[0] if made else Crops(self)

    def _check_objectives(self) -> None:
        """Refuse combinations of objectives that cannot be."""
        predicting = [key for key, objective in OBJECTIVES.items() if objective.predicts_errors]
        active = self.objectives
        predicted = any(objective.predicts_errors for objective in active)
        if self.mask.chosen_strategy.predicted_error != predicted:
            weight = f"{predicting[0]}.weight"
            raise SeparatorError(
                f"mask.strategy, {weight}: hard patches are chosen by a predictor, trained with "
                f"that weight; give mask.strategy=hard and a {weight} above 0, or neither"
            )
        inside = [objective.key for objective in active if objective.meeting_point != "restored"]
        if inside and self.compile and self.balance:
            raise SeparatorError(
                f"compile: the gradients of {', '.join(inside)} cannot be balanced in a compiled "
                "model; give compile=false, or balance=false"
            )
        for objective in active:
            if objective.needs_masked and not self.mask.mask:
                raise SeparatorError(
                    f"mask.mask: 0 masks no patch, but {objective.key} is about masked ones; give "
                    "a share"
                )
            objective.check()

    def _check_mask(self) -> None:
        """Refuse patches that would cover whole crops, or none."""
        mask, bins, strategy = self.mask, self.stft.bins - 1, self.mask.chosen_strategy
        if mask.band and bins % mask.band:
            raise SeparatorError(
                f"mask.band: {mask.band} does not divide {bins} bins (stft.n_fft / 2)"
            )
        if strategy.bands and not 0 < mask.band * mask.band_span < bins:
            raise SeparatorError(
                f"mask.band, mask.band_span: {mask.band} x {mask.band_span} bins of {bins}; "
                f"{mask.strategy} needs at least 1 and less than all"
            )
        if mask.mix and self.data.batch < 2:
            raise SeparatorError(
                "mask.mix: mixes a crop with another one of its batch; give data.batch of 2 up"
            )
        frames = self.shortest_crop
        if 2 * mask.group > frames:
            raise SeparatorError(
                f"mask.group: {mask.group} frames, but the shortest crops have {frames}, "
                "which must be two groups or more; use smaller ones, or longer data.segment_seconds"
            )
        longest = strategy.longest_run * mask.span * mask.group
        if longest >= frames:
            raise SeparatorError(
                f"mask.span: runs of up to {longest} frames, but the shortest crops have {frames}; "
                "use a smaller mask.span or mask.group, or longer crops"
            )

    @property
    def segment_frames(self) -> int:
        """Frames of a segment."""
        return math.ceil(self.data.segment_seconds * self.rate / self.stft.hop) + 1

    @property
    def shortest_crop(self) -> int:
        """Frames of the shortest crops of the run."""
        frames = self.segment_frames
        longest = schedules.highest(self.crop_frames)
        if longest > frames:
            raise SeparatorError(
                f"crop_frames: {longest:g}, but a segment has {frames}; use a longer "
                "data.segment_seconds"
            )
        return int(min(value or frames for _, value in schedules.pairs(self.crop_frames)))

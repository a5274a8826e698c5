"""What `separator pretrain` can be told."""

import math
from dataclasses import dataclass, field
from typing import Literal

from separator.data.loader import DataConfig
from separator.engine.task import RunConfig
from separator.errors import SeparatorError
from separator.models import ModelConfig
from separator.pretrain.masks import BANDS, RUNS, STRATEGIES
from separator.pretrain.masks.config import MaskConfig
from separator.stft import STFTConfig


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(RunConfig):
    """Pretrain on mixed songs: hide groups of frames and restore them with a sigmoid mask.

    Attributes:
        data: songs of any kind; of songs with stems the sum is used.
        stft: the transform and the scale on which the model sees magnitudes.
        model: sizes of the model.
        mask: which cells are hidden, and how.
        error: mean absolute or mean squared error.
        masked_weight: weight of the error on chosen cells.
        unmasked_weight: weight of the error on the others.
        valid_crops: crops of validation songs that are scored, always the same.
    """

    data: DataConfig
    run: str = "runs/pretrain"
    stft: STFTConfig = field(default_factory=STFTConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    mask: MaskConfig = field(default_factory=MaskConfig)
    error: Literal["l1", "mse"] = "l1"
    masked_weight: float = 1.0
    unmasked_weight: float = 0.0
    valid_crops: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        weights = (self.masked_weight, self.unmasked_weight)
        if min(weights) < 0 or not any(weights):
            raise SeparatorError(
                "masked_weight, unmasked_weight: 0 or more each, and not both 0; 1 and 0 are usual"
            )
        self._check_mask()
        if self.valid_crops < 1:
            raise SeparatorError(f"valid_crops: {self.valid_crops} is not at least 1")

    def _check_mask(self) -> None:
        """Refuse cells that would hide whole crops, or none."""
        mask, bins = self.mask, self.stft.bins - 1
        if mask.strategy not in STRATEGIES:
            raise SeparatorError(
                f"mask.strategy: {mask.strategy!r} is not one of {', '.join(STRATEGIES)}"
            )
        if mask.band and bins % mask.band:
            raise SeparatorError(
                f"mask.band: {mask.band} does not divide {bins} bins (stft.n_fft / 2)"
            )
        if mask.strategy in BANDS and not 0 < mask.band * mask.band_span < bins:
            raise SeparatorError(
                f"mask.band, mask.band_span: {mask.band} x {mask.band_span} bins of {bins}; "
                f"{mask.strategy} needs at least 1 and less than all"
            )
        if mask.other and self.data.batch < 2:
            raise SeparatorError(
                "mask.other: covers a crop with another one of its batch; give data.batch of 2 up"
            )
        frames = math.ceil(self.data.segment_seconds * self.rate / self.stft.hop) + 1
        if 2 * mask.group > frames:
            raise SeparatorError(
                f"mask.group: {mask.group} frames, but a segment has {frames}, which must be "
                "at least two groups; use smaller groups or a longer data.segment_seconds"
            )
        longest = RUNS.get(mask.strategy, 0) * mask.span * mask.group
        if longest >= frames:
            raise SeparatorError(
                f"mask.span: runs of up to {longest} frames, but a segment has {frames}; use a "
                "smaller mask.span or mask.group, or a longer data.segment_seconds"
            )

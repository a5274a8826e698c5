"""What the global step decides: nothing here counts for itself, so a resumed run cannot differ."""

import math

from separator.pretrain.mask_config import MaskConfig


def group_frames(step: int, config: MaskConfig) -> int:
    """Frames in a cell: grows linearly from 1 to `group` over the first `warmup_steps` steps."""
    if config.warmup_steps <= 0:
        return config.group
    grown = math.ceil(step * config.group / config.warmup_steps)
    return max(1, min(config.group, grown))


def hint(step: int, config: MaskConfig) -> float:
    """Share of the chosen cells that is drawn anew: 1 - (step / weighted_steps)^2, 1 at first."""
    if step < config.uniform_steps:
        return 1.0
    return max(0.0, 1 - (step / max(1, config.weighted_steps)) ** 2)

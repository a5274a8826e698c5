"""What the global step decides: nothing here counts for itself, so a resumed run cannot differ."""

import math


def group_frames(step: int, target: int, warmup_steps: int) -> int:
    """Frames in a group: grows linearly from 1 to `target` over the first `warmup_steps` steps."""
    if warmup_steps <= 0:
        return target
    return max(1, min(target, math.ceil(step * target / warmup_steps)))

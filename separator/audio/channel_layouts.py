"""Positions of channels, and the weights with which they are folded to left and right."""

import math
from collections.abc import Sequence

import numpy as np

_HALF = math.sqrt(0.5)
_SHARES = {  # ITU-R BS.775-3, table 2: the share of a channel in left and right
    **{"FL": (1.0, 0.0), "FR": (0.0, 1.0), "FC": (_HALF, _HALF), "LFE": (0.0, 0.0)},
    **{"BL": (_HALF, 0.0), "BR": (0.0, _HALF), "SL": (_HALF, 0.0), "SR": (0.0, _HALF)},
    **{"BC": (0.5, 0.5), "FLC": (1.0, 0.0), "FRC": (0.0, 1.0), "LFE2": (0.0, 0.0)},
    **{"DL": (1.0, 0.0), "DR": (0.0, 1.0), "WL": (_HALF, 0.0), "WR": (0.0, _HALF)},
}
_BY_COUNT = {  # what is meant where only the number of channels is known
    1: "FC",
    2: "FL FR",
    3: "FL FR FC",
    4: "FL FR SL SR",
    5: "FL FR FC SL SR",
    6: "FL FR FC LFE SL SR",
    7: "FL FR FC LFE BC SL SR",
    8: "FL FR FC LFE BL BR SL SR",
}


def shares_by_count(channels: int) -> np.ndarray:
    """Return the weights (2 c) of 3 to 8 channels whose positions are unknown."""
    return _shares(_BY_COUNT[channels].split())


def shares(names: Sequence[str]) -> np.ndarray | None:
    """Return the weights (2 c) of channels by their names, as FFmpeg has them.

    None where there is nothing to fold, or where they are those of the number of channels.
    """
    if len(names) not in range(3, 9) or not set(names) <= set(_SHARES):
        return None
    weights = _shares(names)
    return None if np.array_equal(weights, shares_by_count(len(names))) else weights


def _shares(names: Sequence[str]) -> np.ndarray:
    return np.array([_SHARES[name] for name in names], dtype=np.float32).T


def fold(wave: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Fold channels to stereo; sample by sample, so that a slice equals that of the whole.

    Args:
        wave: (c t).
        weights: (2 c).

    Returns:
        (2 t) float32.
    """
    folded = np.zeros((2, wave.shape[1]), np.float32)
    for side, row in zip(folded, weights, strict=True):
        for weight, channel in zip(row, wave, strict=True):
            if weight:
                side += weight * channel
    return folded

"""Numbers that change over a run: functions of the global step, so that resuming is exact."""

import bisect

from separator.errors import SeparatorError
from separator.ranges import LARGEST

Ramp = float | tuple[tuple[float, float], ...]  # a number, or (step, value) pairs


def at(ramp: Ramp, step: int) -> float:
    """Return a ramp's value at a step: straight lines between the pairs, level outside them."""
    if isinstance(ramp, int | float):
        return float(ramp)
    after = bisect.bisect_right([place for place, _ in ramp], step)
    if after in (0, len(ramp)):
        return float(ramp[min(after, len(ramp) - 1)][1])
    (left, low), (right, high) = ramp[after - 1 : after + 1]
    return low + (high - low) * (step - left) / (right - left)


def stair(ramp: Ramp, step: int) -> float:
    """Return the value of the last pair whose step has come: a ramp without the lines between."""
    if isinstance(ramp, int | float):
        return float(ramp)
    after = bisect.bisect_right([place for place, _ in ramp], step)
    return float(ramp[max(after - 1, 0)][1])


def on(ramp: Ramp) -> bool:
    """Whether a ramp is above 0 at any step."""
    return highest(ramp) > 0


def pairs(ramp: Ramp) -> tuple[tuple[float, float], ...]:
    """Return a ramp as (step, value) pairs."""
    return ((0, ramp),) if isinstance(ramp, int | float) else ramp


def highest(ramp: Ramp) -> float:
    """Return the largest value that a ramp takes."""
    return float(max(value for _, value in pairs(ramp)))


def check(name: str, ramp: Ramp) -> None:
    """Refuse what is no ramp from 0 up.

    Raises:
        SeparatorError: no pairs, steps that do not grow, or a negative value; names the key.
    """
    places = [place for place, _ in pairs(ramp)]
    values = [value for _, value in pairs(ramp)]
    grows = bool(places) and sorted(set(places)) == places
    if not grows or min(values) < 0 or max(*places, *values) > LARGEST:
        raise SeparatorError(
            f"{name}: give a number from 0 to {LARGEST:g}, or [[step, value], …] with growing steps"
        )

"""Settings that change over a run: functions of the global step, so that resuming is exact."""

import bisect
from typing import Annotated

from separator.ranges import LARGEST


class Growing:
    """The limits of a schedule: see `ranges.Within`."""

    def refusal(self, schedule: "Schedule") -> str | None:
        """Return why something is no schedule of numbers from 0 up, or None."""
        places, values = zip(*pairs(schedule), strict=True) if pairs(schedule) else ((), ())
        grows = bool(places) and sorted(set(places)) == list(places)
        if grows and min(values) >= 0 and max(*places, *values) <= LARGEST:
            return None
        return f"give a number from 0 to {LARGEST:g}, or [[step, value], …] with growing steps"


# a number, or (step, value) pairs
Schedule = Annotated[float | tuple[tuple[float, float], ...], Growing()]


def value(schedule: Schedule, step: int) -> float:
    """Return a schedule's value at a step: linear between the pairs, constant outside them."""
    points = pairs(schedule)
    after = bisect.bisect_right([place for place, _ in points], step)
    if after in (0, len(points)):
        return float(points[min(after, len(points) - 1)][1])
    (left, low), (right, high) = points[after - 1 : after + 1]
    return low + (high - low) * (step - left) / (right - left)


def step_value(schedule: Schedule, step: int) -> float:
    """Return the value of the last pair whose step has come, without interpolation.

    Args:
        schedule: a number, or pairs of step and value.
        step: finished steps of the run.
    """
    points = pairs(schedule)
    after = bisect.bisect_right([place for place, _ in points], step)
    return float(points[max(after - 1, 0)][1])


def enabled(schedule: Schedule) -> bool:
    """Whether a schedule is above 0 at any step."""
    return highest(schedule) > 0


def pairs(schedule: Schedule) -> tuple[tuple[float, float], ...]:
    """Return a schedule as (step, value) pairs."""
    return ((0, schedule),) if isinstance(schedule, int | float) else schedule


def highest(schedule: Schedule) -> float:
    """Return the largest value of a schedule."""
    return float(max(number for _, number in pairs(schedule)))

"""Which values a setting may have, in the notation of intervals."""

import math

from separator.errors import SeparatorError


def require(config: object, interval: str, *keys: str) -> None:
    """Refuse settings outside an interval; NaN is in none.

    Args:
        config: has the settings as attributes, numbers or sequences of numbers.
        interval: such as "[0, 1)", from 0 to below 1, or "(0, inf)".
        keys: full names as a user writes them; the last part of each is the attribute.

    Raises:
        SeparatorError: names the first such key, its value and what it may be.
    """
    low, high = (float(end) for end in interval[1:-1].split(","))
    for key in keys:
        value = getattr(config, key.rpartition(".")[2])
        for number in value if isinstance(value, list | tuple) else [value]:
            above = low <= number if interval[0] == "[" else low < number
            below = number <= high if interval[-1] == "]" else number < high
            if not (above and below):
                raise SeparatorError(f"{key}: {value} is not {_words(interval, low, high)}")


def _words(interval: str, low: float, high: float) -> str:
    if math.isinf(high):
        return f"{'at least' if interval[0] == '[' else 'above'} {low:g}"
    return f"in {interval}"

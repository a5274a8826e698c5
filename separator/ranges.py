"""Which values a setting may have, in the notation of intervals.

Every setting has a highest value as well as a lowest one: far above what any use needs, and below
what would exhaust the machine, or overflow, long after the command was given.
"""

import reprlib

from separator.errors import SeparatorError

LARGEST = 1e12  # of what has no limit of its own
MOST_STEPS = 10**12
MOST_SEED = 2**32 - 1  # of NumPy's and scikit-learn's generators
RATES = "[1000, 768000]"  # hertz


def require(config: object, interval: str, *keys: str) -> None:
    """Refuse settings outside an interval; NaN is in none.

    Args:
        config: has the settings as attributes, numbers or sequences of numbers.
        interval: such as "[0, 1)", from 0 to below 1, or "(0, inf)", where inf is `LARGEST`.
        keys: full names as a user writes them; the last part of each is the attribute.

    Raises:
        SeparatorError: names the first such key, its value and what it may be.
    """
    low, high = (float(end) for end in interval[1:-1].split(","))
    high = min(high, LARGEST)
    for key in keys:
        value = getattr(config, key.rpartition(".")[2])
        for number in value if isinstance(value, list | tuple) else [value]:
            above = low <= number if interval[0] == "[" else low < number
            below = number <= high if interval[-1] == "]" else number < high
            if not (above and below):
                told = reprlib.repr(value)  # thousands of digits or items are cut
                raise SeparatorError(f"{key}: {told} is not {_words(interval, low, above)}")


def _words(interval: str, low: float, above: bool) -> str:
    if "inf" not in interval:
        return f"in {interval}"
    if above:
        return f"at most {LARGEST:g}"
    return f"{'at least' if interval[0] == '[' else 'above'} {low:g}"

"""Limits of settings, as part of their types, and the errors for settings outside them.

    @dataclass(frozen=True)
    class STFTConfig(CheckedConfig):
        power: Annotated[float, Within("[0.05, 1]")] = 0.5

A configuration does not know where it stands in another one: its errors name its own keys, and
whoever reads a configuration puts the group before them (`SettingError.within`).

Every setting has a highest value as well as a lowest one: far above what any use needs, and below
what would exhaust the machine, or overflow, long after the command was given.
"""

import reprlib
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

from separator.errors import SeparatorError, UsageError

LARGEST = 1e12  # of what has no limit of its own
MAX_STEPS = 10**12
MIN_RATE, MAX_RATE = 1000, 768_000  # hertz; others are a damaged header's
MAX_CHANNELS = 8  # whose layouts are known
MAX_SEED = 2**32 - 1  # of NumPy's and scikit-learn's generators


class SettingError(SeparatorError):
    """A configuration refuses one of its settings.

    Args:
        config: the configuration's class.
        keys: names of the settings, as they stand in it.
        reason: what is wrong, and the fix; "{}" stands where the group of another key is put.
        group: where the configuration stands in another one, such as "model."
    """

    def __init__(self, config: type, keys: str, reason: str, group: str = "") -> None:
        named = ", ".join(f"{group}{key}" for key in keys.split(", "))
        super().__init__(f"{named}: {reason.replace('{}', group)}")
        self.config, self.keys, self.reason = config, keys, reason

    def within(self, group: str) -> "SettingError":
        """Return the same error with full keys, for a configuration within a group."""
        return SettingError(self.config, self.keys, self.reason, group)


@dataclass(frozen=True)
class Within:
    """Limits of a number, or of each number of a list, in the notation of intervals.

    Attributes:
        interval: such as "[0, 1)", from 0 to below 1, or "(0, inf)", where inf is `LARGEST`.
        word: a value that is allowed beside numbers.
    """

    interval: str
    word: str = ""

    def refusal(self, value: Any) -> str | None:
        """Return why a value, a number or a list of them, is not allowed, or None; NaN never is."""
        if self.word and value == self.word:
            return None
        low, high = (float(end) for end in self.interval[1:-1].split(","))
        high = min(high, LARGEST)
        for number in value if isinstance(value, list | tuple) else [value]:
            above = low <= number if self.interval[0] == "[" else low < number
            below = number <= high if self.interval[-1] == "]" else number < high
            if not (above and below):
                shown = reprlib.repr(value)  # thousands of digits or items are cut
                word = f"{self.word} and not " if self.word else ""
                return f"{shown} is not {word}{self._words(low, above)}"
        return None

    def check(self, key: str, value: Any) -> None:
        """Refuse a value that is not allowed.

        Args:
            key: its full name as a user writes it.
            value: a number or a list of them.

        Raises:
            UsageError: names the key, its value and what it may be.
        """
        if reason := self.refusal(value):
            raise UsageError(f"{key}: {reason}")

    def _words(self, low: float, above: bool) -> str:
        if "inf" not in self.interval:
            return f"in {self.interval}"
        if above:
            return f"at most {LARGEST:g}"
        return f"{'at least' if self.interval[0] == '[' else 'above'} {low:g}"


@dataclass(frozen=True)  # jsonargparse wants a dataclass's bases to be dataclasses
class CheckedConfig:
    """A dataclass that checks the limits and choices in its fields' types when it is made."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value, arguments = getattr(self, field.name), get_args(field.type)
            if get_origin(field.type) is Literal and value not in arguments:
                shown = reprlib.repr(value)
                raise self.invalid(
                    field.name, f"{shown} is not one of {', '.join(map(str, arguments))}"
                )
            for hint in (field.type, *arguments):  # of a number, or of the numbers of a list
                if get_origin(hint) is Annotated and (reason := get_args(hint)[1].refusal(value)):
                    raise self.invalid(field.name, reason)

    def invalid(self, keys: str, reason: str) -> SettingError:
        """Make the error for these keys, for this reason; see `SettingError`."""
        return SettingError(type(self), keys, reason)


def group_of(config: type, cls: Any, group: str = "") -> str | None:
    """Return the group in which another configuration holds a configuration.

    Args:
        config: class of the inner configuration.
        cls: class of the outer one.
        group: where the outer one stands.

    Returns:
        Such as "data.augment.", or None if it is not in it.
    """
    if issubclass(cls, config):
        return group
    groups = ((field.type, f"{group}{field.name}.") for field in fields(cls))
    places = (group_of(config, kind, name) for kind, name in groups if is_dataclass(kind))
    return next((name for name in places if name is not None), None)


RATES = Within(f"[{MIN_RATE}, {MAX_RATE}]")

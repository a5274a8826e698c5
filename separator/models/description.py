"""The description in a model's file, every part of which is checked before it is used.

A file that was shared may say anything. What is needed to make the model is compared with what
this version writes, in names, types and size, before a parser or a layer is given any of it.
"""

import json
import math
import os
import reprlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from separator.dsp.config import STFTConfig
from separator.errors import SeparatorError, one_line
from separator.models.config import Sizes
from separator.models.registry import ARCHITECTURES
from separator.ranges import RATES, SettingError

Config = TypeVar("Config")

FORMAT = 3  # counts changes after which the same weights would mean something else
MAX_CHARACTERS = 1_000_000  # characters of a description; ours have one thousand
LONGEST_LIST = 64
LONGEST_TEXT = 100
LARGEST_SIZE = 10**9


def from_json(text: str, path: str | os.PathLike) -> dict[str, Any]:
    """Read a description from the JSON text in a file's header.

    Args:
        text: of the header.
        path: of the file, for messages.

    Raises:
        SeparatorError: it is no JSON object, is too long, nested too deeply, or holds NaN or
            infinite numbers.
    """
    if len(text) > MAX_CHARACTERS:
        raise refused(path, f"its description has {len(text)} characters")
    try:
        values = json.loads(text, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError) as error:
        reason = f"its description is no JSON of ours: {one_line(error)}"
        raise refused(path, reason) from error
    if not isinstance(values, dict):
        raise refused(path, "its description is no object")
    return values


def settings_of(
    description: Mapping[str, Any], path: str | os.PathLike
) -> tuple[Sizes, STFTConfig]:
    """Return the sizes and the transform of the model that a file describes.

    Args:
        description: what the file says of itself.
        path: of the file, for messages.

    Raises:
        SeparatorError: an unknown architecture, weights from before a change of the model, or a
            description that is not one of ours.
    """
    architecture, version = description.get("architecture"), description.get("format", 1)
    if architecture not in [*ARCHITECTURES] or version != FORMAT:
        shown = f"{reprlib.repr(architecture)} in format {reprlib.repr(version)}"
        raise SeparatorError(
            f"{path}: holds {shown}; this version reads {', '.join(ARCHITECTURES)} in format "
            f"{FORMAT}: make the model anew, or use its own version"
        )
    try:
        stft = config_of(STFTConfig, description, "stft")
        sizes = config_of(ARCHITECTURES[architecture].config, description, "model")
        check_rest(description)
    except SeparatorError as error:
        raise refused(path, error) from error
    return sizes, stft


def config_of(cls: type[Config], description: Mapping[str, Any], part: str) -> Config:
    """Make the configuration that a part of a description holds.

    The parser of configurations is not used: it accepts text for numbers, and names of files.

    Args:
        cls: a dataclass of numbers, words and lists of numbers, each with a default. The keys in
            its `LATER` may be missing and take their defaults.
        description: of a model.
        part: key of the part in it.

    Raises:
        SeparatorError: a key is missing or unknown, or a value is of a wrong type or out of range.
    """
    values = description.get(part)
    if not isinstance(values, Mapping):
        raise SeparatorError(f"it has no {part!r}")
    defaults = vars(cls())
    needed = sorted(defaults.keys() - getattr(cls, "LATER", ()))
    for key in [*needed, *values]:
        if key not in values:
            raise SeparatorError(f"{part}.{key} is missing")
        if key not in defaults:
            raise SeparatorError(f"{part}.{str(key)[:LONGEST_TEXT]} is unknown to this version")
        if not _is_like(values[key], defaults[key]):
            raise SeparatorError(f"{part}.{key} is not of the kind of {defaults[key]!r}")
    lists = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
    try:
        return cls(**values | lists)
    except SettingError as error:
        raise error.within(f"{part}.") from error


def check_rest(description: Mapping[str, Any]) -> None:
    """Refuse a description whose rate, stage or history is not of the kind that is written.

    Raises:
        SeparatorError: names the key.
    """
    rate, stage = description.get("rate"), description.get("stage", "")
    if not _is_size(rate):
        raise SeparatorError("rate is no whole number")
    RATES.check("rate", rate)
    if not _is_word(stage):
        raise SeparatorError("stage is no word")
    trained = description.get("trained", {})
    if not isinstance(trained, Mapping):
        raise SeparatorError("trained is no object")
    step, score, git = (trained.get(key) for key in ("step", "score", "git"))
    if not (step is None or _is_size(step)) or not (score is None or _is_number(score)):
        raise SeparatorError("trained.step or trained.score is no number")
    if not (git is None or _is_word(git)):
        raise SeparatorError("trained.git is no word")


def refused(path: str | os.PathLike, reason: object) -> SeparatorError:
    """Make the error for the file at a path that describes no model, for this reason."""
    return SeparatorError(
        f"{path}: describes no model that this version can make ({reason}); choose another file"
    )


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is not a finite number")
    return number


def _is_size(value: object) -> bool:
    return type(value) is int and abs(value) <= LARGEST_SIZE


def _is_number(value: object) -> bool:
    return _is_size(value) or (type(value) is float and math.isfinite(value))


def _is_word(value: object) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST_TEXT


_CHECKS: dict[type, Callable[[object], bool]] = {
    **{bool: lambda value: isinstance(value, bool), str: _is_word},
    **{int: _is_size, float: _is_number},
}


def _is_like(value: object, default: object) -> bool:
    """Whether a value is of the type of a setting's default, and of a size that one can have."""
    if type(default) in _CHECKS:
        return _CHECKS[type(default)](value)
    entry = _is_word if isinstance(default[0], str) else _is_size
    is_list = isinstance(value, list | tuple) and len(value) <= LONGEST_LIST
    return is_list and all(map(entry, value))

"""Arguments of the Python functions: any wrong one is a SeparatorError that says what to give."""

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from separator.errors import SeparatorError
from separator.ranges import MAX_CHANNELS, MAX_RATE, MIN_RATE


def path_of(value: object, name: str, fix: str) -> Path:
    """Return an argument that has to be the path of a file.

    Args:
        value: the argument.
        name: its name, for the message.
        fix: what to give instead, for the message.

    Raises:
        SeparatorError: it is no path, or an empty one.
    """
    try:
        text = os.fsdecode(value)
    except TypeError as error:
        raise SeparatorError(f"{name}: {type(value).__name__} is no path; give {fix}") from error
    if not text or "\0" in text:
        raise SeparatorError(f"{name}: {text!r} is no name of a file; give {fix}")
    return Path(text)


def samples_of(mixture: object) -> Tensor:
    """Return an argument that has to be samples (c t) as float32 on the CPU.

    Raises:
        SeparatorError: it is no array, not of floats, or of another shape.
    """
    if isinstance(mixture, np.ndarray):
        mixture = _tensor(mixture)
    if not isinstance(mixture, Tensor):
        kind = type(mixture).__name__
        raise SeparatorError(f"samples: {kind} is no tensor and no array; give one of (c, t)")
    shape = tuple(mixture.shape)
    if mixture.ndim != 2 or not shape[0]:
        raise SeparatorError(f"samples of shape {shape}; give (channels, samples)")
    if shape[0] > MAX_CHANNELS >= shape[1]:
        raise SeparatorError(f"samples of shape {shape} are (t, c); give (c, t): transpose them")
    if not mixture.is_floating_point():
        raise _not_float(str(mixture.dtype).removeprefix("torch."))
    return mixture.detach().to("cpu", torch.float32)


def rate_of(rate: object) -> int:
    """Return an argument that has to be a sample rate in hertz.

    Raises:
        SeparatorError: it is no whole number, or no rate of sound.
    """
    number = isinstance(rate, int | float | np.integer | np.floating) and not isinstance(rate, bool)
    if not number or not MIN_RATE <= rate <= MAX_RATE or rate != int(rate):
        low_high = f"{MIN_RATE}..{MAX_RATE}"
        raise SeparatorError(f"rate: {rate!r} is no whole number in {low_high}; give it in hertz")
    return int(rate)


def _tensor(array: np.ndarray) -> Tensor:
    """Turn any array of floats into a tensor, of any byte order, stride and precision."""
    if array.dtype.kind != "f":
        raise _not_float(str(array.dtype))
    with np.errstate(over="ignore"):  # too large for float32 is infinite, and refused as such
        return torch.from_numpy(array.astype(np.float32, order="C"))  # a copy may be written to


def _not_float(kind: str) -> SeparatorError:
    whole = kind.startswith(("int", "uint"))
    fix = f"divide by the largest {kind}, so that ±1 is full scale" if whole else "convert them"
    return SeparatorError(f"samples of {kind}; give floats: {fix}")

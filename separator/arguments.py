"""Arguments of the Python functions: any wrong one is a SeparatorError that says what to give."""

import codecs
import contextlib
import math
import os
import re
import reprlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeGuard

import numpy as np

from separator.errors import ArgumentError, SeparatorError, explain
from separator.ranges import MAX_CHANNELS, MAX_RATE, MIN_RATE, Within

if TYPE_CHECKING:
    import torch
    from torch import Tensor

BYTES = bytes | bytearray | memoryview
SOURCES = "a path or samples (c t), bytes or a file object"  # where a source is none


class Readable(Protocol):
    """A file object, open for reading bytes."""

    def read(self, size: int = -1, /) -> bytes:
        """Return the bytes that follow.

        Args:
            size: how many, at most; -1 stands for all.

        Returns:
            The bytes, b"" at the end.
        """
        ...


Samples: TypeAlias = "Tensor | np.ndarray"
Source: TypeAlias = "str | os.PathLike[str] | bytes | Readable | Samples"
Device: TypeAlias = "Literal['auto', 'cpu', 'cuda', 'mps'] | torch.device"


def path_of(value: object, name: str, fix: str) -> Path:
    """Return an argument that has to be the path of a file.

    Args:
        value: the argument.
        name: its name, for the message.
        fix: what to give instead, for the message.

    Raises:
        SeparatorError: it is no path, or an empty one.
    """
    if not isinstance(value, str | bytes | os.PathLike):
        raise ArgumentError(f"{name}: {type(value).__name__} is no path; give {fix}")
    text = os.fsdecode(value)
    if not text or "\0" in text:
        raise ArgumentError(f"{name}: {text!r} is no name of a file; give {fix}")
    return Path(text)


def song_path(value: Any, name: str = "source", fix: str = SOURCES) -> Path:
    """Return an argument that has to be the path of a song.

    Args:
        value: the argument.
        name: as of `path_of`.
        fix: as of `path_of`.

    Raises:
        SeparatorError: it is no path, or a web address.
    """
    path = path_of(value, name, fix)
    text = os.fsdecode(value)  # a path has lost one of two slashes
    if re.match(r"(?i)[a-z]\w+://?[^/]", text) and not path.exists():
        raise SeparatorError(f"{name}: {text}: give a file on this machine; download it first")
    return path


def check_report(path: str, name: str = "report") -> None:
    """Refuse the path of a report that is a folder, or a file that is no text, such as a song.

    Args:
        path: where the user wants the report.
        name: of the option.

    Raises:
        SeparatorError: it is one of these.
    """
    file = Path(path)
    if file.is_dir():
        raise SeparatorError(f"{name}: {path} is a folder; give the name of a file")
    if file.is_file():
        with file.open("rb") as opened:
            start = opened.read(4096)
        try:
            text = codecs.getincrementaldecoder("utf-8")().decode(start)
        except UnicodeDecodeError:
            text = "\0"
        if "\0" in text:
            raise SeparatorError(
                f"{name}: {path} is no report that can be replaced; give another name"
            )


@contextlib.contextmanager
def file_of(source: object) -> Iterator[Path]:
    """Give the path of a source; of bytes and of a file object while the block lasts.

    Args:
        source: the argument.

    Yields:
        The path.

    Raises:
        SeparatorError: it is no path, no bytes and no file object that gives bytes.
    """
    if not isinstance(source, BYTES) and not hasattr(source, "read"):
        yield song_path(source)
        return
    if getattr(source, "closed", False):
        raise SeparatorError("source: the file is closed; open it")
    with tempfile.TemporaryDirectory(prefix="separator-") as folder:
        path = Path(folder, "source.wav")  # its content tells its format
        with path.open("wb") as file:
            if isinstance(source, BYTES):
                file.write(source)
            else:
                try:
                    shutil.copyfileobj(source, file)
                except TypeError as error:
                    text = 'source: the file gives text; open it with "rb"'
                    raise SeparatorError(text) from error
        try:
            yield path
        except SeparatorError as error:
            raise SeparatorError(str(error).replace(str(path), "source")) from error


def is_samples(value: object) -> TypeGuard["Tensor | np.ndarray"]:
    """Whether an argument is samples.

    Args:
        value: the argument.

    Returns:
        True for arrays and tensors.
    """
    torch = sys.modules.get("torch")  # before it was imported, there is no tensor
    return isinstance(value, np.ndarray) or (torch is not None and isinstance(value, torch.Tensor))


def samples_of(mixture: object) -> np.ndarray:
    """Return an argument that has to be samples (c t) as an array of float32.

    Args:
        mixture: an array or tensor (c t) of floats; anything else is refused.

    Raises:
        SeparatorError: it is no array, not of floats, or of another shape.
    """
    if not is_samples(mixture):
        kind = type(mixture).__name__
        raise SeparatorError(f"samples: {kind} is no tensor and no array; give one of (c, t)")
    check_floats(mixture)
    shape = tuple(mixture.shape)
    if len(shape) != 2 or not shape[0]:
        raise SeparatorError(f"samples of shape {shape}; give (channels, samples)")
    if shape[0] > MAX_CHANNELS >= shape[1]:
        raise SeparatorError(f"samples of shape {shape} are (t, c); give (c, t): transpose them")
    return as_array(mixture)


def check_floats(samples: "Tensor | np.ndarray") -> None:
    """Refuse samples that are not floats.

    Args:
        samples: of any shape.

    Raises:
        SeparatorError: they are of another type.
    """
    if isinstance(samples, np.ndarray):
        is_float = samples.dtype.kind == "f"
    else:
        is_float = samples.is_floating_point()
    if is_float:
        return
    kind = str(samples.dtype).removeprefix("torch.")
    whole = kind.startswith(("int", "uint"))
    fix = f"divide by the largest {kind}, so that ±1 is full scale" if whole else "convert them"
    raise SeparatorError(f"samples of {kind}; give floats: {fix}")


def as_array(wave: "Tensor | np.ndarray") -> np.ndarray:
    """Make samples an array.

    Args:
        wave: (c t), of any floats and on any device.

    Returns:
        A writable array of float32, which shares the memory of one that is that already.
    """
    array = wave if isinstance(wave, np.ndarray) else wave.detach().float().cpu().numpy()
    with np.errstate(over="ignore"):  # too large for float32 is infinite, and refused as such
        return np.require(array, np.float32, ["C", "W"])


def number_of(value: object, name: str, interval: str, whole: bool = False) -> Any:
    """Return an argument that has to be a number.

    Args:
        value: the argument.
        name: its name, for the message.
        interval: of what it may be, as of `Within`.
        whole: whether it has to be an integer.

    Raises:
        ArgumentError: it is no such number.
    """
    if isinstance(value, bool) or not isinstance(value, Integral if whole else Real):
        kind = "whole number" if whole else "number"
        raise ArgumentError(f"{name}: {reprlib.repr(value)} is no {kind}; give one in {interval}")
    if reason := Within(interval).refusal(value):
        raise ArgumentError(f"{name}: {reason}")
    return value


def check_kind(value: object, name: str, kind: Any, words: str) -> None:
    """Refuse an argument that is no instance of a class.

    Args:
        value: the argument.
        name: its name, for the message.
        kind: the class.
        words: which it is, for the message.

    Raises:
        ArgumentError: it is none.
    """
    if not isinstance(value, kind):
        raise ArgumentError(f"{name}: {type(value).__name__} is no {words}; give one")


def results_of(results: object) -> Callable[[np.ndarray], Any]:
    """Return the function that makes of an array what a caller wants as result.

    Args:
        results: "numpy", or a device of torch on which tensors are wanted.

    Raises:
        SeparatorError: torch is not installed, or there is no such device.
    """
    if results == "numpy":
        return np.asarray
    try:
        import torch

        from separator.devices import find_device

        device = find_device(str(results), argument="results")
    except ModuleNotFoundError as error:
        raise SeparatorError(f'results: {explain(error)}, or give "numpy"') from error
    except SeparatorError as error:
        raise ArgumentError(f'{error}, and "numpy" for arrays') from error
    return lambda wave: torch.from_numpy(wave).to(device)


def rate_of(rate: object) -> int:
    """Return an argument that has to be a sample rate in hertz.

    Raises:
        SeparatorError: it is no whole number, or no rate of sound.
    """
    number = math.nan
    if isinstance(rate, int | float | np.integer | np.floating) and not isinstance(rate, bool):
        number = float(rate)
    if not MIN_RATE <= number <= MAX_RATE or not number.is_integer():
        low_high = f"{MIN_RATE}..{MAX_RATE}"
        raise SeparatorError(f"rate: {rate!r} is no whole number in {low_high}; give it in hertz")
    return int(number)

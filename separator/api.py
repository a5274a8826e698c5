"""Separation from Python: `separator.separate("song.flac")`, with or without PyTorch."""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, TypeGuard, TypeVar, cast, overload

from separator import audio
from separator.arguments import BYTES, Device, Source, is_samples, song_path
from separator.errors import ArgumentError, SeparatorError
from separator.model_sources import find_model
from separator.streaming import Progress, Quality, StreamingSeparator

if TYPE_CHECKING:
    from numpy import ndarray
    from torch import Tensor

    Model = str | os.PathLike[str] | StreamingSeparator[Any]

__all__ = ["load", "separate"]

ONNX = r"\.onnx(#sha256=\w+)?$"  # the end of a path or an address

Backend = Literal["auto", "torch", "onnx"]
AnySource = TypeVar("AnySource", bound=Source)  # a list of paths is no list of all sources


@overload
def separate(
    source: Source,
    rate: int | None = None,
    model: "Model | None" = None,
    device: str = "auto",
    progress: Progress | None = None,
    *,
    results: Literal["numpy"],
) -> "dict[str, ndarray]": ...
@overload
def separate(
    source: list[AnySource] | tuple[AnySource, ...],
    rate: int | None = None,
    model: "Model | None" = None,
    device: str = "auto",
    progress: Progress | None = None,
    *,
    results: Literal["numpy"],
) -> "list[dict[str, ndarray]]": ...
@overload
def separate(
    source: Iterator[Source],
    rate: int | None = None,
    model: "Model | None" = None,
    device: str = "auto",
    progress: Progress | None = None,
    *,
    results: Literal["numpy"],
) -> "Iterator[dict[str, ndarray]]": ...
@overload
def separate(
    source: Source,
    rate: int | None = None,
    model: "Model | None" = None,
    device: str = "auto",
    progress: Progress | None = None,
    results: "Device | None" = None,
) -> "dict[str, Tensor]": ...
@overload
def separate(
    source: list[AnySource] | tuple[AnySource, ...],
    rate: int | None = None,
    model: "Model | None" = None,
    device: str = "auto",
    progress: Progress | None = None,
    results: "Device | None" = None,
) -> "list[dict[str, Tensor]]": ...
@overload
def separate(
    source: Iterator[Source],
    rate: int | None = None,
    model: "Model | None" = None,
    device: str = "auto",
    progress: Progress | None = None,
    results: "Device | None" = None,
) -> "Iterator[dict[str, Tensor]]": ...
def separate(
    source: "Source | Iterable[Source]",
    rate: int | None = None,
    model: "Model | None" = None,
    device: str = "auto",
    progress: Progress | None = None,
    results: "Literal['numpy'] | Device | None" = None,
) -> Any:
    """Split songs into the model's stems, (c t) each, at each song's own rate.

    Args:
        source: an audio file, as a path, its bytes or a file object open for reading bytes; or
            samples (c t), floats of which ±1 is full scale; or a list of such songs, or an iterator
            over them.
        rate: the sample rate of samples; a file has its own.
        model: a model file, the name of a bundled model, or a loaded `Separator`; by default
            $SEPARATOR_MODEL, else the bundled model. Without PyTorch, a `.onnx` file or the name.
        device: "auto", "cpu", "cuda" or "mps"; a loaded `Separator` stays where it is.
        progress: called while a song is done, with its seconds that are done and those there are;
            an exception that it raises ends the work, and is what the caller gets.
        results: "numpy" for arrays; "cpu", "cuda", "mps", "auto" or a `torch.device` for tensors
            there, wherever the model runs (see `Separator.with_results`). By default those of the
            model: tensors on the CPU, or without PyTorch arrays.

    Returns:
        The stems by name: "instrumental" and "vocals", or those of the model. For a list of songs
        a list of them; for an iterator one that separates a song when it is asked for it.

    Raises:
        SeparatorError: any argument that cannot be used: an unreadable file, samples
            that are not finite, not floats or not (c t). Where it is one of several, names which.
    """
    if _is_song(source):
        _check(source, rate)
        return _loaded(model, device, results).separate(source, rate, progress)
    if isinstance(source, list | tuple):
        for number, song in enumerate(source):  # before a model is loaded
            with _naming(number):
                _check(song)
        return list(_each(source, rate, _loaded(model, device, results), progress))
    songs = cast("Iterable[Source]", source)
    return _each(songs, rate, _loaded(model, device, results), progress)


def _is_song(source: "Source | Iterable[Source]") -> TypeGuard[Source]:
    """Whether an argument is one song, or nothing that could be songs."""
    if is_samples(source) or hasattr(source, "read"):
        return True
    return isinstance(source, str | dict | BYTES) or not isinstance(source, Iterable)


def _check(source: object, rate: int | None = None) -> None:
    """Refuse what is no song, or a file that cannot be read."""
    if not is_samples(source) and not isinstance(source, BYTES) and not hasattr(source, "read"):
        path = song_path(source)
        if rate is None:  # else that is refused, later
            audio.probe(path)


def load(
    model: str | os.PathLike[str],
    device: str = "auto",
    shifts: int = 1,
    chunk: float | None = None,
    overlap: float | None = None,
    backend: Backend = "auto",
) -> StreamingSeparator[Any]:
    """Load a model with the backend that is wanted, or that is installed.

    Args:
        model: a model file or the name of a bundled model.
        device: as of `separate`.
        shifts: as of `Separator`.
        chunk: as of `Separator`.
        overlap: as of `Separator`.
        backend: "torch", "onnx" (onnxruntime on the CPU), or "auto": torch if it is installed and
            the model is no .onnx file.

    Returns:
        A `Separator`, or an `OnnxSeparator`.

    Raises:
        SeparatorError: the model cannot be read, or the backend is not installed, or it does not
            have the device.
    """
    quality: Quality = {"shifts": shifts, "chunk": chunk, "overlap": overlap}
    light = not find_spec("torch") or re.search(ONNX, str(model))
    if backend == "onnx" or (backend == "auto" and light):
        from separator.onnx_separator import OnnxSeparator

        if device not in ("auto", "cpu"):
            raise ArgumentError(
                f"device: the backend onnx runs on the CPU only; leave {device} out, or "
                "give the backend torch and a .safetensors file"
            )
        return OnnxSeparator.load(model, **quality)
    from separator.separation import Separator

    return Separator.load(model, device, **quality)


def _loaded(model: "Model | None", device: str, results: Any) -> StreamingSeparator[Any]:
    """Return a loaded model, by default that of `find_model`, that gives the results wanted."""
    if not isinstance(model, StreamingSeparator):
        model = load(find_model() if model is None else model, device)
    return model if results is None else model.with_results(results)


def _each(
    songs: Iterable[Source],
    rate: int | None,
    model: StreamingSeparator[Any],
    progress: Progress | None,
) -> Iterator[dict[str, Any]]:
    """Separate songs in turn; `rate` is that of all that are samples."""
    for number, song in enumerate(songs):
        with _naming(number):
            stems = model.separate(song, rate if is_samples(song) else None, progress)
        yield stems


@contextlib.contextmanager
def _naming(number: int) -> Iterator[None]:
    """Say in an error which of several songs it is about."""
    try:
        yield
    except SeparatorError as error:
        text = str(error).removeprefix("source: ")
        raise SeparatorError(f"separate: source[{number}]: {text}") from error

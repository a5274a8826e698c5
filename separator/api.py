"""Separation from Python: `separator.separate("song.flac")`, or a `Separator` for many songs."""

import os

import numpy as np
from torch import Tensor

from separator import bundled
from separator.arguments import path_of
from separator.errors import SeparatorError
from separator.separation import Separator, Source


def separate(
    source: Source | list[Source] | tuple[Source, ...],
    rate: int | None = None,
    model: str | os.PathLike | Separator | None = None,
    device: str = "auto",
) -> dict[str, Tensor] | list[dict[str, Tensor]]:
    """Split songs into the model's stems, (c t) each, at each song's own rate.

    Args:
        source: an audio file, or samples (c t), floats of which ±1 is full scale; or a list of
            such songs.
        rate: the sample rate of samples; a file has its own.
        model: a model file, the name of a bundled model, or a loaded `Separator`; by default
            $SEPARATOR_MODEL, else the bundled model.
        device: "auto", "cpu", "cuda" or "mps"; a loaded `Separator` stays where it is.

    Returns:
        The stems by name: "instrumental" and "vocals", or those of the model. For a list of songs a
        list of them.

    Raises:
        SeparatorError: any argument that cannot be used: an unreadable file, samples
            that are not finite, not floats or not (c t). Where it is one of a list, names which.
    """
    many = isinstance(source, list | tuple)
    songs = list(source) if many else [source]
    for song in songs:  # before a model is loaded
        if not isinstance(song, Tensor | np.ndarray):
            path_of(song, "source", "a path or samples (c t)")
    if not isinstance(model, Separator):
        model = Separator.load(find_model() if model is None else model, device)
    if not many:
        return model.separate(source, rate)
    results = []
    for number, song in enumerate(songs):
        samples = isinstance(song, Tensor | np.ndarray)
        try:
            results.append(model.separate(song, rate if samples else None))
        except SeparatorError as error:
            raise SeparatorError(f"separate: source[{number}]: {error}") from error
    return results


def find_model() -> str:
    """Return $SEPARATOR_MODEL, else the name of the model that comes with the package."""
    return os.environ.get("SEPARATOR_MODEL") or bundled.DEFAULT

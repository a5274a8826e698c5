"""A user's program, as a type checker sees it; `make lint` checks it, nothing runs it."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import assert_type

import numpy as np
import torch
from torch import Tensor

import separator
from separator import Separator, SeparatorError


def one_song(path: Path) -> np.ndarray:
    """Give the vocals of a song, whatever kind of source it is."""
    assert_type(separator.separate(path), dict[str, Tensor])
    assert_type(separator.separate(io.BytesIO(path.read_bytes())), dict[str, Tensor])
    assert_type(separator.separate(path.read_bytes(), device="cpu"), dict[str, Tensor])
    assert_type(separator.separate(path, results="cuda"), dict[str, Tensor])
    return separator.separate(np.zeros((2, 44100)), rate=44100, results="numpy")["vocals"]


def many_songs(folder: Path) -> Iterator[Tensor]:
    """Give the vocals of songs in turn."""
    model = Separator.load("tiny-vocals", device="cpu")
    paths = list(folder.iterdir())
    listed = separator.separate(paths, model=model)
    assert_type(listed, list[dict[str, Tensor]])
    for stems in separator.separate(folder.iterdir(), model=model):
        assert_type(stems, dict[str, Tensor])
        yield stems["vocals"]
    arrays = model.with_results("numpy")
    assert_type(arrays.separate(paths[0]), dict[str, np.ndarray])
    assert_type(separator.separate(paths, results="numpy"), list[dict[str, np.ndarray]])
    assert_type(next(separator.separate(iter(paths), results="numpy")), dict[str, np.ndarray])
    assert_type(model.with_results(torch.device("cuda:1")).separate(paths[0]), dict[str, Tensor])


def live(blocks: Iterator[np.ndarray]) -> Iterator[Tensor]:
    """Give the instrumental of a recording that goes on."""
    try:
        for mixture, stems in Separator.load("tiny-vocals").stream(blocks, 48000):
            assert_type(mixture, Tensor)
            yield stems[0]
        for _, arrays in Separator.load("tiny-vocals").with_results("numpy").stream(blocks, 48000):
            assert_type(arrays, np.ndarray)
    except SeparatorError as error:
        print(error)


def show(done: float, total: float) -> None:
    """Show progress."""
    print(f"{done:.0f} of {total:.0f} s")


print(separator.separate("song.mp3", progress=show).keys())

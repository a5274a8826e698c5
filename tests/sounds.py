"""Made sounds for the tests of audio/, and what other programs make of them."""

import functools
import shutil
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch import Tensor

from separator.audio import (
    Writer,
    read,
)

LOSSY = ("mp3", "ogg", "opus", "m4a")


@functools.lru_cache
def music(seconds: float, rate: int = 44100, channels: int = 2) -> Tensor:
    """Chords and some noise, different in each channel, peak about 0.5."""
    t = torch.arange(int(seconds * rate), dtype=torch.float64) / rate
    noise = torch.randn(channels, t.numel(), generator=torch.Generator().manual_seed(1))
    tones = [sum(torch.sin(6.283 * f * (c + 1) * t) for f in (110, 165, 275)) for c in
             range(channels)]  # fmt: skip
    return (0.12 * torch.stack(tones) + 0.02 * noise).float()


def save(path: Path, wave: Tensor, rate: int = 44100, **options: object) -> Path:
    with Writer(path, rate, wave.shape[0], **options) as writer:
        for part in wave.split(30011, dim=1):
            writer.write(part)
    return path


def encode(
    path: Path,
    wave: Tensor,
    codec: str,
    layout: str,
    rate: int = 44100,
    jump: int = 0,
    **options: str,
) -> bytes:
    """What the Writer does not write: any layout, MP3 without a header, a `jump` in the times."""
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        stream.bit_rate = 32000 if rate < 32000 else 256000
        at = 0
        for part in wave.split(4608, dim=1):
            packed = np.ascontiguousarray(part.T.numpy()).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
            frame.sample_rate, frame.pts = rate, at + (jump if at > wave.shape[1] // 2 else 0)
            at += part.shape[1]
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path.read_bytes()


def ffmpeg(*arguments: object) -> bytes:
    if shutil.which("ffmpeg") is None:
        pytest.skip("the ffmpeg program is not installed")
    command = ["ffmpeg", "-v", "error", "-y", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True).stdout


def ffmpeg_decode(path: Path, channels: int, stream: int = 0) -> Tensor:
    raw = ffmpeg("-i", path, "-map", f"0:a:{stream}", "-f", "f32le", "-")
    return torch.from_numpy(np.frombuffer(raw, "<f4").reshape(-1, channels).T.copy())


def assert_slices_equal(path: Path, whole: Tensor, tolerance: float, stream: int = 0) -> None:
    generator = np.random.default_rng(0)
    total = whole.shape[1]
    for start in (0, 1, 1023, 1024, *generator.integers(0, total, 5), total - 5, total, total + 9):
        part = read(path, int(start), 20011, stream=stream)
        expected = whole[:, start : start + 20011]
        assert part.shape == expected.shape
        assert part.numel() == 0 or (part - expected).abs().max() <= tolerance

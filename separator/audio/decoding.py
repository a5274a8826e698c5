"""Look at files, decode and check them: which library does it, and everything without torch."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from separator.audio import ffmpeg, sndfile
from separator.audio.formats import FORMATS, SUFFIXES, AudioError, AudioInfo, reporting
from separator.audio.wholeness import counts_frames


@dataclass(frozen=True)
class Checked:
    """A decoded file: peak of its finite samples, number of NaN or Inf samples."""

    info: AudioInfo
    samples: int
    peak: float
    non_finite: int


def probe(path: str | os.PathLike, *, stream: int = 0) -> AudioInfo:
    """Look at a file's header; `samples` is the exact decoded length of audio stream `stream`.

    AAC counts the padding that completes its last block, as FFmpeg's decoder does (at most 2047
    samples more than the container declares). An m4a with other channels than `to_channels` takes
    their number for, such as L R C and a centre surround, is decoded to stereo and counted so.

    Raises:
        AudioError: missing, empty, unsupported, not audio, or a truncated container.
    """
    path = Path(path)
    return (ffmpeg if by_ffmpeg(path) else sndfile).probe(path, stream)


def verify(path: str | os.PathLike) -> Checked:
    """Decode a whole file once and measure it; what it holds is judged by the caller.

    Raises:
        AudioError: the file is broken or truncated (where its format lets that be seen).
    """
    path = Path(path)
    info = probe(path)
    samples, peak, non_finite = 0, 0.0, 0
    for block in regrouped(decoded(path, 0, None, 1 << 18, 0), 1 << 18):
        lost = block.size - np.count_nonzero(np.isfinite(block))
        if lost:
            non_finite += lost
            block = np.nan_to_num(block, nan=0.0, posinf=0.0, neginf=0.0)
        samples += block.shape[1]
        peak = max(peak, float(np.abs(block).max()))
    return Checked(info, samples, peak, non_finite)


def content_key(path: str | os.PathLike) -> str:
    """Return a hash (blake2b, hex) of the coded audio, the same after moving and re-tagging.

    It covers codec, rate, channels and the packets of every audio stream; nothing is decoded.

    Raises:
        AudioError: missing, empty, unsupported, or no audio packets in it.
    """
    path = Path(path)
    by_ffmpeg(path)
    digest = hashlib.blake2b(digest_size=32)
    for piece in ffmpeg.coded(path):
        digest.update(piece)
    return digest.hexdigest()


def decoded(
    path: Path, start: int, stop: int | None, size: int, stream: int
) -> Iterator[np.ndarray]:
    """Samples [start, stop) in order, in parts (c t) float32 of at most about `size`."""
    if by_ffmpeg(path):
        with reporting(path):
            yield from ffmpeg.decode(path, start, stop, stream)
    else:
        yield from sndfile.decode(path, start, stop, size, stream)


def regrouped(parts: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Cut parts (c t) of any lengths into contiguous ones with t = size, the last one shorter."""
    held: list[np.ndarray] = []
    count = 0
    for part in parts:
        held.append(part)
        count += part.shape[1]
        if count >= size:
            wave = np.concatenate(held, axis=1)
            cut = count - count % size
            for at in range(0, cut, size):
                yield np.ascontiguousarray(wave[:, at : at + size])
            held, count = [wave[:, cut:]], count - cut
    if count:
        yield np.concatenate(held, axis=1)


def by_ffmpeg(path: Path) -> bool:
    """Whether FFmpeg rather than libsndfile decodes this file, having refused what neither can."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise AudioError(f"{path}: unsupported suffix; use one of {' '.join(sorted(SUFFIXES))}")
    with reporting(path, "check the name and its permissions"):
        if path.is_dir():
            raise AudioError(f"{path}: is a folder; give an audio file")
        if path.exists() and not path.is_file():
            raise AudioError(f"{path}: not a regular file; give an audio file")
        with open(path, "rb") as file:
            if not file.read(1):
                raise AudioError(f"{path}: empty, zero bytes long; remove it")
            return FORMATS[suffix] == "m4a" or (suffix == ".mp3" and not counts_frames(file))

"""Probe, check and tell files apart: everything that needs no torch."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from separator.audio.damage import Damage
from separator.audio.demuxer import coded
from separator.audio.info import AudioError, AudioInfo
from separator.audio.mpeg_backend import MpegSource
from separator.audio.sources import BLOCK_SAMPLES, Source, source_of


@dataclass(frozen=True)
class Checked:
    """A decoded file: peak of its finite samples, number of NaN or Inf samples.

    `notices` are those of `info`, and what was found damaged.
    """

    info: AudioInfo
    samples: int
    peak: float
    non_finite: int
    notices: tuple[str, ...] = ()


def probe(path: str | os.PathLike, *, stream: int = 0) -> AudioInfo:
    """Look at a file without decoding it, where its header can be believed.

    A header's length is a claim: it is compared with the file's bytes, and where they disagree the
    sound is decoded and what decodes counts. The result is remembered while the file stays the
    same. AAC counts the padding that completes its last block, as FFmpeg's decoder does (at most
    2047 samples more than the container declares). A layout that `to_channels` takes for another,
    such as L R C and a centre surround, is folded to stereo and counted so.

    Args:
        path: the file.
        stream: one of several audio streams.

    Returns:
        A description in which `samples` is the exact decoded length.

    Raises:
        AudioError: missing, empty, not audio, an absurd rate, or truncated: more than 1 s and 1 %
            of what the header declares is not there.
    """
    return source_of(path, stream).info


def verify(path: str | os.PathLike) -> Checked:
    """Decode a whole file once and measure it.

    Args:
        path: the file.

    Returns:
        Length, peak and damage, which the caller judges.

    Raises:
        AudioError: as `probe`, or more than 1 s and 1 % of it is damaged.
    """
    source = source_of(path)
    damage = Damage(source.info.path, source.info.rate)
    samples, peak, non_finite = 0, 0.0, 0
    for block in regrouped(source.decode(0, None, BLOCK_SAMPLES, damage), BLOCK_SAMPLES):
        bad = block.size - np.count_nonzero(np.isfinite(block))
        if bad:
            non_finite += bad
            block = np.nan_to_num(block, nan=0.0, posinf=0.0, neginf=0.0)
        samples += block.shape[1]
        peak = max(peak, float(np.abs(block).max()))
    damage.check(source.info.samples)
    info = replace(source.info, samples=samples)
    return Checked(info, samples, peak, non_finite, info.notices + damage.notices())


def content_key(path: str | os.PathLike) -> str:
    """Return a hash (blake2b, hex) of the coded audio, the same after moving and re-tagging.

    It covers codec, rate, channels and the packets of every audio stream; only a file that FFmpeg
    cannot demux is decoded.

    Args:
        path: the file.

    Raises:
        AudioError: as `probe`.
    """
    digest = hashlib.blake2b(digest_size=32)
    for piece in _coded(source_of(path)):
        digest.update(piece)
    return digest.hexdigest()


def _coded(source: Source) -> Iterator[bytes]:
    if isinstance(source.backend, MpegSource):
        yield from source.backend.coded()
        return
    pieces = coded(source.info.path)
    try:
        yield next(pieces)
    except AudioError:
        parts = source.decode(0, None, BLOCK_SAMPLES, lambda *_: None)
        yield f"{source.info.codec} {source.info.rate} {source.info.channels};".encode()
        pieces = (part.T.tobytes() for part in parts)
    yield from pieces


def regrouped(parts: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Regroup parts of any lengths.

    Args:
        parts: (c t) each.
        size: samples of a new part.

    Yields:
        Contiguous parts (c t) with t = size, the last one shorter.
    """
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

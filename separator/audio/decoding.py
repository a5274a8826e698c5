"""Probe, check, read and tell files apart, with arrays: everything that needs no torch."""

import hashlib
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from separator.audio.damage import Damage
from separator.audio.demuxer import coded
from separator.audio.info import AudioError, AudioInfo
from separator.audio.mpeg_backend import MpegSource
from separator.audio.sources import BLOCK_SAMPLES, Source, source_of
from separator.errors import printable

log = logging.getLogger(__name__)


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
        bad = block.size - int(np.count_nonzero(np.isfinite(block)))
        if bad:
            non_finite += bad
            block = np.nan_to_num(block, nan=0.0, posinf=0.0, neginf=0.0)
        samples += block.shape[1]
        peak = max(peak, float(np.abs(block).max()))
    damage.check(source.info.samples)
    info = replace(source.info, samples=samples)
    return Checked(info, samples, peak, non_finite, info.notices + damage.notices())


def read_array(
    path: str | os.PathLike, start: int = 0, samples: int | None = None, *, stream: int = 0
) -> np.ndarray:
    """Decode a part of a file, at the file's rate, into an array.

    Nothing is clipped or normalised. Damage is silence, or missing where its length is unknown: at
    most 1 s or 1 % of the whole.

    Args:
        path: the file.
        start: first sample.
        samples: how many; to the end when not given.
        stream: one of several audio streams (.stem.mp4).

    Returns:
        (c t) float32, shorter than asked for only at the file's end.

    Raises:
        AudioError: as `probe`, and when more than that does not decode.
        ValueError: `start` or `samples` is negative.
    """
    if start < 0 or (samples is not None and samples < 0):
        raise ValueError(f"read: start and samples must not be negative ({start}, {samples})")
    source = source_of(path, stream)
    info = source.info
    stop = info.samples if samples is None else min(start + samples, info.samples)
    damage = Damage(info.path, info.rate)
    parts = list(source.decode(start, stop, 1 << 20, damage))
    damage.check(info.samples)
    if not parts:
        return np.zeros((info.channels, 0), np.float32)
    return np.concatenate(parts, axis=1) if len(parts) > 1 else np.ascontiguousarray(parts[0])


def blocks(
    path: str | os.PathLike, size: int = 1 << 18, *, stream: int = 0, strict: bool = False
) -> Iterator[np.ndarray]:
    """Decode a whole file in order.

    Damage is silence, or left out where its length is unknown, and a warning is logged.

    Args:
        path: the file.
        size: samples of a block.
        stream: one of several audio streams.
        strict: raise where the damage is, instead.

    Yields:
        arrays (c t) of float32 with t = size, the last one shorter.

    Raises:
        AudioError: as `probe`; more than half of it does not decode.
    """
    source = source_of(path, stream)
    info = source.info
    damage = Damage(info.path, info.rate, strict)
    yield from regrouped(source.decode(0, None, size, damage), size)
    for notice in damage.notices():
        log.warning("%s: %s", printable(str(info.path)), notice)
    damage.check(info.samples, info.samples // 2)


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

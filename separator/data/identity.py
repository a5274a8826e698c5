"""Identify the songs of a run by their content, so that it may resume after they moved."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from separator.data.tracks import Source, Track

SAMPLED_BYTES = 4096  # bytes of a file's middle, which tells files of one length apart


def song_digests(tracks: Sequence[Track]) -> Tensor:
    """Return (n) int64, a number for each track, in order.

    It depends on all that decides what is drawn (the place of its root in the list, weight, split,
    name, lengths) and on the sound: by the scan's content key in a library, elsewhere by some bytes
    of each file. It does not depend on where the folders lie.
    """
    roots = {key: place for place, key in enumerate(dict.fromkeys(map(_root, tracks)))}
    numbers = [_digest(track, roots[_root(track)]) for track in tracks]
    return torch.tensor(numbers, dtype=torch.int64)


def _root(track: Track) -> tuple[str, str]:
    return track.root, track.kind


def _digest(track: Track, root: int) -> int:
    where = (root, track.kind, track.weight, track.split, track.name, track.samples, track.rate)
    sound = track.content or [(name, [*map(_source, group)]) for name, group in track.stems]
    packed = repr((where, sound)).encode(errors="surrogateescape")
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), signed=True)


def _source(source: Source) -> tuple:
    return source.samples, source.rate, source.stream, source.gain, _middle(source.path)


def _middle(path: Path) -> bytes:
    """Return bytes of a file's middle; none of a file that cannot be read, as training will say."""
    try:
        with path.open("rb") as file:
            file.seek(path.stat().st_size // 2)
            return file.read(SAMPLED_BYTES)
    except OSError:
        return b""

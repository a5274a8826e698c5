"""Choose song and position of each training segment, a function of (seed, batch, index).

The numbers are hashed, not added, so that no two seeds or batches walk through the same
sequence one place apart, and no random state has to be stored to resume a run.
"""

import bisect
import hashlib
import itertools
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from separator.data.tracks import Track
from separator.errors import SeparatorError
from separator.stems import ACCOMPANIMENT, POOL_FOLDERS, VOCALS

_WORD = (1 << 64) - 1


def uniforms(*key: int) -> tuple[float, ...]:
    """Return eight independent numbers, uniform in [0, 1), that depend on `key` alone.

    Args:
        key: integers; equal keys give equal numbers on every machine.

    Returns:
        Eight floats.
    """
    packed = struct.pack(f"<{len(key)}Q", *(number & _WORD for number in key))
    words = struct.unpack("<8Q", hashlib.blake2b(packed, digest_size=64).digest())
    return tuple((word >> 11) * 2.0**-53 for word in words)


@dataclass(frozen=True)
class Segment:
    """A part of a song.

    Attributes:
        track: Place of the song in the list of tracks.
        start: First sample, at the rate of the table.
        valid: Samples of music; fewer than the segment's when the song is shorter.
    """

    track: int
    start: int
    valid: int


@dataclass(frozen=True)
class _Group:
    """Songs of one source, drawn in proportion to their length."""

    members: tuple[int, ...]
    cumulative: tuple[int, ...]


@dataclass(frozen=True)
class SegmentTable:
    """Everything that a draw needs, computed once from the tracks.

    Attributes:
        samples: Length of a segment.
        lengths: Length of each track, at the same rate.
        groups: For each source, its songs, and for a pool also its voices.
        shares: Running sum of the sources' weights.
    """

    samples: int
    lengths: tuple[int, ...]
    groups: tuple[tuple[_Group, ...], ...]
    shares: tuple[float, ...]


def segment_table(tracks: Sequence[Track], samples: int, rate: int) -> SegmentTable:
    """Prepare draws of segments from songs.

    A root is drawn in proportion to its weight, whatever its size; a song within it in proportion
    to its length. Instrumentals of a pool are drawn for the pool; the voice is drawn separately.

    Args:
        tracks: the songs.
        samples: length of a segment, at `rate`.
        rate: sampling rate in Hz.

    Returns:
        The table for `draw_segment`.

    Raises:
        SeparatorError: there is no track, or a pool lacks one of its halves.
    """
    if not tracks:
        raise SeparatorError("data.roots: no song to draw segments from; add a root with songs")
    lengths = tuple(track.length(rate) for track in tracks)
    roots: dict[tuple[str, str], list[int]] = {}
    for place, track in enumerate(tracks):
        roots.setdefault((track.root, track.kind), []).append(place)
    groups = tuple(_halves(root, places, tracks, lengths) for (root, _), places in roots.items())
    shares = tuple(itertools.accumulate(tracks[group[0].members[0]].weight for group in groups))
    return SegmentTable(samples, lengths, groups, shares)


def _halves(
    root: str, places: list[int], tracks: Sequence[Track], lengths: Sequence[int]
) -> tuple[_Group, ...]:
    """One group for songs; two, instrumentals and voices, for a pool."""
    voices = [i for i in places if tracks[i].names == (VOCALS,)]
    songs = [i for i in places if tracks[i].names != (VOCALS,)]
    lonely = [i for i in songs if tracks[i].names == (ACCOMPANIMENT,)]
    if not songs or (lonely and not voices):
        missing = POOL_FOLDERS[bool(songs)]
        raise SeparatorError(f"{root}: a pool without {missing}; add files to its {missing}/")
    halves = [songs, voices] if lonely else [songs]
    return tuple(
        _Group(tuple(half), tuple(itertools.accumulate(lengths[i] for i in half)))
        for half in halves
    )


def draw_segment(
    table: SegmentTable, seed: int, batch: int, index: int, attempt: int = 0
) -> tuple[Segment, ...]:
    """Draw a song, and a start uniform over every place where the segment fits.

    Args:
        table: of the songs.
        seed: of the run.
        batch: number of the batch.
        index: number of the segment in the batch.
        attempt: another independent draw for the same number, where the first cannot be used.

    Returns:
        One segment; for a pool two, of an instrumental and of the voice to be mixed with it. Equal
        arguments give equal segments on every machine.
    """
    drawn = uniforms(seed, batch, 0, index, attempt)  # 0: the draws of earlier versions' rank 0
    source = _place(table.shares, drawn[0])
    return tuple(
        _segment(table, group, drawn[1 + 2 * half], drawn[2 + 2 * half])
        for half, group in enumerate(table.groups[source])
    )


def _place(cumulative: Sequence[float], uniform: float) -> int:
    """Index drawn in proportion to the steps of a running sum."""
    return min(bisect.bisect_right(cumulative, uniform * cumulative[-1]), len(cumulative) - 1)


def _segment(table: SegmentTable, group: _Group, song: float, start: float) -> Segment:
    """Return the segment that two uniform numbers choose from one group."""
    track = group.members[_place(group.cumulative, song)]
    room = table.lengths[track] - table.samples
    return Segment(track, int(start * (max(room, 0) + 1)), min(table.samples, table.lengths[track]))

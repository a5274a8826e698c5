"""The notation of `data.roots`, KIND:PATH@WEIGHT, and the share of each root that trains."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from separator.data.layouts import LAYOUTS
from separator.data.splits import first_by_hash
from separator.errors import SeparatorError

if TYPE_CHECKING:
    from separator.data.tracks import Track

log = logging.getLogger(__name__)


def parse_root(text: str) -> tuple[str, str, float]:
    """Split "KIND:PATH@WEIGHT".

    Args:
        text: an entry of `data.roots`.

    Returns:
        Path, kind ("auto" when left out) and weight (1.0 when left out).

    Raises:
        SeparatorError: a weight that is not above 0, or an unknown kind before a path that is not
            there.
    """
    named, colon, rest = text.partition(":")
    kind, path = (named, rest) if colon and named in LAYOUTS else ("auto", text)
    path, weight = _weighted(path, text)
    if not path:
        raise SeparatorError(f"{text}: names no folder; give KIND:PATH or PATH@WEIGHT")
    drive = len(named) == 1  # C:\Music
    if kind == "auto" and colon and named.isalpha() and not drive and not _exists(path):
        raise SeparatorError(
            f"{text}: no such folder, and {named!r} is none of {', '.join(LAYOUTS)}"
        )
    return path, kind, weight


def _weighted(path: str, text: str) -> tuple[str, float]:
    """Split "PATH@WEIGHT"; what is a folder as it stands has no weight."""
    before, at, weight = path.rpartition("@")
    if not at or _exists(path):
        return path, 1.0
    try:
        share = float(weight)
    except ValueError:
        return path, 1.0
    if not 0 < share < float("inf"):
        raise SeparatorError(f"{text}: the weight after @ must be above 0")
    return before, share


def _exists(path: str) -> bool:
    return Path(path).expanduser().exists()


def fraction_of(tracks: list["Track"], fraction: float) -> list["Track"]:
    """Keep a share of the songs of each root, at least one; pools and libraries stay whole.

    Songs are ordered by a hash of their names, so a larger share contains a smaller one, and no
    seed of a run changes it.

    Args:
        tracks: the songs.
        fraction: share in (0, 1].

    Returns:
        The songs that stay, in the same order.
    """
    roots: dict[str, list[Track]] = {}
    for track in tracks:
        if not LAYOUTS[track.kind].whole:
            roots.setdefault(track.root, []).append(track)
    left_out: set[int] = set()
    for songs in roots.values():
        kept = {id(song) for song in first_by_hash(songs, max(1, round(fraction * len(songs))))}
        left_out.update(id(song) for song in songs if id(song) not in kept)
    if left_out:
        log.info("data.fraction: %d songs are left out", len(left_out))
    return [track for track in tracks if id(track) not in left_out]

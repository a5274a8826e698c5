"""From `data.roots` to songs: what the words mean, and which songs train and which validate."""

import logging
import os
from pathlib import Path

from separator.data.cache import StemCache, is_compressed
from separator.data.config import DataConfig
from separator.data.layouts import FINDERS
from separator.data.splits import first_by_hash
from separator.data.tracks import Track, find_tracks
from separator.errors import SeparatorError, printable

log = logging.getLogger(__name__)


def parse_root(text: str) -> tuple[str, str, float]:
    """Split "KIND:PATH@WEIGHT" into path, kind ("auto" when left out) and weight (1.0).

    Raises:
        SeparatorError: a weight that is not above 0, or an unknown kind before what is no folder.
    """
    named, colon, rest = text.partition(":")
    kind, path = (named, rest) if colon and named in FINDERS else ("auto", text)
    path, weight = _weighted(path, text)
    drive = len(named) == 1  # C:\Music
    if kind == "auto" and colon and named.isalpha() and not drive and not _exists(path):
        raise SeparatorError(
            f"data.roots: {printable(text)}: no such folder, and {named!r} is none of "
            f"{', '.join(FINDERS)}"
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
        raise SeparatorError(f"data.roots: {printable(text)}: the weight after @ must be above 0")
    return before, share


def _exists(path: str) -> bool:
    return Path(path).expanduser().exists()


def config_tracks(config: DataConfig) -> list[Track]:
    """Find the songs of every root, of all splits, and decode MUSDB18's stems that are not cached.

    The split does not depend on a run's seed, so that runs can be compared. What several roots hold
    is the first one's: with another name elsewhere, a song could both train and validate.
    """
    tracks: list[Track] = []
    seen: set[object] = set()
    for path, kind, weight in map(parse_root, config.roots):
        found = find_tracks(path, kind, weight, config.valid_share)
        fresh = [track for track in found if track.identity not in seen]
        if len(fresh) < len(found):
            again = len(found) - len(fresh)
            songs = f"{again} song{'s' * (again != 1)}"
            log.warning("%s: left out: %s that a root before it has too", printable(path), songs)
        seen.update(track.identity for track in fresh)
        tracks += fresh
    paths = {source.path for track in tracks for _, group in track.stems for source in group}
    compressed = sorted(filter(is_compressed, paths))
    StemCache(config.cache_gb).prepare(compressed, threads=max(1, (os.cpu_count() or 2) // 2))
    return tracks


def training_tracks(config: DataConfig) -> tuple[list[Track], list[Track]]:
    """Find the songs to train on and those to validate with.

    Raises:
        SeparatorError: one of the two is empty.
    """
    tracks = config_tracks(config)
    splits = {name: [t for t in tracks if t.split == name] for name in ("train", "valid")}
    for name, found in splits.items():
        if not found:
            fix = "add songs, or set data.valid_share between 0 and 1"
            if len(tracks) == 1:
                fix = "there is 1 song, and one trains and another validates: add songs"
            elif name == "train" or config.valid_share:
                fix = "add songs"
            roots = printable(", ".join(config.roots))
            raise SeparatorError(f"data.roots: {roots}: no songs for the split {name!r}; {fix}")
    return fraction_of(splits["train"], config.fraction), splits["valid"]


def fraction_of(tracks: list[Track], fraction: float) -> list[Track]:
    """Keep a share of the songs of each root that is no pool or library, at least one of them.

    Songs are ordered by a hash of their names, so a larger share contains a smaller one, and no
    seed of a run changes it.
    """
    roots: dict[str, list[Track]] = {}
    for track in tracks:
        if track.kind not in ("pool", "library"):
            roots.setdefault(track.root, []).append(track)
    left_out: set[int] = set()
    for songs in roots.values():
        kept = {id(song) for song in first_by_hash(songs, max(1, round(fraction * len(songs))))}
        left_out.update(id(song) for song in songs if id(song) not in kept)
    if left_out:
        log.info("data.fraction: %d songs are left out", len(left_out))
    return [track for track in tracks if id(track) not in left_out]

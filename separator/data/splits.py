"""Split songs for training, validation and test: by their folders, by musdb's list, or a share."""

import functools
import hashlib
import importlib.util
import logging
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from separator.data.library.musdb_holdout import held_out
from separator.errors import SeparatorError, printable
from separator.stems import ACCOMPANIMENT, POOL_FOLDERS, VOCALS

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from separator.data.layouts.layout import SongFiles
    from separator.data.tracks import Track

Parts = tuple[str, ...]  # of a path below a root: folders, and the song's name last

# Names of the folders around songs, in any case; "training_set" and "Test songs" are meant too.
FOLDERS = {
    "train": ("train", "training"),
    "valid": ("valid", "validation", "validate", "val", "dev", "development"),
    "test": ("test", "testing"),
}
_SPLITS = {name: split for split, names in FOLDERS.items() for name in names}
_MORE = ("set", "sets", "dataset", "data", "songs", "tracks", "split", "files")
# A split's name, or a word that says as much, with a number or one of these words behind it.
_ALIKE = (*_SPLITS, "trn", "tst", "eval", "evaluation", "holdout", "held out", "heldout", "fold")
_ENDINGS = (*_MORE, "clean", "other", "hq", "small", "large", "full", "new", "old", "a", "b")
_LIKE = re.compile(rf"({'|'.join(_ALIKE)})( ({'|'.join(_ENDINGS)}|\d+))*")
_FIX = "rename them to train, valid (or validation, val, dev) and test"


def split_of(folder: str) -> str | None:
    """Return the split that a folder's name stands for, if it does."""
    first, *rest = _words(folder) or [""]
    glued = re.sub(f"(?<=.)({'|'.join(_MORE)})$", "", first)
    split = _SPLITS.get(first) or _SPLITS.get(glued)
    return split if all(word in _MORE for word in rest) else None


def placed(root: Path, songs: Iterable[Parts], exclusive: bool = False) -> dict[Parts, str | None]:
    """Find the split of each song that lies in folders named after splits.

    The top folders below the root may be splits, and those further down where one of them is for
    training and another is not: `root/MUSDB18/{train,test}/SONG`.

    Args:
        root: the folder, for messages.
        songs: their paths below the root.
        exclusive: count such folders only where nothing else stands beside them and one trains and
            another does not: in a library, "Train" is also the name of a band.

    Returns:
        The split of each path; None where no folder says it.

    Raises:
        SeparatorError: a folder beside splits looks like one and is not understood.
    """
    songs = list(songs)
    beside: dict[Parts, set[str]] = defaultdict(set)
    for parts in songs:
        for depth in range(len(parts)):
            beside[parts[:depth]].add(parts[depth] if depth < len(parts) - 1 else "")
    levels = {at for at, names in beside.items() if _are_splits(root, at, names, exclusive)}

    def split(parts: Parts) -> str | None:
        splits = (split_of(parts[k]) for k in range(len(parts) - 1) if parts[:k] in levels)
        return next(filter(None, splits), None)

    return {parts: split(parts) for parts in songs}


def without_split(parts: Parts, split: str | None) -> str:
    """Return a song's name: its path below the root without its split's folder.

    Args:
        parts: the path.
        split: of the song.
    """
    folders = [k for k, part in enumerate(parts[:-1]) if split and split_of(part) == split]
    return "/".join(part for k, part in enumerate(parts) if k not in folders[:1])


def _are_splits(root: Path, level: Parts, names: set[str], exclusive: bool) -> bool:
    """Whether folders that stand side by side ("" for songs among them) are splits."""
    folders = names - {""}
    splits = {split_of(name) for name in folders} - {None}
    alike = sorted(name for name in folders if not split_of(name) and _looks_like(name))
    if exclusive and ("" in names or any(not split_of(n) for n in folders.difference(alike))):
        return False
    if alike and (splits or len({_words(name)[0] for name in alike}) > 1):
        place = root.joinpath(*level)
        listed = ", ".join(f"{name}/" for name in alike)
        raise SeparatorError(f"{place}: {listed}: named like a split, but not understood; {_FIX}")
    several = "train" in splits and len(splits) > 1
    return several or (bool(splits) and not level and not exclusive)


def _looks_like(folder: str) -> bool:
    """Whether a folder is named like a split, perhaps with a number or a usual ending."""
    return bool(_LIKE.fullmatch(" ".join(_words(folder))))


def _words(name: str) -> list[str]:
    """Words and numbers of a name, in small letters: "Test-2" and "test2" are the same."""
    plain = unicodedata.normalize("NFKC", name).casefold()
    return re.findall(r"[^\W\d_]+|\d+", plain)


@functools.cache
def musdb_setup() -> dict:
    """Read musdb's configuration file.

    The file is read without musdb, which cannot be imported where the ffmpeg program is missing.
    musdb does not list songs here either: it starts ffprobe for each, and one broken file ends its
    listing.

    Returns:
        "validation_tracks": names of songs; "stem_ids": number of each stem's stream.

    Raises:
        SeparatorError: musdb is not installed.
    """
    spec = importlib.util.find_spec("musdb")
    if not spec or not spec.origin:
        raise SeparatorError("MUSDB18's lists need musdb; pip install 'separator[train]'")
    text = (Path(spec.origin).parent / "configs" / "mus.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


def with_lists(root: Path, songs: "list[SongFiles]") -> "list[SongFiles]":
    """Hold out the songs that MUSDB18 tests and validates with, where folders do not say it.

    Songs of its test set that lie in no split's folder are for testing, in any collection. Where no
    folder is for validation, the songs of train/ that musdb names are; where it names none, all
    songs of train/ are left without a split: a share of them can then validate.

    Args:
        root: the collection, for messages.
        songs: all its songs.

    Returns:
        The songs in the same order.
    """
    songs = _tested(root, songs)
    splits = {song.split for song in songs}
    if "valid" in splits or "train" not in splits:
        return songs
    named = {song.name for song in songs} & set(musdb_setup()["validation_tracks"])

    def split(song: "SongFiles") -> str | None:
        if song.split != "train":
            return song.split
        return "valid" if song.name in named else "train" if named else None

    return [replace(song, split=split(song)) for song in songs]


def _tested(root: Path, songs: "list[SongFiles]") -> "list[SongFiles]":
    """Hold out MUSDB18's test songs that no folder places; say so where train/ has some."""
    tested = {id(song) for song in songs if held_out(Path(song.name), {})}
    trained = [song.name for song in songs if id(song) in tested and song.split == "train"]
    if trained:
        log.warning(
            "%s: songs of MUSDB18's test set in the folders for training: %d, such as %s; a model "
            "trained on them cannot be scored on that set",
            *(printable(str(root)), len(trained), printable(trained[0])),
        )
    if split_of(root.name) in ("valid", "test") and not any(song.split for song in songs):
        log.warning(
            "%s: named like a folder of songs that are held out; give the folder above it to "
            "hold them out",
            printable(str(root)),
        )
    free = {id(song) for song in songs if not song.split}
    return [replace(s, split="test") if id(s) in tested & free else s for s in songs]


def uniform(name: str, draw: int) -> float:
    """Return a number that depends on a song's name alone, on every system.

    Args:
        name: of the song.
        draw: another number of it is independent.

    Returns:
        A number uniform in [0, 1).
    """
    text = f"{draw}:{unicodedata.normalize('NFC', name)}"
    coded = text.encode(errors="surrogateescape")  # a file's name need not be text
    return int.from_bytes(hashlib.blake2b(coded, digest_size=6).digest()) / 2**48


def first_by_hash(tracks: "Sequence[Track]", most: int) -> "list[Track]":
    """Choose songs by a hash of their names: more contain fewer, on every system.

    Args:
        tracks: the songs.
        most: number of songs to choose.

    Returns:
        At most so many songs.
    """
    return sorted(tracks, key=lambda t: hashlib.blake2b(os.fsencode(t.name)).digest())[:most]


def shared_out(tracks: "list[Track]", share: float) -> "list[Track]":
    """Assign a split to the tracks without one.

    Args:
        tracks: songs of one collection.
        share: share of the songs without a split that validates.

    Returns:
        The tracks in the same order.
    """
    free = {t.name: uniform(t.name, 0) for t in tracks if not t.split}
    valid = {name for name, number in free.items() if number < share}
    if len(free) > 1 and share > 0 and not valid:
        valid = {min(free, key=free.__getitem__)}
    if len(free) > 1 and len(valid) == len(free):
        valid.remove(max(free, key=free.__getitem__))
    return [
        t if t.split else replace(t, split="valid" if t.name in valid else "train") for t in tracks
    ]


def pool_shared_out(tracks: "list[Track]", share: float) -> "list[Track]":
    """Split both halves of a pool, and give each instrumental held out a fixed voice.

    Args:
        tracks: instrumentals and voices.
        share: share of each half that validates.

    Returns:
        Halves to train on, and songs with both stems to validate and test with.

    Raises:
        SeparatorError: the pool lacks one of its halves.
    """
    halves = [[t for t in tracks if t.names == (name,)] for name in (ACCOMPANIMENT, VOCALS)]
    for name, half in zip(POOL_FOLDERS, halves, strict=True):
        if not half:
            raise SeparatorError(f"{tracks[0].root}: {name}/ has no usable file; add some")
    songs, voices = (shared_out(half, share) for half in halves)
    tracks = [t for t in songs + voices if t.split == "train"]
    for split in ("valid", "test"):
        spare = [t for t in voices if t.split == split]
        for song in (t for t in songs if t.split == split and spare):
            voice = spare[int(uniform(song.name, 1) * len(spare))]
            short = min(song, voice, key=lambda t: t.seconds)
            name = f"{song.name} with {voice.name}"
            stems = song.stems + voice.stems
            tracks.append(replace(short, name=name, split=split, stems=stems))
    return tracks

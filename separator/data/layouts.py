"""The layouts people keep songs in: which files belong to which song, without opening them."""

import logging
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from separator.data.cache import STEM_SUFFIX
from separator.data.splits import Parts, musdb_setup, placed, split_of, with_lists, without_split
from separator.data.stem_files import (
    FOUR,
    ONE,
    TWO,
    StemFile,
    Stems,
    holds_stems,
    role,
    sorted_stems,
    table,
    unclear,
)
from separator.data.walk import walk
from separator.errors import SeparatorError, printable

log = logging.getLogger(__name__)

# Folders of pairs and pools, in any case.
_MIXTURES = ("mixtures", "mixture", "mixes")
_INSTRUMENTALS = ("instrumentals", "instrumental", "instruments", "accompaniments")
_VOCALS = ("vocals", "voices", "acapellas")
_LOGGED = 5  # songs that are named when many have the same oddity


@dataclass(frozen=True)
class SongFiles:
    """A song as its files say: its collection's split, if it has one, and its stems.

    `content` is what the scan of a library tells the same audio by, in any file.
    """

    name: str
    split: str | None
    stems: Stems
    content: str = ""


def recognise(root: Path) -> str:
    """The kind of layout that a folder has; "library" when it is none of the others.

    At least half of its audio files, and of the folders that hold some, must be laid out so: one
    song with stems among a library's albums is not its layout, nor is a folder called "vocals".
    """
    files = _audio_files(root, [])
    if 2 * sum(path.name.endswith(STEM_SUFFIX) for path in files) >= max(1, len(files)):
        return "musdb18"
    for kind, others in (("pairs", _MIXTURES), ("pool", _VOCALS)):
        inside = set(_inside(files, _sides(root, _INSTRUMENTALS, others)))
        outside = [path for path in files if path not in inside and not _by_stem(root, path)]
        if inside and len(inside) >= len(outside):
            return kind
    folders = _folders(files, [])
    songs = [folder for folder, names in folders.items() if holds_stems(names)]
    inside = sum(len(folders[song]) for song in songs)
    if not songs or 2 * len(songs) < len(folders) or 2 * inside < len(files):
        return "library"
    splits = set(placed(root, [_parts(root, song) for song in songs]).values())
    return "musdb18hq" if splits <= {"train", "test"} else "stems"


def described(root: Path) -> str:
    """Say in one line which layout a folder with stems has; "" for a library."""
    kind = recognise(root)
    if kind == "library":
        return ""
    songs = list(FINDERS[kind](root, []))
    splits = [song.split or "not split" for song in songs]
    counts = ", ".join(f"{split} {splits.count(split)}" for split in sorted(set(splits)))
    counts = "not split" if set(splits) <= {"not split"} else counts
    stems = f"; {table(song.stems for song in songs)}" if FINDERS[kind] is _stem_folders else ""
    number = f"{len(songs)} song{'s' * (len(songs) != 1)}"
    return f"{printable(str(root))}: {kind}, {number} ({counts}){stems}"


def _audio_files(folder: Path, skipped: list[str]) -> list[Path]:
    """Audio files at any depth, in order."""
    walked = walk([str(folder)])
    skipped += [f"{printable(path)}: {reason}" for path, reason in walked.problems.items()]
    return sorted(map(Path, walked.stamps))


def files_by_folder(root: Path, skipped: list[str]) -> dict[Path, dict[str, Path]]:
    """Folders that hold audio files, at any depth, with these by their names without suffix."""
    return _folders(_audio_files(root, skipped), skipped)


def _folders(files: Iterable[Path], skipped: list[str]) -> dict[Path, dict[str, Path]]:
    """The folders that hold files, each with these by their names without suffix.

    Of two that differ in their suffix or in capitals alone, the first counts.
    """
    folders: dict[Path, dict[str, Path]] = {}
    for path in files:
        names = folders.setdefault(path.parent, {})
        same = next((name for name in names if name.casefold() == path.stem.casefold()), None)
        if same is None:
            names[path.stem] = path
        else:
            taken = printable(names[same].name)
            skipped.append(f"{printable(str(path))}: {taken} has the same name and is taken")
    return folders


def _parts(root: Path, song: Path) -> Parts:
    """A song's path below the root; the root's name where the root is the song."""
    return song.relative_to(root).parts or (root.name,)


def _musdb18(root: Path, skipped: list[str]) -> list[SongFiles]:
    """MUSDB18's compressed songs: five streams each, of which 0 is the mixture."""
    streams = musdb_setup()["stem_ids"]
    files = _audio_files(root, skipped)
    songs = [path for path in files if path.name.endswith(STEM_SUFFIX)]
    _warn_of_others(root, len(files) - len(songs), f"*{STEM_SUFFIX}")
    places = placed(root, [_parts(root, path) for path in songs])
    found = []
    for path in songs:
        parts = _parts(root, path)
        name = without_split(parts, places[parts]).removesuffix(STEM_SUFFIX)
        stems = {stem: (StemFile(path, streams[stem]),) for stem in FOUR}
        found.append(SongFiles(name, places[parts], stems))
    return with_lists(root, found)


def _stem_folders(root: Path, skipped: list[str]) -> list[SongFiles]:
    """Every folder with a vocals file, or with a mixture and an instrumental."""
    songs: dict[Path, Stems] = {}
    for folder, files in files_by_folder(root, skipped).items():
        stems = sorted_stems(files)
        if stems is None:
            reason = "has no vocals and accompaniment; name the files by stem"
            skipped.append(f"{printable(str(folder))}: {reason}")
        else:
            songs[folder] = stems
    for path in [path for stems in songs.values() for path in unclear(stems)][:_LOGGED]:
        log.warning("%s: counts as vocals, for its name; is it?", printable(str(path)))
    places = placed(root, [_parts(root, folder) for folder in songs])
    return with_lists(
        root, [_song(_parts(root, folder), songs[folder], places) for folder in songs]
    )


def _song(parts: Parts, stems: Stems, places: dict[Parts, str | None]) -> SongFiles:
    return SongFiles(without_split(parts, places[parts]), places[parts], stems)


def _sides(root: Path, *sides: tuple[str, ...]) -> list[tuple[Path, ...]]:
    """Folders of each of the kinds, side by side in the root or in the folders of its splits."""
    try:
        below = sorted(path for path in root.iterdir() if path.is_dir())
    except OSError:
        return []
    found = []
    for place in (root, *(path for path in below if split_of(path.name))):
        folders = below if place == root else sorted(p for p in place.iterdir() if p.is_dir())
        chosen = [
            next((f for name in names for f in folders if f.name.casefold() == name), None)
            for names in sides
        ]
        if all(chosen):
            found.append(tuple(chosen))
    return found


def _inside(files: Iterable[Path], places: Iterable[tuple[Path, ...]]) -> list[Path]:
    """Those of the files that lie in one of the folders."""
    folders = {folder for place in places for folder in place}
    return [path for path in files if not folders.isdisjoint(path.parents)]


def _by_stem(root: Path, path: Path) -> bool:
    """Whether a file lies in a folder named after a stem."""
    return any(role(folder)[1] for folder in path.relative_to(root).parts[:-1])


def _warn_of_others(root: Path, number: int, where: str) -> None:
    """Say that files of a folder do not belong to its layout."""
    if number:
        files = f"{number} audio file{'s' * (number != 1)}"
        log.warning("%s: left out: %s outside %s", printable(str(root)), files, where)


def _by_name(folder: Path, skipped: list[str]) -> dict[str, Path]:
    """Files by their path below a folder, without suffix; the same on every file system."""
    named: dict[str, Path] = {}
    for path in _audio_files(folder, skipped):
        name = unicodedata.normalize("NFC", path.relative_to(folder).with_suffix("").as_posix())
        if name in named:
            taken = printable(named[name].name)
            skipped.append(f"{printable(str(path))}: {taken} has the same name and is taken")
        named.setdefault(name, path)
    return named


def _pairs(root: Path, skipped: list[str]) -> list[SongFiles]:
    """Mixtures and instrumentals matched by name; what is left over is reported."""
    songs: dict[Parts, Stems] = {}
    sides = _sides(root, _MIXTURES, _INSTRUMENTALS)
    for folders in sides:
        mixtures, instrumentals = (_by_name(folder, skipped) for folder in folders)
        for name in sorted(mixtures.keys() ^ instrumentals.keys()):
            path = printable(str(mixtures.get(name) or instrumentals[name]))
            other = printable(folders[name in mixtures].name)
            skipped.append(f"{path}: has no file of the same name in {other}/; add or rename one")
        for name in mixtures.keys() & instrumentals.keys():
            stems = sorted_stems({"mixture": mixtures[name], "instrumental": instrumentals[name]})
            songs[(*folders[0].parent.relative_to(root).parts, *name.split("/"))] = stems or {}
    return _placed_songs(root, songs, sides)


def _pool(root: Path, skipped: list[str]) -> list[SongFiles]:
    """Every instrumental and every voice on its own."""
    songs: dict[Parts, Stems] = {}
    sides = _sides(root, _INSTRUMENTALS, _VOCALS)
    for folder, stem in ((f, stem) for pair in sides for f, stem in zip(pair, TWO, strict=True)):
        for name, path in _by_name(folder, skipped).items():
            parts = (*folder.relative_to(root).parts, *name.split("/"))
            songs[parts] = {stem: (StemFile(path),)}
    return _placed_songs(root, songs, sides)


def _placed_songs(
    root: Path, songs: dict[Parts, Stems], sides: list[tuple[Path, ...]]
) -> list[SongFiles]:
    """Songs of pairs or pools with their split; what else the root holds is told."""
    files = _audio_files(root, [])
    where = " and ".join(sorted({f"{printable(f.name)}/" for pair in sides for f in pair}))
    _warn_of_others(root, len(files) - len(_inside(files, sides)), where)
    places = placed(root, songs)
    return with_lists(root, [_song(parts, stems, places) for parts, stems in songs.items()])


def _library(root: Path, skipped: list[str]) -> list[SongFiles]:
    """Songs that the scan found sound: no broken, silent or duplicate ones."""
    from separator.data.library import scan

    library = scan([root])
    place = printable(str(root))
    if library.quarantined:
        kinds = ", ".join(f"{kind} {n}" for kind, n in library.totals()["quarantined"].items())
        log.warning("%s: left out: %s; `separator scan --report FILE` says why", place, kinds)
    if library.passed_over:
        kinds = ", ".join(f"{kind} {n}" for kind, n in library.passed_over.items())
        log.warning("%s: passed over: %s", place, kinds)
    _warn_of_stems(root, [song.path for song in library.songs])
    splits = placed(root, [_parts(root, song.path) for song in library.songs], exclusive=True)
    found = []
    for content, info in zip(library.keys, library.songs, strict=True):
        split = splits[_parts(root, info.path)]
        name = info.path.relative_to(root).as_posix()
        found.append(SongFiles(name, split, {ONE[0]: (StemFile(info.path, info=info),)}, content))
    return with_lists(root, found)


def _warn_of_stems(root: Path, songs: list[Path]) -> None:
    """Say that half of a library's songs or more look like stems in a layout that is not known."""
    named = [path for path in songs if _by_stem(root, path)]
    if songs and 2 * len(named) >= len(songs):
        log.warning(
            "%s: %d of %d files lie in folders named after stems and count as mixed songs; "
            "to train on stems, lay them out as SONG/vocals.wav, SONG/drums.wav, …",
            *(printable(str(root)), len(named), len(songs)),
        )


FINDERS: dict[str, Callable[[Path, list[str]], list[SongFiles]]] = {
    "musdb18": _musdb18,
    "musdb18hq": _stem_folders,
    "stems": _stem_folders,
    "pairs": _pairs,
    "pool": _pool,
    "library": _library,
}


def check_kind(root: Path, kind: str) -> str:
    """The kind of layout of `root`: as given, or recognised for "auto"."""
    if kind != "auto" and kind not in FINDERS:
        known = ", ".join(("auto", *FINDERS))
        place = printable(str(root))
        raise SeparatorError(f"{place}: kind {kind!r} is not known; use one of {known}")
    return recognise(root) if kind == "auto" else kind

"""Two folders side by side, with files of one kind in each: pairs and pools."""

import unicodedata
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from separator.data.layouts.layout import Layout, SongFiles, audio_files, in_stem_folder
from separator.data.splits import Parts, pool_shared_out, split_of
from separator.data.stem_files import StemFile, Stems, sorted_stems
from separator.errors import printable
from separator.stems import TWO_STEMS

if TYPE_CHECKING:
    from separator.data.tracks import Track

# Names of the folders, in any case.
Places = list[tuple[Path, ...]]  # the two folders of each collection below a root
_MIXTURES = ("mixtures", "mixture", "mixes")
_INSTRUMENTALS = ("instrumentals", "instrumental", "instruments", "accompaniments")
_VOCALS = ("vocals", "voices", "acapellas")


class PairedFolders(Layout):
    """Two folders side by side, in the root or in the folders of its splits.

    Attributes:
        sides: the names that each of the two may have.
    """

    sides: tuple[tuple[str, ...], tuple[str, ...]]

    def detect(self, root: Path, files: Sequence[Path]) -> bool:
        """Return whether half of the files are in such folders; those of stems do not count."""
        inside = set(_inside(files, self.places(root)))
        outside = [path for path in files if path not in inside and not in_stem_folder(root, path)]
        return bool(inside) and len(inside) >= len(outside)

    def find(self, root: Path, skipped: list[str]) -> list[SongFiles]:
        """List the songs; see `Layout.find`."""
        places = self.places(root)
        songs = self.songs(root, places, skipped)
        files = audio_files(root, [])
        names = " and ".join(sorted({f"{printable(f.name)}/" for place in places for f in place}))
        self.warn_of_others(root, len(files) - len(_inside(files, places)), names)
        return self.songs_of(root, songs)

    @abstractmethod
    def songs(self, root: Path, places: Places, skipped: list[str]) -> dict[Parts, Stems]:
        """Return the stems of each song, by its path below the root.

        Args:
            root: the collection.
            places: the two folders, for the root and for each split.
            skipped: gets a line for each file that no song uses.
        """

    def places(self, root: Path) -> Places:
        """Return the two folders, for the root and for each of its splits that has both."""
        try:
            below = sorted(path for path in root.iterdir() if path.is_dir())
        except OSError:
            return []
        places = []
        for place in (root, *(path for path in below if split_of(path.name))):
            folders = below if place == root else sorted(p for p in place.iterdir() if p.is_dir())
            matches = [
                [f for name in names for f in folders if f.name.casefold() == name]
                for names in self.sides
            ]
            if all(matches):
                places.append(tuple(match[0] for match in matches))
        return places


class Pairs(PairedFolders):
    """mixtures/ and instrumentals/, with files of the same names: vocals are the difference."""

    name = "pairs"
    order = 20
    sides = (_MIXTURES, _INSTRUMENTALS)

    def songs(self, root: Path, places: Places, skipped: list[str]) -> dict[Parts, Stems]:
        """Match mixtures and instrumentals by name; see `PairedFolders.songs`."""
        songs: dict[Parts, Stems] = {}
        for folders in places:
            mixtures, instrumentals = (_by_name(folder, skipped) for folder in folders)
            for name in sorted(mixtures.keys() ^ instrumentals.keys()):
                path = printable(str(mixtures.get(name) or instrumentals[name]))
                other = printable(folders[name in mixtures].name)
                reason = f"has no file of the same name in {other}/; add or rename one"
                skipped.append(f"{path}: {reason}")
            for name in mixtures.keys() & instrumentals.keys():
                files = {"mixture": mixtures[name], "instrumental": instrumentals[name]}
                parts = (*folders[0].parent.relative_to(root).parts, *name.split("/"))
                songs[parts] = sorted_stems(files) or {}
        return songs


class Pool(PairedFolders):
    """instrumentals/ and vocals/ that do not belong together: they are mixed at random."""

    name = "pool"
    order = 30
    sides = (_INSTRUMENTALS, _VOCALS)
    whole = True

    def songs(self, root: Path, places: Places, skipped: list[str]) -> dict[Parts, Stems]:
        """Return each file as a song with one stem; see `PairedFolders.songs`."""
        songs: dict[Parts, Stems] = {}
        pairs = (zip(place, TWO_STEMS.names, strict=True) for place in places)
        for folder, stem in chain.from_iterable(pairs):
            for name, path in _by_name(folder, skipped).items():
                parts = (*folder.relative_to(root).parts, *name.split("/"))
                songs[parts] = {stem: (StemFile(path),)}
        return songs

    def split(self, tracks: list["Track"], valid_share: float) -> list["Track"]:
        """Split both halves; each instrumental held out gets a fixed voice."""
        return pool_shared_out(tracks, valid_share)


def _inside(files: Iterable[Path], places: Places) -> list[Path]:
    """Return the files that lie in one of the folders."""
    folders = {folder for place in places for folder in place}
    return [path for path in files if not folders.isdisjoint(path.parents)]


def _by_name(folder: Path, skipped: list[str]) -> dict[str, Path]:
    """Map paths below a folder, without suffix and in one Unicode form, to files."""
    named: dict[str, Path] = {}
    for path in audio_files(folder, skipped):
        name = unicodedata.normalize("NFC", path.relative_to(folder).with_suffix("").as_posix())
        if name in named:
            taken = printable(named[name].name)
            skipped.append(f"{printable(str(path))}: {taken} has the same name and is taken")
        named.setdefault(name, path)
    return named


LAYOUTS = (Pairs(), Pool())

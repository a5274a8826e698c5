"""The interface of a layout, and how layouts list files."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from separator.data.library.walk import walk
from separator.data.splits import Parts, placed, shared_out, with_lists, without_split
from separator.data.stem_files import Stems, role
from separator.errors import counted, printable

if TYPE_CHECKING:
    from separator.data.tracks import Track

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SongFiles:
    """The files of a song, before any of them is opened.

    Attributes:
        name: path of the song below its root, without the folder of its split.
        split: "train", "valid", "test", or None where the collection does not say.
        stems: the files of each stem.
        content: key of the decoded audio; empty where no scan has computed it.
    """

    name: str
    split: str | None
    stems: Stems
    content: str = ""


class Layout(ABC):
    """A way to lay out a collection.

    Attributes:
        name: as in `data.roots`, "NAME:FOLDER".
        order: place in detection, the lowest first; the layout of order 60 takes every folder.
        stems_by_name: whether the stems are known by the files' names; the log then lists which
            files each stem consists of.
        whole: whether `data.fraction` leaves all songs in.
    """

    name: str
    order: int
    stems_by_name = False
    whole = False

    @abstractmethod
    def detect(self, root: Path, files: Sequence[Path]) -> bool:
        """Return whether most of a folder is laid out so.

        Args:
            root: the folder.
            files: all audio files below it, sorted.
        """

    @abstractmethod
    def find(self, root: Path, skipped: list[str]) -> list[SongFiles]:
        """List the songs below a folder, with the splits that its folders or musdb's lists give.

        Args:
            root: the folder.
            skipped: gets a line "PATH: reason" for each file that no song uses.
        """

    def split(self, tracks: list["Track"], valid_share: float) -> list["Track"]:
        """Assign a split to the tracks without one.

        Args:
            tracks: all songs of one folder.
            valid_share: share of them that validates.

        Returns:
            The tracks, each with a split.
        """
        return shared_out(tracks, valid_share)

    def songs_of(self, root: Path, songs: Mapping[Parts, Stems]) -> list[SongFiles]:
        """Describe songs, with the splits that their folders or musdb's lists give.

        Args:
            root: the collection.
            songs: the stems of each song, by its path below the root.

        Returns:
            The songs, each named by its path without the folder of its split.
        """
        splits = placed(root, songs)
        files = [SongFiles(without_split(p, splits[p]), splits[p], songs[p]) for p in songs]
        return with_lists(root, files)

    def warn_of_others(self, root: Path, number: int, where: str) -> None:
        """Log how many files of a folder do not belong to its layout.

        Args:
            root: the folder.
            number: of such files; 0 logs nothing.
            where: where files of the layout are.
        """
        if number:
            files = counted(number, "audio file")
            log.warning("%s: left out: %s outside %s", printable(str(root)), files, where)


def audio_files(folder: Path, skipped: list[str]) -> list[Path]:
    """List the audio files below a folder, at any depth, sorted.

    Args:
        folder: the folder.
        skipped: gets a line for each file or folder that cannot be reached.
    """
    walked = walk([str(folder)])
    skipped += [f"{printable(path)}: {reason}" for path, reason in walked.problems.items()]
    return sorted(map(Path, walked.stamps))


def grouped(files: Iterable[Path], skipped: list[str]) -> dict[Path, dict[str, Path]]:
    """Group files by their folders.

    Args:
        files: the files.
        skipped: gets a line for each file that is not used.

    Returns:
        For each folder its files by their names without suffix. Of two that differ only in the
        suffix or in capitals, the first is used.
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


def parts_of(root: Path, song: Path) -> Parts:
    """Return a song's path below the root; the root's name where the root is the song."""
    return song.relative_to(root).parts or (root.name,)


def in_stem_folder(root: Path, path: Path) -> bool:
    """Return whether a file lies in a folder that is named after a stem.

    Args:
        root: the collection.
        path: the file.
    """
    return any(role(folder)[1] for folder in path.relative_to(root).parts[:-1])

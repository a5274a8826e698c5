"""A folder for each song, with a file for each stem."""

import logging
from collections.abc import Sequence
from pathlib import Path

from separator.data.layouts.layout import Layout, SongFiles, audio_files, grouped, parts_of
from separator.data.splits import placed
from separator.data.stem_files import Stems, holds_stems, sorted_stems, unclear
from separator.errors import printable

log = logging.getLogger(__name__)

_LOGGED = 5  # songs that are named when many have the same problem


class SongFolders(Layout):
    """SONG/{vocals,drums,bass,other,…}: folders with vocals, or a mixture and an instrumental."""

    name = "stems"
    order = 50
    stems_by_name = True

    def detect(self, root: Path, files: Sequence[Path]) -> bool:
        """Return whether half of the files, and of the folders with files, are such songs.

        One song with stems among the albums of a library does not count.
        """
        return bool(_song_folders(files))

    def find(self, root: Path, skipped: list[str]) -> list[SongFiles]:
        """List the songs; see `Layout.find`."""
        songs: dict[Path, Stems] = {}
        for folder, files in grouped(audio_files(root, skipped), skipped).items():
            stems = sorted_stems(files)
            if stems is None:
                reason = "has no vocals and accompaniment; name the files by stem"
                skipped.append(f"{printable(str(folder))}: {reason}")
            else:
                songs[folder] = stems
        for path in [path for stems in songs.values() for path in unclear(stems)][:_LOGGED]:
            log.warning("%s: counts as vocals, for its name; is it?", printable(str(path)))
        return self.songs_of(root, {parts_of(root, folder): songs[folder] for folder in songs})


class Musdb18HQ(SongFolders):
    """MUSDB18-HQ: train/ and test/ with SONG/{mixture,drums,bass,other,vocals}.wav."""

    name = "musdb18hq"
    order = 40

    def detect(self, root: Path, files: Sequence[Path]) -> bool:
        """Return whether the folder is one of song folders, all of them in train/ and test/."""
        folders = _song_folders(files)
        splits = placed(root, [parts_of(root, folder) for folder in folders])
        return bool(folders) and set(splits.values()) <= {"train", "test"}


def _song_folders(files: Sequence[Path]) -> list[Path]:
    """Return the folders that hold stems; none where most of the files or folders are others."""
    folders = grouped(files, [])
    songs = [folder for folder, names in folders.items() if holds_stems(names)]
    inside = sum(len(folders[song]) for song in songs)
    return songs if 2 * len(songs) >= len(folders) and 2 * inside >= len(files) else []


LAYOUTS = (Musdb18HQ(), SongFolders())

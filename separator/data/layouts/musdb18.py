"""MUSDB18 as it is distributed: one file for each song, with five audio streams."""

from collections.abc import Sequence
from pathlib import Path

from separator.data.layouts.layout import Layout, SongFiles, audio_files
from separator.data.splits import Parts, musdb_setup
from separator.data.stem_cache import STEM_SUFFIX
from separator.data.stem_files import StemFile, Stems
from separator.stems import FOUR_STEMS


class Musdb18(Layout):
    """Songs `*.stem.mp4`, in train/ and test/ or in the folder itself.

    Stream 0, the mixture, is not used: it is coded on its own, and the sum of the stems is exact.
    """

    name = "musdb18"
    order = 10

    def detect(self, root: Path, files: Sequence[Path]) -> bool:
        """Return whether half of the files are such songs."""
        songs = sum(path.name.endswith(STEM_SUFFIX) for path in files)
        return 2 * songs >= max(1, len(files))

    def find(self, root: Path, skipped: list[str]) -> list[SongFiles]:
        """List the songs; see `Layout.find`."""
        streams = musdb_setup()["stem_ids"]
        files = audio_files(root, skipped)
        paths = [path for path in files if path.name.endswith(STEM_SUFFIX)]
        self.warn_of_others(root, len(files) - len(paths), f"*{STEM_SUFFIX}")
        songs: dict[Parts, Stems] = {}
        for path in paths:
            *folders, name = path.relative_to(root).parts
            stems: Stems = {stem: (StemFile(path, streams[stem]),) for stem in FOUR_STEMS.names}
            songs[(*folders, name.removesuffix(STEM_SUFFIX))] = stems
        return self.songs_of(root, songs)


LAYOUTS = (Musdb18(),)

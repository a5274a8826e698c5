"""A music library: mixed songs in any folders, without stems."""

import logging
from collections.abc import Sequence
from pathlib import Path

from separator.data.layouts.layout import Layout, SongFiles, in_stem_folder, parts_of
from separator.data.splits import placed, with_lists
from separator.data.stem_files import MIXTURE_ONLY, StemFile, Stems
from separator.errors import SeparatorError, printable

log = logging.getLogger(__name__)


class Library(Layout):
    """Every folder that no other layout recognises; `separator scan` decides which songs count."""

    name = "library"
    order = 60
    whole = True

    def detect(self, root: Path, files: Sequence[Path]) -> bool:
        """Return True: the last of the layouts takes every folder."""
        return True

    def find(self, root: Path, skipped: list[str]) -> list[SongFiles]:
        """List the songs that the scan found sound: no broken, silent or duplicate ones."""
        from separator.data.library.scan import RESULTS, WITHOUT_SOUND, scan

        library = scan([root])
        place = printable(str(root))
        if library.quarantined:
            kinds = ", ".join(f"{kind} {n}" for kind, n in library.totals()["quarantined"].items())
            log.warning("%s: left out: %s; `separator scan --report FILE` says why", place, kinds)
        passed_over = [f"{k} {n}" for k, n in library.passed_over.items() if k != WITHOUT_SOUND]
        if passed_over:
            log.warning("%s: passed over: %s", place, ", ".join(passed_over))
        if RESULTS in library.passed_over and not library.songs:
            raise SeparatorError(
                f"{root}: holds {RESULTS}, which are no songs; to use them as stems, write all of "
                "them with `separator separate --stems --name '{name}/{stem}.{format}'`"
            )
        _warn_of_stems(root, [song.path for song in library.songs])
        splits = placed(root, [parts_of(root, song.path) for song in library.songs], exclusive=True)
        songs = []
        for content, info in zip(library.keys, library.songs, strict=True):
            split = splits[parts_of(root, info.path)]
            name = info.path.relative_to(root).as_posix()
            stems: Stems = {MIXTURE_ONLY[0]: (StemFile(info.path, info=info),)}
            songs.append(SongFiles(name, split, stems, content))
        return with_lists(root, songs)


def _warn_of_stems(root: Path, songs: list[Path]) -> None:
    """Log that half of the songs or more look like stems in a layout that is not known."""
    named = [path for path in songs if in_stem_folder(root, path)]
    if songs and 2 * len(named) >= len(songs):
        log.warning(
            "%s: %d of %d files lie in folders named after stems and count as mixed songs; "
            "to train on stems, lay them out as SONG/vocals.wav, SONG/drums.wav, …",
            *(printable(str(root)), len(named), len(songs)),
        )


LAYOUTS = (Library(),)

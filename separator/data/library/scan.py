"""Index the songs of a library: which are fit for training, and why the others are not.

A file is opened only when its size or time of change is new. Then its content key tells whether
the same audio was seen before, elsewhere or with other tags; only unknown audio is decoded, once,
whole. What cannot be used is quarantined with a reason and never reaches training; nor do the songs
that MUSDB18 tests with, known by name or tags.

Kept: anything with at least one sample that is neither silent nor damaged, however short or long;
whoever draws segments decides what is too short for them.
"""

import contextlib
import itertools
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from separator.audio import AudioInfo
from separator.data.library.examination import RESULT, examined
from separator.data.library.index import Content, Index, Stamp
from separator.data.library.walk import Walked, checked_folders, walk
from separator.errors import SeparatorError
from separator.logs import bar as progress_bar

RESULTS = "results of `separator separate`"
WITHOUT_SOUND = "files without sound"


@dataclass(frozen=True)
class Library:
    """The result of a scan.

    Attributes:
        roots: the folders searched.
        songs: healthy files, each content once, sorted by path.
        keys: what tells the content of each of the songs, in the same order.
        quarantined: (path, "kind: reason") of what must not be used, sorted by path.
        duplicates: (path, the song with exactly the same audio), sorted by path.
        notices: (path, what its header says wrongly, or where and for how long it is damaged) of
            songs all the same, sorted by path.
        passed_over: kinds of files that are not taken, with their numbers: those of `walk.Walked`,
            `RESULTS`, which the program wrote, and `WITHOUT_SOUND`, as pictures and texts.
    """

    roots: tuple[Path, ...]
    songs: list[AudioInfo]
    keys: list[str]
    quarantined: list[tuple[Path, str]]
    duplicates: list[tuple[Path, Path]]
    notices: list[tuple[Path, str]] = field(default_factory=list)
    passed_over: dict[str, int] = field(default_factory=dict)

    def totals(self) -> dict[str, Any]:
        """Count files, songs, hours and, by their kinds, formats, rates (Hz) and what is unfit."""
        kinds = Counter(reason.split(":")[0] for _, reason in self.quarantined)
        return {
            "files": len(self.songs) + len(self.quarantined) + len(self.duplicates),
            "songs": len(self.songs),
            "hours": round(sum(song.seconds for song in self.songs) / 3600, 4),
            "formats": dict(Counter(song.format for song in self.songs).most_common()),
            "rates": {str(r): n for r, n in Counter(s.rate for s in self.songs).most_common()},
            "quarantined": dict(kinds.most_common()),
            "duplicates": len(self.duplicates),
            "notices": len(self.notices),
            "passed_over": self.passed_over,
        }


def scan(
    roots: Sequence[str | os.PathLike],
    index: str | os.PathLike | None = None,
    jobs: int | None = None,
) -> Library:
    """Bring the index up to date with folders and list what is in them.

    Whatever was examined before an interruption is not examined again. With several processes the
    caller's own script needs the usual `if __name__ == "__main__":`.

    Args:
        roots: folders.
        index: the index file; `default_index()` when not given.
        jobs: processes; when not given, as many as there are cores and work for.

    Returns:
        Songs, quarantined files, duplicates and notices.

    Raises:
        SeparatorError: a root is not a folder, there is no audio in any, or the index is unusable.
    """
    check_jobs(jobs)
    folders = checked_folders(roots, "give folders that hold music")
    walked = walk(folders)
    stamps = walked.stamps
    if not stamps and not walked.problems:
        names = ", ".join(folders)
        others = f" that can be read ({walked.left_out()})" if walked.passed_over else ""
        raise SeparatorError(f"{names}: no audio files{others}; give folders that hold music")
    with Index(index or default_index()) as store:
        contents = _unchanged(store, folders, stamps)
        pending = {path: stamp for path, stamp in stamps.items() if path not in contents}
        walked.problems |= _examine(store, pending, jobs)
        for folder in folders:
            if any(path.startswith(os.path.join(folder, "")) for path in stamps):
                store.forget(folder, stamps)  # an empty folder may be a drive that is not mounted
        contents = _unchanged(store, folders, stamps) if pending else contents
    return _library(folders, contents, walked)


def default_index() -> Path:
    """Return $SEPARATOR_INDEX, or library.sqlite in the user's data folder."""
    import platformdirs

    folder = platformdirs.user_data_dir("separator", appauthor=False)
    return Path(os.environ.get("SEPARATOR_INDEX") or os.path.join(folder, "library.sqlite"))


def check_jobs(jobs: int | None) -> None:
    """Refuse a number of processes below 1.

    Args:
        jobs: number of processes; None stands for one on each core.

    Raises:
        SeparatorError: it is less than 1.
    """
    if jobs is not None and jobs < 1:
        raise SeparatorError(f"jobs: {jobs} is less than 1; leave it out to use every core")


def _unchanged(
    store: Index, folders: list[str], stamps: Mapping[str, Stamp]
) -> dict[str, tuple[str, Content]]:
    rows = (store.unchanged(folder, stamps).items() for folder in folders)
    return dict(itertools.chain.from_iterable(rows))


def _examine(store: Index, pending: Mapping[str, Stamp], jobs: int | None) -> dict[str, str]:
    """Examine and record files; return path -> reason of those to be tried again next time."""
    if not pending:
        return {}
    again = {}
    with (
        progress_bar(total=len(pending), desc="scan", unit="file") as bar,
        contextlib.closing(examined(pending, store.path, jobs)) as findings,
    ):
        for finding in findings:
            if finding.key:
                store.record([finding])
            elif finding.content:
                again[finding.path] = f"{finding.content.status}: {finding.content.reason}"
            bar.update()
    return again


def _library(
    folders: list[str], contents: Mapping[str, tuple[str, Content]], walked: Walked
) -> Library:
    """Sort known files into songs, quarantined files and duplicates."""
    songs, duplicates, notices = [], [], []
    quarantined = [(Path(path), reason) for path, reason in walked.problems.items()]
    kept: dict[str, Path] = {}
    for name, (key, content) in sorted(contents.items()):
        path = Path(name)
        if content.status == RESULT.status:
            walked.passed_over[RESULTS] += 1
        elif content.status != "ok":
            quarantined.append((path, f"{content.status}: {content.reason}"))
        elif key in kept:
            duplicates.append((path, kept[key]))
        else:
            kept[key] = path
            shape = (content.samples, content.rate, content.channels, content.streams)
            songs.append(AudioInfo(path, content.format, content.codec, *shape))
            notices += [(path, content.notice)] if content.notice else []
    passed_over = walked.passed_over + Counter({WITHOUT_SOUND: walked.without_sound})
    lists = songs, list(kept), sorted(quarantined), duplicates, notices
    return Library(tuple(map(Path, folders)), *lists, dict(passed_over.most_common()))

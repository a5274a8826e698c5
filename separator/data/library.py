"""`separator scan`: which songs of a library are fit for training, and what is wrong with the rest.

A file is opened only when its size or time of change is new. Then its content key tells whether
the same audio was seen before, elsewhere or with other tags; only unknown audio is decoded, once,
whole. What cannot be used is quarantined with a reason and never reaches training; nor do the songs
that MUSDB18 tests with, known by name or tags.

Kept: anything with at least one sample that is neither silent nor damaged, however short or long;
whoever draws segments decides what is too short for them.
"""

import contextlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from separator.atomic import write_text
from separator.audio import AudioInfo
from separator.data.library_files import examined
from separator.data.library_index import Content, Index, Stamp
from separator.data.walk import audio_files
from separator.errors import SeparatorError

FILES_PER_PROCESS = 16  # for fewer, starting a process takes longer than the work


@dataclass(frozen=True)
class ScanConfig:
    """Index a music library; quarantine broken files.

    Attributes:
        roots: folders of music; all their subfolders are searched.
        report: file that gets every quarantined file with its reason and every duplicate; JSON if
            its name ends in .json, else tab-separated text.
        jobs: processes to decode with; as many as there are cores when not given.
        index: the index file; $SEPARATOR_INDEX or the user's data folder when not given.
    """

    roots: list[str]
    report: str | None = None
    jobs: int | None = None
    index: str | None = None

    def __post_init__(self) -> None:
        _check_jobs(self.jobs)
        if self.report and Path(self.report).is_dir():
            raise SeparatorError(f"report: {self.report} is a folder; give the name of a file")


@dataclass(frozen=True)
class Library:
    """What a scan found.

    Attributes:
        roots: the folders searched.
        songs: healthy files, each content once, sorted by path.
        keys: what tells the content of each of the songs, in the same order.
        quarantined: (path, "kind: reason") of what must not be used, sorted by path.
        duplicates: (path, the song with exactly the same audio), sorted by path.
    """

    roots: tuple[Path, ...]
    songs: list[AudioInfo]
    keys: list[str]
    quarantined: list[tuple[Path, str]]
    duplicates: list[tuple[Path, Path]]

    def totals(self) -> dict[str, Any]:
        """Count files, songs, hours, formats, rates (Hz), quarantined by kind, and duplicates."""
        kinds = Counter(reason.split(":")[0] for _, reason in self.quarantined)
        return {
            "files": len(self.songs) + len(self.quarantined) + len(self.duplicates),
            "songs": len(self.songs),
            "hours": round(sum(song.seconds for song in self.songs) / 3600, 4),
            "formats": dict(Counter(song.format for song in self.songs).most_common()),
            "rates": {str(r): n for r, n in Counter(s.rate for s in self.songs).most_common()},
            "quarantined": dict(kinds.most_common()),
            "duplicates": len(self.duplicates),
        }

    def summary(self) -> str:
        """Return the totals as a few lines of text."""
        totals = self.totals()
        rates = {f"{rate} Hz": count for rate, count in totals["rates"].items()}
        quarantined = _counts(totals["quarantined"])
        return "\n".join(
            [
                f"files        {totals['files']}",
                f"songs        {totals['songs']}, {totals['hours']:.2f} hours",
                f"formats      {_counts(totals['formats'])}",
                f"rates        {_counts(rates)}",
                f"quarantined  {len(self.quarantined)}"
                + (f": {quarantined}" if self.quarantined else ""),
                f"duplicates   {totals['duplicates']}",
            ]
        )


def main(argv: list[str]) -> int:
    """Run `separator scan`; the status is 0 when the scan is complete, whatever it found."""
    from separator.config import parse

    config = parse(ScanConfig, argv, "scan", positional="roots")
    library = scan(config.roots, config.index, config.jobs)
    print(library.summary())
    if config.report:
        write_report(library, config.report)
    elif library.quarantined or library.duplicates:
        print("`--report FILE` lists the quarantined files and the duplicates")
    return 0


def scan(
    roots: Sequence[str | os.PathLike],
    index: str | os.PathLike | None = None,
    jobs: int | None = None,
    progress: bool = True,
) -> Library:
    """Bring the index up to date with the folders and return what is in them.

    Whatever was examined before an interruption is not examined again. With several processes the
    caller's own script needs the usual `if __name__ == "__main__":`.

    Args:
        roots: folders.
        index: the index file; `default_index()` when not given.
        jobs: processes; when not given, as many as there are cores and work for.
        progress: show a bar on the standard error stream when it is a terminal.

    Raises:
        SeparatorError: a root is not a folder, there is no audio in any, or the index is unusable.
    """
    _check_jobs(jobs)
    folders = _checked_roots(roots)
    stamps, problems = audio_files(folders)
    if not stamps and not problems:
        names = ", ".join(folders)
        raise SeparatorError(f"{names}: no audio files; give folders that hold music")
    with Index(index or default_index()) as store:
        known = _known(store, folders, stamps)
        pending = {path: stamp for path, stamp in stamps.items() if path not in known}
        problems |= _examine(store, pending, jobs, progress)
        for folder in folders:
            if any(path.startswith(os.path.join(folder, "")) for path in stamps):
                store.forget(folder, stamps)  # an empty folder may be a drive that is not mounted
        known = _known(store, folders, stamps) if pending else known
    return _library(folders, known, problems)


def default_index() -> Path:
    """Return $SEPARATOR_INDEX, or library.sqlite in the user's data folder."""
    import platformdirs

    folder = platformdirs.user_data_dir("separator", appauthor=False)
    return Path(os.environ.get("SEPARATOR_INDEX") or os.path.join(folder, "library.sqlite"))


def write_report(library: Library, path: str | os.PathLike) -> None:
    """Write totals, quarantined files and duplicates: JSON for *.json, else tab-separated text.

    JSON: {"roots": [folder], "totals": `Library.totals`, "quarantined": [{"path", "reason"}],
    "duplicates": [{"path", "same_as"}]}. Text: a `#` line for each of the totals, then
    kind, path, and reason or the song that is kept.

    Raises:
        SeparatorError: the file cannot be written.
    """
    text = _as_json(library) if Path(path).suffix.lower() == ".json" else _as_table(library)
    try:
        write_text(path, text, errors="surrogateescape")
    except OSError as error:
        fix = "give another path with --report (the scan itself is kept)"
        raise SeparatorError(f"{path}: {error.strerror}; {fix}") from error


def _check_jobs(jobs: int | None) -> None:
    if jobs is not None and jobs < 1:
        raise SeparatorError(f"jobs: {jobs} is less than 1; leave it out to use every core")


def _checked_roots(roots: Sequence[str | os.PathLike]) -> list[str]:
    """Return absolute paths, each once, or refuse the first that is not a folder."""
    folders = [os.path.abspath(os.path.expanduser(root)) for root in roots]
    for folder in folders:
        if not os.path.isdir(folder):
            problem = "is not a folder" if os.path.exists(folder) else "does not exist"
            raise SeparatorError(f"{folder}: {problem}; give folders that hold music")
    return list(dict.fromkeys(folders))


def _known(
    store: Index, folders: list[str], stamps: Mapping[str, Stamp]
) -> dict[str, tuple[str, Content]]:
    return {path: row for folder in folders for path, row in store.known(folder, stamps).items()}


def _examine(
    store: Index, pending: Mapping[str, Stamp], jobs: int | None, progress: bool
) -> dict[str, str]:
    """Examine and record files; return path -> reason of those to be tried again next time."""
    if not pending:
        return {}
    worth = jobs or max(1, min(os.cpu_count() or 1, len(pending) // FILES_PER_PROCESS))
    again = {}
    hidden = None if progress else True  # None: shown on a terminal only
    with (
        tqdm(total=len(pending), desc="scan", unit="file", disable=hidden) as bar,
        contextlib.closing(examined(pending, store.path, min(worth, len(pending)))) as findings,
    ):
        for finding in findings:
            if finding.key:
                store.record([finding])
            else:
                again[finding.path] = f"{finding.content.status}: {finding.content.reason}"
            bar.update()
    return again


def _library(
    folders: list[str], known: Mapping[str, tuple[str, Content]], problems: Mapping[str, str]
) -> Library:
    """Sort known files into songs, quarantined files and duplicates."""
    songs, duplicates = [], []
    quarantined = [(Path(path), reason) for path, reason in problems.items()]
    kept: dict[str, Path] = {}
    for name, (key, content) in sorted(known.items()):
        path = Path(name)
        if content.status != "ok":
            quarantined.append((path, f"{content.status}: {content.reason}"))
        elif key in kept:
            duplicates.append((path, kept[key]))
        else:
            kept[key] = path
            shape = (content.samples, content.rate, content.channels, content.streams)
            songs.append(AudioInfo(path, content.format, content.codec, *shape))
    return Library(tuple(map(Path, folders)), songs, list(kept), sorted(quarantined), duplicates)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"


def _as_json(library: Library) -> str:
    quarantined = [{"path": str(path), "reason": reason} for path, reason in library.quarantined]
    duplicates = [{"path": str(path), "same_as": str(song)} for path, song in library.duplicates]
    values = {
        "roots": [str(root) for root in library.roots],
        "totals": library.totals(),
        "quarantined": quarantined,
        "duplicates": duplicates,
    }
    return json.dumps(values, indent=1) + "\n"


def _as_table(library: Library) -> str:
    rows = [f"# {line}" for line in library.summary().splitlines()]
    rows += [_row("quarantined", path, reason) for path, reason in library.quarantined]
    rows += [_row("duplicate", path, str(song)) for path, song in library.duplicates]
    return "\n".join(rows) + "\n"


def _row(*cells: object) -> str:
    """One line, also when a name holds a tab or a line break."""
    plain: Iterable[str] = map(str, cells)
    return "\t".join(c.translate({9: "\\t", 10: "\\n", 13: "\\r"}) for c in plain)

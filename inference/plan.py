"""Which song becomes which files: folders are walked, results that exist are skipped."""

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from separator import atomic, audio
from separator.audio import AudioInfo
from separator.data.walk import audio_files
from separator.errors import SeparatorError, one_line

log = logging.getLogger(__name__)

TITLES = ("Instrumental", "Vocals")  # as files and tags call the stems
SLACK, SLACK_SECONDS = 0.02, 0.5  # lossy formats pad, and some headers only estimate a length
LONGEST_NAME = 180  # bytes; file systems take 255, and the stem and a temporary suffix come on top


@dataclass(frozen=True)
class Job:
    """One song and the files it becomes, the instrumental first."""

    info: AudioInfo
    outputs: tuple[Path, ...]


def plan(
    inputs: Sequence[str], output: Path, format: str, stems: bool, overwrite: bool
) -> tuple[list[Job], list[str]]:
    """Decide which songs are to be separated into which files.

    Args:
        inputs: songs and folders of songs.
        output: folder of the results; a folder's tree is kept below it.
        format: suffix of the results without its dot, or "input".
        stems: whether vocals are written too.
        overwrite: whether songs whose results exist are done again.

    Returns:
        The jobs, without those whose results exist, and a line for each input that is no song or
        whose results' names are taken by another one's.
    """
    failures: list[str] = []
    songs: dict[Path, tuple[AudioInfo, Path]] = {}  # a song given twice is done once
    for text in inputs:
        for path, below in _songs(Path(text), failures):
            try:
                songs.setdefault(path.resolve(), (audio.probe(path), below))
            except SeparatorError as error:
                failures.append(str(error))
            except Exception as error:  # whatever a decoder raises, the other songs are wanted
                failures.append(f"{path}: {one_line(error)}")
    if not songs and not failures:
        failures.append(f"{', '.join(inputs)}: no songs found; give audio files or folders")
    written = TITLES if stems else TITLES[:1]
    outputs = _outputs(list(songs.values()), format)
    results = {
        (output / below / f"{name} ({stem})").resolve()
        for below, name, _ in outputs
        for stem in TITLES
    }
    jobs, skipped = [], []
    for (path, (info, _)), (below, name, suffix) in zip(songs.items(), outputs, strict=True):
        paths = tuple(output / below / f"{name} ({stem}).{suffix}" for stem in written)
        if path.with_suffix("") in results:  # of an earlier run, its output in the input folder
            continue
        if overwrite or not all(path.exists() for path in paths):
            jobs.append(Job(info, paths))
        elif other := _of_another_song(paths, info):
            failures.append(other)
        else:
            skipped.append(info.path)
    if skipped:
        log.info("skipped, separated already (--overwrite does them again): %d", len(skipped))
    return jobs, failures


def check_folder(output: Path) -> None:
    """Make sure that a folder can be written to, before the work rather than after.

    Raises:
        SeparatorError: it cannot be made or written to.
    """
    try:
        atomic.check_folder(output)
    except OSError as error:
        raise SeparatorError(
            f"{output}: cannot be written to ({error.strerror}); choose another folder with -o"
        ) from error


def _of_another_song(paths: Sequence[Path], info: AudioInfo) -> str:
    """Return a line if a result that exists is not of a song's length, else nothing.

    Albums separated one by one into one folder share names like "01 Intro".
    """
    for path in paths:
        try:
            seconds = audio.probe(path).seconds
        except SeparatorError:
            continue
        if abs(seconds - info.seconds) > max(SLACK_SECONDS, SLACK * info.seconds):
            return (
                f"{info.path}: {path} exists and is {seconds:.1f} s long, the song "
                f"{info.seconds:.1f} s; choose another folder with -o, or --overwrite it"
            )
    return ""


def _songs(root: Path, failures: list[str]) -> Iterator[tuple[Path, Path]]:
    """Yield songs with the folder, relative to the output, that their results go to."""
    if not root.is_dir():
        yield root, Path()
        return
    found, problems = audio_files([str(root)])
    failures += [f"{path}: {reason}" for path, reason in problems.items()]
    for path in sorted(map(Path, found)):
        yield path, path.relative_to(root).parent


def _outputs(songs: Sequence[tuple[AudioInfo, Path]], format: str) -> list[tuple[Path, str, str]]:
    """Name the results: folder below the output, name and suffix.

    Songs that differ in their suffix only keep it in the name; others of one name are numbered.
    """

    def key(*parts: object) -> tuple[str, ...]:  # some file systems do not tell a from A
        return tuple(str(part).casefold() for part in parts)

    targets = [
        (below, info.path.stem, audio.written_as(info.format) if format == "input" else format)
        for info, below in songs
    ]
    sharing = Counter(key(*target) for target in targets)
    named, taken = [], set()
    for (info, _), (below, name, suffix) in zip(songs, targets, strict=True):
        name = info.path.name if sharing[key(below, name, suffix)] > 1 else name
        name = os.fsencode(name)[:LONGEST_NAME].decode(errors="ignore")
        candidate, number = name, 1
        while key(below, candidate, suffix) in taken:
            number += 1
            candidate = f"{name} {number}"
        taken.add(key(below, candidate, suffix))
        named.append((below, candidate, suffix))
    return named

"""Plan which files are written for each song: walk folders, and find existing results."""

import enum
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from separator import audio
from separator.audio import AudioInfo
from separator.data.library.walk import walk
from separator.errors import SeparatorError, counted, printable
from separator.inference.choices import RESULT_TITLES, TITLES, Choices, folded, sample_format
from separator.inference.failures import reporting
from separator.inference.naming import NameTemplate, check_length
from separator.inference.results import Results, Song, Stamp, stamp_of
from separator.inference.watch import Watch

log = logging.getLogger(__name__)

NOTES = {  # about songs with results, by the name of their count
    "done": "%s: separated already, nothing to do (--overwrite separates again)",
    "partly": "%s: some of the results are there already; the missing ones are added",
    "outdated": "%s: separated earlier with another model, version, options or gain, or changed "
    "since; separated again, and the results replaced (--keep keeps them)",
    "results": "%s: left out of the songs, because this program wrote them",
}


@dataclass(frozen=True)
class Job:
    """One song and the files it becomes, in the order of `Choices.titles`.

    Attributes:
        info: the song.
        outputs: the files.
        missing: those of them that are to be written; the others are there and as asked for.
        subtype: their sample format; "" for lossy codecs.
        song: the song as records of results know it.
        made_by: what those records are to say of the model and the settings.
        planned: stamps of what has each file's name so far.
    """

    info: AudioInfo
    outputs: tuple[Path, ...]
    missing: tuple[Path, ...]
    subtype: str
    song: Song
    made_by: dict[str, Any]
    planned: dict[Path, Stamp | None]


@dataclass
class Plan:
    """The work to be done.

    Attributes:
        jobs: the songs to separate.
        failures: a line for each input that is no song, or whose results' names are taken.
        done: the songs whose results are there, with these.
        folders: where results are or are going to be.
    """

    jobs: list[Job] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    done: list[tuple[AudioInfo, tuple[Path, ...]]] = field(default_factory=list)
    folders: set[Path] = field(default_factory=set)


class State(enum.Enum):
    """The state of the files at the names of a song's results."""

    CURRENT = enum.auto()  # those that are there are as asked for; perhaps there are none
    OUTDATED = enum.auto()  # of this song, from another model, version, settings or gain
    TAKEN = enum.auto()  # by another song's results
    UNKNOWN = enum.auto()  # files without a record


def plan(inputs: Sequence[str], output: Path, choices: Choices, watch: Watch | None = None) -> Plan:
    """Decide which songs are to be separated into which files.

    Args:
        inputs: songs and folders of songs.
        output: folder of the results; a folder's tree is kept below it.
        choices: of the user.
        watch: leaves out files that it knows, or that are still being written.

    Returns:
        The jobs, the songs that are done, and a line for each input that is neither.
    """
    return _Planner(output, choices, watch).plan(inputs)


class _Planner:
    """The data of a plan while it is made."""

    def __init__(self, output: Path, choices: Choices, watch: Watch | None) -> None:
        self.output, self.choices, self.watch = output, choices, watch
        self.template = NameTemplate(choices.name)
        self.made = Plan()
        self.results = Results()
        self.taken: set[tuple[str, ...]] = set()
        self.counts: Counter[str] = Counter()
        self.inputs: set[Path] = set()

    def plan(self, inputs: Sequence[str]) -> Plan:
        """Make the plan; see the function `plan`."""
        songs: dict[Path, tuple[AudioInfo, Path]] = {}  # a song given twice is done once
        for text in inputs:
            for path, below in self._songs(Path(text), alone=len(inputs) == 1):
                with reporting(path, self.made.failures):
                    info = audio.probe(path)
                    if self.choices.video:
                        audio.video_container(info)  # refuses what it cannot read
                    songs.setdefault(path.resolve(), (info, below))
        self.inputs = set(songs)
        if not songs and not self.made.failures and not self.watch:
            self.made.failures[", ".join(inputs)] = self._nothing(inputs)
        targets = self.choices.targets([*songs.values()])
        values = [
            self.template.values(info, *target)
            for (info, _), target in zip(songs.values(), targets, strict=True)
        ]
        result_paths = {
            (self.output / result).with_suffix("").resolve()
            for fields in values
            for result in self.template.paths(fields, fields[self.template.label], TITLES)
            if not self.choices.name  # a user's names may be those of songs
        }
        for (path, (info, _)), fields in zip(songs.items(), values, strict=True):
            if path.with_suffix("") in result_paths:  # its output in the input folder
                self.counts["results"] += 1
            else:
                with reporting(info.path, self.made.failures):
                    self._decide(info, fields)
        self._tell()
        return self.made

    def _songs(self, root: Path, alone: bool) -> Iterator[tuple[Path, Path]]:
        """Yield songs with the folder, relative to the output, that their results go to.

        Results of earlier runs are no songs, unless one is all that is asked for.
        """
        paths = [root]
        if root.is_dir():
            walked = walk([str(root)])
            for place, reason in walked.problems.items():
                self.made.failures[place] = f"{printable(place)}: {reason}"
            if number := sum(walked.passed_over.values()):
                kinds = "file of another kind" if number == 1 else "files of other kinds"
                line = f"{printable(str(root))}: {number} {kinds} left out: {walked.left_out()}"
                if not self.watch or self.watch.news([line]):
                    log.warning("%s", line)
            paths = sorted(map(Path, walked.stamps))
        for path in filter(self.watch.passes, paths) if self.watch else paths:
            below = path.relative_to(root).parent if path != root else Path()
            if not (alone and path == root) and self._is_result(path):
                self.counts["results"] += 1
            else:
                yield path, below

    def _is_result(self, path: Path) -> bool:
        """Whether a file is a result of an earlier run, wherever its output folder was."""
        titled = path.stem.endswith(tuple(f"({stem})" for stem in RESULT_TITLES))
        return (titled or self.results.knows(path)) and self.results.find(path) is not None

    def _decide(self, info: AudioInfo, values: dict[str, str]) -> None:
        """Find the place of a song's results, and add a job if they are not there yet."""
        song, choices = Song(info.path), self.choices
        subtype = sample_format(info, values["format"], choices.bits)
        made_by = choices.made_by(subtype)
        taken = ""
        for candidate in self._names(song, values):
            paths = self._paths(values, candidate)
            key = folded(*paths)
            ours = key in self.taken or not self.inputs.isdisjoint(p.resolve() for p in paths)
            state = State.TAKEN if ours else self._state(paths, song, made_by)
            if state is not State.TAKEN:
                break
            taken = taken or printable(str(paths[0]))
        if choices.name:
            check_length(paths)
        if taken:
            names = printable(str(info.path)), taken, printable(str(paths[0]))
            text = "%s: %s is another song's result; this song's is %s (--name sets other names)"
            log.info(text, *names)
        self.made.folders.update(path.parent for path in paths)
        self.taken.add(key)
        replaceable = state in (State.OUTDATED, State.UNKNOWN)
        if choices.keep and replaceable and all(_is_audio(p) for p in paths if p.exists()):
            state = State.CURRENT
        stays = state is State.CURRENT and not choices.overwrite
        missing = tuple(path for path in paths if not (stays and path.exists()))
        if not missing:
            self.made.done.append((info, paths))
        elif state is State.UNKNOWN and not (choices.overwrite and self.template.names_stems):
            line = _unknown(info.path, paths, self.template.names_stems)
            self.made.failures[str(info.path)] = line
        else:
            self.counts["outdated"] += state is State.OUTDATED and not choices.overwrite
            self.counts["partly"] += len(missing) < len(paths)
            stamps = {path: stamp_of(path) for path in paths}
            self.made.jobs.append(Job(info, paths, missing, subtype, song, made_by, stamps))

    def _paths(self, values: dict[str, str], label: str) -> tuple[Path, ...]:
        """Return the files that a song becomes."""
        paths = self.template.paths(values, label, self.choices.titles)
        return tuple(self.output / path for path in paths)

    def _names(self, song: Song, values: dict[str, str]) -> Iterator[str]:
        """Yield labels for a song's results: those they have, the song's, that with a number."""
        label = values[self.template.label]
        folder = self._paths(values, label)[0].parent
        for output in self.results.names(folder, song):
            if (folder / output).exists():
                bases = dict.fromkeys((label, song.path.stem, song.path.name))
                yield from self.template.labels(output, values, bases)
        yield label
        yield from (f"{label} {number}" for number in count(2))

    def _state(self, paths: Sequence[Path], song: Song, made_by: dict[str, Any]) -> State:
        """Tell what is at the names of a song's results."""
        existing = [path for path in paths if path.exists()]
        records = [self.results.find(path) for path in existing]
        if any(record and not song.made(record) for record in records):
            return State.TAKEN
        if not all(records):
            return State.UNKNOWN
        same = all(song.unchanged(record) and record.made_by == made_by for record in records)
        # results add up only if all have one gain; of the missing ones it is not known yet
        gains = [record.gain for record in records] + [0.0] * (len(paths) - len(existing))
        return State.CURRENT if same and len(set(gains)) == 1 else State.OUTDATED

    def _nothing(self, inputs: Sequence[str]) -> str:
        """Say that there is nothing to do, and why as far as it is known."""
        names = printable(", ".join(inputs))
        if self.counts["results"]:
            return f"{names}: only files that this program wrote; give the songs themselves"
        return f"{names}: no songs found; give audio files or folders"

    def _tell(self) -> None:
        """Say of which songs there are results already, and what becomes of these."""
        for name, number in (self.counts + Counter(done=len(self.made.done))).items():
            log.info(NOTES[name], counted(number, "file" if name == "results" else "song"))


def _is_audio(path: Path) -> bool:
    try:
        audio.probe(path)
    except SeparatorError:
        return False
    return True


def _unknown(song: Path, paths: Sequence[Path], names_stems: bool) -> str:
    """Say that a file is in the way that nothing is known of, and which options help."""
    path = next(path for path in paths if path.exists())
    name, there = printable(str(song)), printable(str(path))
    if not names_stems:
        about = "may be a song; add {stem} to --name, or choose another folder with -o"
    elif not _is_audio(path):
        about = "is no readable result; --overwrite replaces it, or choose another folder with -o"
    else:
        about = (
            "it is not known which song it came from; --keep takes it for this song's result, "
            "--overwrite replaces it"
        )
    return f"{name}: {there} exists and {about}"

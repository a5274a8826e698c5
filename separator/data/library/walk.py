"""The audio files under folders, as every command finds them, and what is passed over."""

import os
import stat
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from separator import audio
from separator.data.library.index import Stamp
from separator.errors import SeparatorError, one_line, printable

SPECIAL = "pipes, sockets or devices"
UNFINISHED = ".part"
# Suffixes of files with sound that `audio` does not take: counted, never silently missing.
_SOUND = (
    ".3g2 .3ga .8svx .aax .adts .amr .avi .dff .dtshd .ec3 .flv .gsm .kar .m2ts .m4p .m4r .mid "
    ".midi .mlp .mogg .mp1 .mpa .mpeg .mpg .mxf .ogm .ogv .ogx .ra .ram .rm .rmvb .s3m .sd2 "
    ".spx .thd .truehd .vob .voc .vqf .weba .wmv .xm"
)
SOUND = frozenset(_SOUND.split())


@dataclass
class Walked:
    """The result of a walk through folders.

    Attributes:
        stamps: path -> stamp of the regular files that `audio` takes, by their suffix.
        problems: path -> reason of what cannot be reached.
        passed_over: kind -> number of files: a suffix of sound that is not taken, `UNFINISHED`
            (downloads and writes that have not ended) or `SPECIAL`.
        without_sound: number of all other files, such as pictures and texts.
    """

    stamps: dict[str, Stamp] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    passed_over: Counter[str] = field(default_factory=Counter)
    without_sound: int = 0

    def left_out(self) -> str:
        """Name the kinds of files passed over.

        Returns:
            Kinds with their numbers, the commonest first; "" for none.
        """
        return ", ".join(f"{kind} {number}" for kind, number in self.passed_over.most_common())


def walk(folders: Sequence[str]) -> Walked:
    """Find the audio files under folders, by suffix; hidden files are left out.

    A folder that links lead to several times is entered once, by its own path where it lies under
    one of the folders.

    Args:
        folders: absolute paths.

    Returns:
        Files, problems, and numbers of files passed over.
    """
    walked = Walked()
    visited: set[tuple[int, int]] = set()
    waiting = deque(folders)
    while waiting:
        folder = waiting.popleft()
        for entry in _listed(folder, visited, walked.problems):
            if os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():
                # linked folders wait until all others are done
                (waiting.append if entry.is_symlink() else waiting.appendleft)(entry.path)
            else:
                _register(entry, walked)
    return walked


def checked_folders(roots: Iterable[str | os.PathLike], fix: str) -> list[str]:
    """Return absolute paths, each once, which do not depend on how a root is written.

    Raises:
        SeparatorError: one is not a folder; says `fix`, or how to write a name that YAML cut.
    """
    folders = [os.path.abspath(os.path.expanduser(root)) for root in roots]
    for folder in folders:
        if os.path.isdir(folder):
            continue
        if os.path.exists(folder):
            fix = "give the folder that it is in"
            raise SeparatorError(f"{folder}: is a file, not a folder; {fix}")
        raise SeparatorError(f"{folder}: no such folder; {_cut_name(folder) or fix}")
    return list(dict.fromkeys(folders))


def _cut_name(folder: str) -> str:
    """Say how to write the name of a folder that a YAML comment, which begins at " #", cut."""
    parent, name = os.path.split(folder)
    try:
        names = sorted(other for other in os.listdir(parent) if other.startswith(f"{name} #"))
    except OSError:
        return ""
    if not names:
        return ""
    whole = printable(names[0])
    return f'{whole!r} is there, and YAML ends a value at " #"; quote it: data.roots=["{whole}"]'


def _listed(
    folder: str, visited: set[tuple[int, int]], problems: dict[str, str]
) -> Iterator[os.DirEntry]:
    """Yield the visible entries of a folder in order, unless it was visited; note problems."""
    try:
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in visited:
            return
        visited.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        problems[folder] = f"unreadable: the folder cannot be opened ({one_line(error)})"
        return
    yield from sorted(visible, key=lambda entry: entry.name)


def _register(entry: os.DirEntry, walked: Walked) -> None:
    """Note a file's stamp, or why it has none."""
    suffixes = [suffix.lower() for suffix in Path(entry.name).suffixes[-2:]]
    suffix = suffixes[-1] if suffixes else ""
    sounds = audio.SUFFIXES | SOUND
    if UNFINISHED in suffixes and any(part in sounds for part in suffixes):
        walked.passed_over[UNFINISHED] += 1
    elif suffix in audio.SUFFIXES:
        _stamp(entry, walked)
    elif suffix in SOUND:
        walked.passed_over[suffix] += 1
    else:
        walked.without_sound += 1


def _stamp(entry: os.DirEntry, walked: Walked) -> None:
    """Note size and time of a regular file; a pipe would be waited for, without end."""
    try:
        status = entry.stat()
    except OSError as error:
        walked.problems[entry.path] = f"unreadable: {one_line(error)}"
        return
    if stat.S_ISREG(status.st_mode):
        walked.stamps[entry.path] = Stamp(status.st_size, status.st_mtime_ns)
    else:
        walked.passed_over[SPECIAL] += 1

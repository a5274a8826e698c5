"""The files of a library, each examined, in several processes.

Examining never raises for what is wrong with a file: the finding says it.
"""

import contextlib
import functools
import os
import re
import stat
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path

from separator import audio
from separator.data.library.index import Content, Finding, Index, LibraryIndexError, Stamp
from separator.data.library.musdb_holdout import held_out
from separator.errors import one_line, printable
from separator.processes import Arguments, Result, calls_in_processes, follow_parent

FILES_PER_PROCESS = 16  # for fewer, starting a process takes longer than the work
SILENCE_PEAK = 1e-4  # -80 dBFS: below the noise of any recording
TEXT_BYTES = 512
FOLDERS_KEPT = 16  # whose records are remembered
RESULT = Content(status="result", reason="`separator separate` wrote it")


def in_processes(
    function: Callable[..., Result], calls: Sequence[Arguments], jobs: int | None
) -> Generator[tuple[Arguments, Result | None], None, None]:
    """Call a function for each file, in several processes where they are worth their start.

    Args:
        function: can be imported in a fresh process.
        calls: arguments of each call.
        jobs: number of processes; when not given, as many as there are cores and work for. With 1
            the work is done in this process.

    Yields:
        As `calls_in_processes`.
    """
    worth = max(1, min(os.cpu_count() or 1, len(calls) // FILES_PER_PROCESS))
    jobs = min(jobs or worth, len(calls))
    if jobs > 1:
        yield from calls_in_processes("scan", function, calls, jobs, start_process)
    else:
        yield from ((call, function(*call)) for call in calls)


def examined(
    files: Mapping[str, Stamp], index: Path, jobs: int | None
) -> Generator[Finding, None, None]:
    """Examine files.

    A file on which its process dies, by a fault of the decoder or for lack of memory, is broken.

    Args:
        files: path -> stamp.
        index: the index file.
        jobs: as of `in_processes`.

    Yields:
        A finding for each file, in the order of completion.
    """
    calls = [(path, stamp, index) for path, stamp in files.items()]
    for (path, stamp, _), finding in in_processes(examine, calls, jobs):
        yield finding or _crashed(path, stamp)


def examine(path: str, stamp: Stamp, index: Path) -> Finding:
    """Say what a file holds; decode it only when the index does not know its content.

    Args:
        path: a file.
        stamp: what the walk saw; if the file changes meanwhile, the next scan takes it up again.
        index: the index file.

    Returns:
        A finding without a key when the file could not be opened: that may pass, so it is not to
        be recorded.
    """
    try:
        flaw = _not_audio(path) or _marked(path) or _held_out(path)
        if flaw:
            return Finding(path, stamp, stamp.key(path), flaw)
        info = audio.probe(path)  # first, because it tells most truncated files
        key = audio.content_key(path)
        if _recorded(path, key):
            return Finding(path, stamp, stamp.key(path), RESULT)
        # The same packets may stand for another length: an MP3 without its first frame does.
        key = f"{key}-{info.samples}"
        with Index(index) as store:
            if store.content(key):
                return Finding(path, stamp, key, None)
        content = _judged(audio.verify(path), info.samples)
    except LibraryIndexError:
        raise
    except Exception as error:  # codecs raise all kinds, and one file must not end a long scan
        content = _flaw(path, error)
        recorded = content.status != "unreadable"
        return Finding(path, stamp, stamp.key(path) if recorded else "", content)
    return Finding(path, stamp, key, content)


def _not_audio(path: str) -> Content | None:
    """Recognise what no decoder need be asked about; raise OSError when it cannot be opened."""
    with open(path, "rb") as file:
        head = file.read(TEXT_BYTES)
    if not head:
        return Content(status="empty", reason="the file has no bytes")
    control = set(range(32)) - set(b"\t\n\v\f\r\x1b")
    # every kind of audio has zero or control bytes this early, or begins with a frame of all ones
    if not control & set(head) and head[0] != 0xFF:
        return Content(status="not audio", reason="the file is text")
    return None


def _marked(path: str) -> Content | None:
    """Recognise results of `separator separate` by their tags."""
    return RESULT if '"made_by"' in (audio.result_record(path) or "") else None


def _recorded(path: str, key: str) -> bool:
    """Recognise a result without tags: by its content, in the records of its folder."""
    records = Path(path).with_name(audio.RESULT_INDEX)
    with contextlib.suppress(OSError):
        status = os.stat(records)
        if stat.S_ISREG(status.st_mode):
            return key.encode() in _contents(records, (status.st_size, status.st_mtime_ns))
    return False


@functools.lru_cache(maxsize=FOLDERS_KEPT)
def _contents(records: Path, _stamp: tuple[int, int]) -> frozenset[bytes]:
    """Read the content keys in the records of a folder; the stamp tells a changed file."""
    return frozenset(re.findall(rb'"content": "([^"]*)"', records.read_bytes()))


def _held_out(path: str) -> Content | None:
    """Recognise MUSDB18's test songs, whatever file they are in."""
    try:
        tags = audio.read_tags(path)
    except Exception:  # damaged tags say nothing; whether the audio is sound is found out below
        tags = {}
    song = held_out(Path(path), tags)
    reason = f"{song} is in MUSDB18's test set"
    return Content(status="test song", reason=reason) if song else None


def _judged(checked: audio.Checked, promised: int) -> Content:
    """Say whether decoded samples are fit for training, and what the header says wrongly of them.

    Args:
        checked: the decoded file; as many samples as it has are the song's length.
        promised: samples that the header promises.
    """
    info, number = checked.info, checked.non_finite
    status, reason = "ok", ""
    if not checked.samples:
        status, reason = "broken", "no sound can be decoded from it"
    elif number:
        samples = "1 sample is" if number == 1 else f"{number} samples are"
        status, reason = "non-finite", f"{samples} NaN or infinite"
    elif checked.peak < SILENCE_PEAK:
        status, reason = "silent", f"no sample exceeds {checked.peak:.1e} of full scale"
    notices = list(dict.fromkeys((*info.notices, *checked.notices)))
    damage = set(checked.notices) - set(info.notices)
    if checked.samples != promised and not damage:
        lasts = f"{checked.samples / info.rate:.1f} s"
        notices.append(f"{lasts} can be decoded, its header says {promised / info.rate:.1f} s")
    shape = (checked.samples, info.rate, info.channels, info.streams)
    notice = printable("; ".join(notices))
    return Content(info.format, info.codec, *shape, status, reason, notice)


def _flaw(path: str, error: Exception) -> Content:
    """Say what kept a file from being examined; "unreadable" is what may pass by itself."""
    system = isinstance(error, OSError) or isinstance(error.__cause__, OSError)
    kind, reason = "broken", one_line(error)
    for name in (path, printable(path), " ".join(printable(path).split())):
        reason = reason.removeprefix(f"{name}: ")
    if reason.startswith("truncated"):
        kind, reason = "truncated", reason.partition(", ")[2]
    return Content(status="unreadable" if system else kind, reason=reason)


def _crashed(path: str, stamp: Stamp) -> Finding:
    """Return the finding for a file whose decoding ended the process."""
    content = Content(status="broken", reason="its decoder crashes or takes all the memory")
    return Finding(path, stamp, stamp.key(path), content)


def start_process() -> None:
    """Set up a worker: one thread, quiet, and gone when its parent is.

    Decoders write warnings straight to the error stream, across the progress bar.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    follow_parent()

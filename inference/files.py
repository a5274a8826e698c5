"""Songs to stems on disk: a song as a stream, many in turn; outputs appear whole or not at all."""

import contextlib
import errno
import functools
import logging
import math
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from tqdm import tqdm

from separator import atomic, audio
from separator.allocator import return_memory
from separator.arguments import as_array
from separator.atomic import replacing
from separator.audio.formats import has_picture, sound_format
from separator.errors import DISK_FULL, SeparatorError, one_line, printable
from separator.inference.choices import AnyOutput
from separator.inference.failures import named
from separator.inference.pipeline import Pipeline
from separator.inference.plan import Job
from separator.inference.results import Publication, Record, stamp_of
from separator.inference.run_report import RunReport
from separator.inference.tags import copy_tags, mark
from separator.inference.terminal import log_above_bar, say
from separator.logs import bar as progress_bar
from separator.logs import event
from separator.streaming import Model, StreamingSeparator

log = logging.getLogger(__name__)

Shape = tuple[int, ...]
MIN_WORK = 2.0  # seconds of the model's work, of which it loses 0.05 when memory is returned
AGAIN = "run the command again"
REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}


@dataclass(frozen=True)
class Work:
    """Model and settings of a separation, without the paths of songs and stems.

    Attributes:
        separator: the model.
        outputs: the files that each song becomes, in the order of its job's.
        bitrate: kb/s of lossy formats; None takes each format's default.
        batch: chunks processed at once.
        strict: whether a song that is damaged anywhere is refused.
        jobs: songs that are worked on at the same time.
    """

    separator: StreamingSeparator[Any]
    outputs: Sequence[AnyOutput]
    bitrate: int | None = None
    batch: int = 1
    strict: bool = False
    jobs: int = 1


def separate_files(jobs: Sequence[Job], work: Work, report: RunReport) -> None:
    """Separate songs, some at the same time, with a progress bar in seconds of sound.

    Args:
        jobs: the songs.
        work: how they are separated.
        report: gets what became of each of them.
    """
    form = "{l_bar}{bar}| {n:.0f}/{total:.0f} s [{elapsed}<{remaining}, {rate_fmt}]"
    total = sum(job.info.seconds for job in jobs)
    with log_above_bar(), progress_bar(total=total, unit=" s", bar_format=form) as bar:
        desk = _Desk(jobs, work, report, bar)
        pipeline = Pipeline(desk.model, work.jobs)
        separate = functools.partial(separate_file, work=work, check=pipeline.check)
        began = time.perf_counter()
        try:
            pipeline.run(separate, jobs, desk.ended)
        finally:
            report.elapsed += time.perf_counter() - began
            report.busy += pipeline.busy
            report.span += pipeline.span


class _Desk:
    """Runs the model, and tells what becomes of each song."""

    def __init__(self, jobs: Sequence[Job], work: Work, report: RunReport, bar: tqdm) -> None:
        self._jobs, self._work, self._report, self._bar = jobs, work, report, bar
        self._shown = [0.0] * len(jobs)  # seconds of each song that are on the bar
        self._spent = [0.0] * len(jobs)  # seconds of the model's work on it
        self._kept = 0.0  # seconds of its work since free memory was returned

    def model(self, number: int, chunks: np.ndarray) -> np.ndarray:
        """Separate chunks of a song, given its number."""
        self._bar.set_description(printable(self._jobs[number].info.path.name)[:40])
        began = time.perf_counter()
        stems = self._work.separator.estimate(chunks)
        self._spent[number] += time.perf_counter() - began
        self._advance(number, len(chunks) * chunks.shape[-1] / self._work.separator.rate)
        return stems

    def ended(self, number: int, outcome: Future) -> None:
        """Tell and note the outcome of a song, given its number."""
        job, error = self._jobs[number], outcome.exception()
        song, seconds, spent = job.info.path, job.info.seconds, self._spent[number]
        self._advance(number, seconds)
        self._kept += spent
        if self._kept > MIN_WORK:
            return_memory()
            self._kept = 0.0
        if error:  # whatever a decoder raises, the other songs are wanted
            log.debug("%s", song, exc_info=error)
            self._report.fail(str(song), _explained(job, error))
            return
        written, gain = outcome.result()
        outputs = [str(path) for path in written]
        say("\n".join(map(printable, outputs)))
        event(log, f"{printable(str(song))}: separated", song=str(song), seconds=seconds,
              outputs=outputs)  # fmt: skip
        self._report.add(job.info, job.outputs, spent, gain)

    def _advance(self, number: int, seconds: float) -> None:
        seconds = min(seconds, self._jobs[number].info.seconds - self._shown[number])
        self._shown[number] += seconds
        self._bar.update(seconds)


def separate_file(
    job: Job, model: Model, work: Work, check: Callable[[], None]
) -> tuple[list[Path], float]:
    """Separate one song as a stream; its files appear together when all is done.

    Files that are there already stay, unless all have to be lowered: they get one gain.

    Args:
        job: the song and its files.
        model: separates chunks.
        work: how.
        check: raises an error when the work is to be stopped.

    Returns:
        The files that were written, and the gain of all stems in dB, below 0 where a format of
        integers could not hold them.

    Raises:
        SeparatorError: the song cannot be read to its end, or has samples that are not finite.
        OSError: the outputs cannot be written.
    """
    info = job.info
    name = printable(str(info.path))
    for notice in info.notices:
        log.warning("%s: %s", name, notice)
    if info.channels > 2:
        log.info("%s: %d channels are folded to stereo", name, info.channels)
    with contextlib.ExitStack() as stack:
        folders = sorted({path.parent for path in job.outputs})  # the same order in each process
        publications = [stack.enter_context(Publication(folder)) for folder in folders]
        temporary = {path: stack.enter_context(replacing(path)) for path in job.missing}
        chunks, peak = _checked(_stems(job, model, work), check), 1.0
        if job.subtype.startswith("PCM"):
            spool = stack.enter_context(tempfile.TemporaryFile(dir=job.missing[0].parent))
            shapes, peak = _spooled(chunks, spool)
            chunks = _checked(_lowered(spool, shapes, peak), check)
        gain = 20 * math.log10(1 / peak)
        if gain < 0:
            text = "%s: all stems are written %.2f dB softer, so that none clips in %s"
            log.info(text, name, -gain, job.outputs[0].suffix[1:])
            for path in [path for path in job.outputs if path not in temporary]:
                temporary[path] = stack.enter_context(replacing(path))
        _write(chunks, temporary, job, work)
        if has_picture(job.outputs[0]):
            for path in temporary.values():
                audio.add_picture(path, info.path)
        for path, output in zip(job.outputs, work.outputs, strict=True):
            if path in temporary:
                copy_tags(info.path, temporary[path], output.title)
        records = list(zip(temporary, _records(job, temporary, gain), strict=True))
        for place in publications:
            there = [(path, record) for path, record in records if path.parent == place.folder]
            planned = {path.name: job.planned[path] for path, _ in there}
            place.commit([record for _, record in there], planned)
    return list(temporary), gain


def _checked(chunks: Iterable[np.ndarray], check: Callable[[], None]) -> Iterator[np.ndarray]:
    """Yield chunks until the work is to be stopped."""
    for chunk in chunks:
        check()
        yield chunk


def _stems(job: Job, model: Model, work: Work) -> Iterator[np.ndarray]:
    """Yield chunks (s c t) of the stems that the job writes."""
    info = job.info
    blocks = audio.blocks(info.path, strict=work.strict)
    names = work.separator.stems.names
    for mixture, stems in work.separator.stream(blocks, info.rate, work.batch, model):
        whole, waves = as_array(mixture), dict(zip(names, as_array(stems), strict=True))
        yield np.stack([output.wave(whole, waves) for output in work.outputs])


def _spooled(chunks: Iterator[np.ndarray], spool: BinaryIO) -> tuple[list[Shape], float]:
    """Write chunks to a nameless file, and return their shapes and their peak, at least 1.

    Integers hold no sample beyond ±1. All stems then get one gain, which is known at the end only.
    """
    shapes, peak = [], 1.0
    for chunk in chunks:
        peak = max(peak, float(np.abs(chunk).max()))
        spool.write(chunk.data)
        shapes.append(chunk.shape)
    return shapes, peak


def _lowered(spool: BinaryIO, shapes: Sequence[Shape], peak: float) -> Iterator[np.ndarray]:
    """Yield the chunks of a nameless file, lowered by their peak."""
    spool.seek(0)
    for shape in shapes:
        chunk = np.frombuffer(spool.read(4 * math.prod(shape)), np.float32)
        yield chunk.reshape(shape) / np.float32(peak)


def _write(
    chunks: Iterator[np.ndarray], temporary: Mapping[Path, Path], job: Job, work: Work
) -> None:
    """Encode chunks (s c t), each stem in a thread of its own while the next chunk is computed."""
    info = job.info
    options = {"bitrate": work.bitrate, "samples": info.samples, "titles": work.outputs[0].titles}
    options["format"] = sound_format(job.outputs[0])
    if job.subtype:
        options |= {"subtype": job.subtype, "dither": job.subtype == "PCM_16"}
    with contextlib.ExitStack() as stack:
        writers = {
            job.outputs.index(path): stack.enter_context(
                audio.Writer(part, info.rate, min(info.channels, 2), **options)
            )
            for path, part in temporary.items()
        }
        pool = stack.enter_context(ThreadPoolExecutor(len(writers)))  # ends before the writers do
        pending: list[Future] = []
        for chunk in chunks:
            for write in pending:
                write.result()
            pending = [
                pool.submit(writer.write, chunk[number]) for number, writer in writers.items()
            ]
        for write in pending:
            write.result()


def _records(job: Job, temporary: Mapping[Path, Path], gain: float) -> list[Record]:
    """Put the record of each finished file into its tags, and return them all for the index."""
    if (stamp := stamp_of(job.info.path)) != job.song.stamp:
        what = "changed" if stamp else "removed"
        raise SeparatorError(f"{job.info.path}: {what} while it was separated; {AGAIN}")
    records = []
    for output, path in temporary.items():
        record = Record(audio.content_key(path), job.song.key, job.made_by, gain)
        mark(path, record)
        record = replace(record, output=output.name, stamp=stamp_of(path))
        records.append(replace(record, source=job.song.source, source_stamp=job.song.stamp))
    return records


def _explained(job: Job, error: BaseException) -> str:
    """Return one line that begins with the song, and the fix where the cause is known."""
    text = named(job.info.path, error)
    number, folder = getattr(error, "errno", None), printable(str(job.outputs[0].parent))
    if not job.outputs[0].parent.exists():
        return f"{printable(str(job.info.path))}: {folder} was removed meanwhile; {AGAIN}"
    if number in DISK_FULL:
        return f"{text}; free some space on the disk of {folder}, or choose another with -o"
    if number in REFUSED:
        return f"{text}; {folder} does not let files be written, choose another with -o"
    return text


def check_folder(output: Path, option: str = "-o") -> None:
    """Make sure that an output folder can be written to, before the work rather than after.

    Args:
        output: the folder.
        option: which chooses it.

    Raises:
        SeparatorError: it cannot be made or written to.
    """
    try:
        atomic.check_folder(output)
    except OSError as error:
        reason = f"cannot be written to ({one_line(error)})"
        raise SeparatorError(f"{output}: {reason}; choose another folder with {option}") from error

"""`separator separate INPUT… [-o DIR] [-m MODEL]`: stems of songs and folders."""

import logging
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from separator import __version__
from separator.audio.formats import RESULT_FORMATS, STEMS, SUFFIXES
from separator.config import parse
from separator.errors import SeparatorError, UsageError, printable
from separator.inference.choices import check_bits
from separator.inference.naming import NameTemplate
from separator.inference.option_values import levels_of, weights_of, with_options
from separator.machine import wait_passively
from separator.ranges import CheckedConfig, Within
from separator.stems import TWO_STEMS, StemSet

if TYPE_CHECKING:
    from separator.inference.files import Work
    from separator.inference.plan import Plan
    from separator.inference.run_report import RunReport
    from separator.streaming import StreamingSeparator

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SeparateConfig(CheckedConfig):
    """Write the instrumental of each song, or other stems that the model has.

    Attributes:
        inputs: songs and folders of songs.
        stems: stems to write, such as "--stems vocals drums"; "--stems" alone writes all. By
            default the instrumental, or all where the model has drums, bass and others.
        output: folder for the results, which keeps the subfolders of an input folder.
        format: format of the results; "input" takes each song's own (lossy songs are then
            compressed twice); "stem.mp4" is one file of the mixture and all stems, as DJ programs
            read it.
        model: model file, a name that `separator models` lists, hf:OWNER/NAME or https://…; by
            default $SEPARATOR_MODEL, or the first model of that list. The estimates of several
            (-m A -m B) are averaged.
        two_stems: write this stem, and everything else as one file: "--two-stems vocals" gives
            vocals and instrumental with any model.
        mix: write the song with stems at other levels, in dB (at most 24) or "off": "--mix
            vocals=-12,drums=3". Stems are written beside it where --stems or --two-stems asks for
            them.
        video: give the results of videos their picture, subtitles and chapters, as they are, in a
            file of the video's format; audio tracks after the first are left out.
        dry_run: list what would be written, and write nothing.
        bits: bits per sample of wav, flac and aiff: 16, 24 or 32 (float). 0 keeps the song's; for
            lossy songs it takes 24 in flac and aiff, and 32 in wav.
        bitrate: kilobits per second of lossy formats (0 takes the format's high-quality default).
        shifts: separate each song so many times, shifted by a fraction of a hop, and take the mean:
            2 raised the SDR of earlier files of the bundled model by 0.01 to 0.04 dB and takes
            twice the time.
        average: mean or median of several models' estimates.
        weights: of the models in the mean, such as "2,1"; by default all weigh alike.
        name: names of the results, such as "{artist}/{album}/{title} ({stem}).{format}". Fields are
            those of the song's tags (artist, albumartist, album, title, track, disc, year, genre,
            composer), name (of its file), folder (below the input's), stem and format. They are
            made safe for every file system; songs of one name get numbers. By default
            "{folder}/{name} ({stem}).{format}", without changes.
        report: file for a report of all songs, including those already separated, with speed, gains
            and failures: JSON where it ends in .json, else a table.
        watch: stay, and separate songs that appear in the folders, until Ctrl-C.
        overwrite: separate again songs that have results, and replace files of unknown origin.
            Results of other songs always stay.
        keep: keep existing results, even if another model, version or setting, or an unknown
            program, made them.
        strict: refuse songs that are damaged somewhere instead of separating the rest of them.
        jobs: songs that are worked on at the same time: the model separates one of them with all
            cores or the GPU, while others are read, encoded and written. The model's memory does
            not grow with this number. 0 takes 3, or 8 on a GPU.
        chunk: seconds that the model sees at once; memory grows with it.
        overlap: seconds that a chunk shares with the next, at most half a chunk.
        batch: chunks processed at once.
        backend: what runs the model: torch, or onnx (onnxruntime on the CPU, which needs no PyTorch
            and a model of `separator export -o x.onnx`); auto takes onnx for .onnx files and
            where torch is missing, else torch.
        device: cpu, cuda, mps, or auto, which takes a GPU if there is one; onnx runs on the CPU
            only.
    """

    GROUPS: ClassVar[dict[str, str]] = {
        "stems": "stems, output, format and model",
        "bits": "quality",
        "name": "whole libraries",
        "chunk": "speed and memory",
    }

    inputs: list[str]
    stems: list[str] = field(default_factory=list, metadata={"metavar": "[STEM ...]"})
    output: str = field(default="stems", metadata={"metavar": "FOLDER"})
    format: Literal["input", *RESULT_FORMATS] = "flac"  # type: ignore[valid-type]
    model: list[str] = field(default_factory=list, metadata={"metavar": "MODEL"})
    two_stems: str = field(default="", metadata={"metavar": "STEM"})
    mix: str = field(default="", metadata={"metavar": "STEM=DB"})
    video: bool = False
    dry_run: bool = False
    bits: Literal[0, 16, 24, 32] = 0
    bitrate: int = 0
    shifts: Annotated[int, Within("[1, 16]")] = 1
    average: Literal["mean", "median"] = "mean"
    weights: str = field(default="", metadata={"metavar": "N,N"})
    name: str = field(default="", metadata={"metavar": "PATTERN"})
    report: str = field(default="", metadata={"metavar": "FILE"})
    watch: bool = False
    overwrite: bool = False
    keep: bool = False
    strict: bool = False
    jobs: Annotated[int, Within("[0, 64]")] = 0
    chunk: Annotated[float, Within("[1, 120]")] = 12.0
    overlap: Annotated[float, Within("[0, 60]")] = 1.0
    batch: Annotated[int, Within("[1, 4096]")] = 1
    backend: Literal["auto", "torch", "onnx"] = "auto"
    device: str = "auto"

    def __post_init__(self) -> None:
        from separator.arguments import check_report, song_path  # numpy: `--help` needs none

        super().__post_init__()
        for path in self.inputs:
            song_path(path, "inputs", "songs and folders")
        if self.stems and self.two_stems:
            raise SeparatorError("two_stems: contradicts --stems; leave one of them out")
        output = Path(self.output)
        if not output.is_dir() and output.suffix.lower() in SUFFIXES:
            raise SeparatorError(
                f"output: {self.output} is the name of a file; give a folder (--format sets the "
                "format, --name the names)"
            )
        weights_of(self.weights)
        levels_of(self.mix)
        if self.format == STEMS and (self.stems or self.two_stems or self.mix or self.video):
            raise SeparatorError(
                f"format: {STEMS} is one file of the mixture and all stems, without a "
                "picture; leave out --stems, --two-stems, --mix and --video"
            )
        if self.bitrate and not 32 <= self.bitrate <= 512:
            raise SeparatorError(f"bitrate: {self.bitrate} is not 0 or in 32..512 (kb/s)")
        if self.bits and self.format != "input":
            check_bits(self.format, self.bits)
        if self.name:
            NameTemplate(self.name)
        if self.report:
            check_report(self.report)
            if output.absolute().is_relative_to(Path(self.report).absolute()):
                reason = "would be the folder of the results (-o), or hold it"
                raise SeparatorError(f"report: {self.report} {reason}; give another name")
        if self.watch and self.dry_run:
            raise SeparatorError("watch: contradicts --dry-run; leave one of them out")
        if self.keep and self.overwrite:
            raise SeparatorError("keep: contradicts --overwrite; leave one of them out")


def main(argv: list[str]) -> int:
    """Separate all inputs.

    Returns:
        1 when some could not be, after all the others are done; 130, 143 or 129 when a signal
        stopped it.
    """
    config = parse(SeparateConfig, with_options(argv), "separate", positional="inputs")
    wait_passively()  # leaves the encoder a core

    from separator.inference.stopping import stoppable
    from separator.inference.terminal import complain

    with stoppable() as stop:
        try:
            failures = _separate(config)
        except BaseException:
            # whatever the interruption became on its way, or broke after it, it is the reason
            if not stop.number:
                raise
            complain(f"stopped by {stop.name}; the same command goes on with the songs left")
            return stop.status
        for failure in failures:
            complain(failure)
        return 1 if failures else 0


def _separate(config: SeparateConfig) -> list[str]:
    """Do all that is asked for; returns a line for each song that could not be separated."""
    from separator.allocator import keep_memory
    from separator.inference.choices import Choices, outputs
    from separator.inference.failures import unreadable
    from separator.inference.files import Work, check_folder
    from separator.inference.plan import plan
    from separator.inference.run_report import RunReport
    from separator.inference.terminal import complain, say
    from separator.inference.watch import WATCH_SECONDS, Watch
    from separator.model_sources import find_model

    weights = weights_of(config.weights)
    paths = config.model or [find_model()]
    if not config.watch and (failures := unreadable(config.inputs)):  # before a model is loaded
        report = RunReport({"path": ", ".join(paths), "digest": ""}, failures=failures)
        if config.report and not config.dry_run:
            report.write(config.report)
        if len(failures) > 1 and not config.dry_run:
            log.info("%s", report.sentence())
        return [*failures.values()]
    keep_memory(one_heap=True)
    separator, device = _loaded(paths, weights, config)
    digest = separator.description.get("digest", "")
    chosen = config.stems, config.two_stems, levels_of(config.mix)
    written = outputs(separator.stems, *chosen, together=config.format == STEMS)
    titles = tuple(output.title for output in written)
    shared = {key: value for key, value in vars(config).items() if hasattr(Choices, key)}
    choices = Choices(**shared | {"model": digest, "version": __version__, "titles": titles})
    if config.name and len(titles) > 1 and "stem" not in NameTemplate(config.name).fields:
        raise UsageError(f"--name: has no {{stem}}, but {len(titles)} stems are written; add it")
    report = RunReport({"path": ", ".join(map(str, paths)), "digest": digest})
    jobs = config.jobs or (3 if device == "cpu" else 8)
    work = Work(separator, written, config.bitrate or None, config.batch, config.strict, jobs)
    if config.report and not config.dry_run:
        check_folder(Path(config.report).absolute().parent, "--report")
    watch = Watch() if config.watch else None
    if watch:
        log.info("watching %s; Ctrl-C ends it", ", ".join(map(printable, config.inputs)))
    while True:
        planned = plan(config.inputs, Path(config.output), choices, watch)
        for song, line in planned.failures.items():
            report.fail(song, line)
        for info, results in planned.done:
            report.add(info, results)
        if config.dry_run:
            for path in (path for job in planned.jobs for path in job.missing):
                say(printable(str(path)))
        else:
            _do(planned, work, report, config)
        if not watch:
            return list(report.failures.values())
        for line in watch.news(report.failures.values()):
            complain(line)
        time.sleep(WATCH_SECONDS)


def _do(planned: "Plan", work: "Work", report: "RunReport", config: SeparateConfig) -> None:
    """Separate the songs of a plan, and write the report."""
    from separator.atomic import remove_leftovers
    from separator.inference.files import check_folder, separate_files

    songs = len(planned.jobs) + len(planned.failures) + len(planned.done)
    for folder in planned.folders:
        remove_leftovers(folder)
    try:
        if planned.jobs:
            check_folder(Path(config.output))
            separate_files(planned.jobs, work, report)
    finally:
        if config.report and (songs or not config.watch):
            report.write(config.report)
    if songs > 1 and (planned.jobs or (planned.failures and not config.watch)):
        log.info("%s", report.sentence())


def _loaded(
    paths: list[str], weights: list[float], config: SeparateConfig
) -> "tuple[StreamingSeparator[Any], str]":
    """Load the models with the backend that is wanted, or that there is; return where they run."""
    from separator.api import load
    from separator.ensemble import Ensemble

    quality = config.shifts, config.chunk, config.overlap
    models = [load(path, config.device, *quality, backend=config.backend) for path in paths]
    for path, model in zip(paths, models, strict=True):
        log.debug("model: %s", described(path, model.description))
    device = getattr(models[0], "device", None)  # onnxruntime runs on the CPU only
    alone = len(models) == 1 and not weights
    separator = models[0] if alone else Ensemble(models, config.average, weights)
    return separator, device.type if device else "cpu"


def described(path: str | os.PathLike, description: dict[str, Any]) -> str:
    """Return a model's path with its step, its score and the beginning of its digest.

    Args:
        path: of the model.
        description: as in its file.
    """
    trained = description.get("trained")
    trained = trained if isinstance(trained, dict) else {}
    facts = []
    if isinstance(trained.get("step"), int):
        facts.append(f"step {trained['step']}")
    if isinstance(trained.get("score"), int | float):
        stems = StemSet(description["model"]["stems"]) if "model" in description else TWO_STEMS
        scored = stems.rest if stems.masks == 1 else "mean of the stems"
        facts.append(f"{scored} {trained['score']:.2f} dB on its validation songs")
    if isinstance(description.get("digest"), str):
        facts.append(f"digest {printable(description['digest'][:12])}")
    name = printable(str(path))
    return f"{name} ({', '.join(facts)})" if facts else name

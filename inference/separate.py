"""`separator separate INPUT… [-o DIR] [-m MODEL]`: the instrumentals of songs and folders."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from separator import __version__
from separator.audio.formats import ENCODINGS
from separator.config import parse
from separator.errors import SeparatorError, printable
from separator.inference.choices import check_bits
from separator.ranges import CheckedConfig, Within

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SeparateConfig(CheckedConfig):
    """Write the instrumental of each song, and with `--stems` the vocals too.

    Attributes:
        inputs: songs and folders of songs.
        output: (or -o) folder for the results; the tree of an input folder is kept below it.
        model: (or -m) model file, or a name that `separator models` lists; else $SEPARATOR_MODEL or
            the first of that list.
        stems: write the vocals too.
        format: format of the results; "input" keeps each song's own, which codes lossy ones twice.
        bits: 16, 24 or 32 (float) bits a sample of wav, flac and aiff; 0 keeps the song's own
            format, and takes 24 in flac and aiff, 32 in wav for a song that has none.
        bitrate: kilobits per second of lossy formats (0 takes the format's high-quality default).
        strict: refuse songs that are damaged somewhere instead of separating the rest of them.
        overwrite: do songs again whose results exist, and replace files of the same name of which
            it is not known where they came from. Results of other songs always stay.
        keep: keep results that exist although another model, version or setting made them, or
            although it is not known where they came from.
        device: where to run; auto takes a GPU when there is one.
        batch: chunks of 12 seconds processed at once.
    """

    inputs: list[str]
    output: str = "stems"
    model: str = ""
    stems: bool = False
    format: Literal["input", *ENCODINGS] = "flac"
    bits: Literal[0, 16, 24, 32] = 0
    bitrate: int = 0
    strict: bool = False
    overwrite: bool = False
    keep: bool = False
    device: str = "auto"
    batch: Annotated[int, Within("[1, 4096]")] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bitrate and not 32 <= self.bitrate <= 512:
            raise SeparatorError(f"bitrate: {self.bitrate} is not 0 or in 32..512 (kb/s)")
        if self.bits not in (0, 16, 24, 32):
            raise SeparatorError(f"bits: {self.bits} is not 0, 16, 24 or 32")
        if self.bits and self.format != "input":
            check_bits(self.format, self.bits)
        if self.keep and self.overwrite:
            raise SeparatorError("keep: contradicts overwrite; leave one of them out")


SHORT = {"-o": "--output", "-m": "--model"}


def main(argv: list[str]) -> int:
    """Separate all inputs.

    Returns:
        1 when some could not be, after all the others are done; 130, 143 or 129 when a signal
        stopped it.
    """
    argv = [SHORT.get(word, word) for word in argv]
    config = parse(SeparateConfig, argv, "separate", positional="inputs")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # waiting threads leave the encoder a core

    from separator.inference.progress import complain
    from separator.inference.stopping import stoppable

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
    from separator.api import Separator, find_model
    from separator.atomic import remove_leftovers
    from separator.inference.choices import Choices
    from separator.inference.files import Work, separate_files
    from separator.inference.plan import check_folder, plan

    path = config.model or find_model()
    keep_memory()
    separator = Separator.load(path, config.device)
    digest = separator.description.get("digest", "")
    log.info("model: %s", described(path, separator.description))
    settings = (config.format, config.stems, config.bits, config.bitrate)
    choices = Choices(digest, __version__, *settings, config.overwrite, config.keep)
    planned = plan(config.inputs, Path(config.output), choices)
    for folder in planned.folders:
        remove_leftovers(folder)
    if not planned.jobs:
        return planned.failures
    check_folder(Path(config.output))
    work = Work(separator, config.bitrate or None, config.batch, config.strict)
    return planned.failures + separate_files(planned.jobs, work)


def described(path: str | os.PathLike, description: dict[str, Any]) -> str:
    """Return a model's file with its step, its score and the beginning of its digest."""
    trained = description.get("trained")
    trained = trained if isinstance(trained, dict) else {}
    facts = []
    if isinstance(trained.get("step"), int):
        facts.append(f"step {trained['step']}")
    if isinstance(trained.get("score"), int | float):
        facts.append(f"accompaniment {trained['score']:.2f} dB on its validation songs")
    if isinstance(description.get("digest"), str):
        facts.append(f"digest {printable(description['digest'][:12])}")
    name = printable(str(path))
    return f"{name} ({', '.join(facts)})" if facts else name

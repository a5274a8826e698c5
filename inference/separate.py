"""`separator separate INPUT… [-o DIR] [-m MODEL]`: the instrumentals of songs and folders."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from separator.config import parse
from separator.errors import SeparatorError, printable
from separator.ranges import require


@dataclass(frozen=True)
class SeparateConfig:
    """Write the instrumental of each song, and with `--stems` the vocals too.

    Attributes:
        inputs: songs and folders of songs.
        output: (or -o) folder for the results; the tree of an input folder is kept below it.
        model: (or -m) model file; else $SEPARATOR_MODEL or the newest runs/*/model.safetensors.
        stems: write the vocals too.
        format: format of the results; "input" keeps each song's own, which codes lossy ones twice.
        bitrate: kilobits per second of lossy formats (0 takes the format's high-quality default).
        overwrite: replace results that exist instead of skipping their songs.
        device: where to run; auto takes a GPU when there is one.
        batch: chunks of 12 seconds processed at once.
    """

    inputs: list[str]
    output: str = "stems"
    model: str = ""
    stems: bool = False
    format: Literal["input", "wav", "flac", "mp3", "ogg", "opus", "m4a", "aiff"] = "flac"
    bitrate: int = 0
    overwrite: bool = False
    device: str = "auto"
    batch: int = 1

    def __post_init__(self) -> None:
        require(self, "[1, inf)", "batch")
        if self.bitrate and not 32 <= self.bitrate <= 512:
            raise SeparatorError(f"bitrate: {self.bitrate} is not 0 or in 32..512 (kb/s)")


SHORT = {"-o": "--output", "-m": "--model"}


def main(argv: list[str]) -> int:
    """Separate all inputs; returns 1 when some could not be, after all the others are done."""
    argv = [SHORT.get(word, word) for word in argv]
    config = parse(SeparateConfig, argv, "separate", positional="inputs")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # waiting threads leave the encoder a core

    from separator.allocator import keep_memory
    from separator.api import Separator, find_model
    from separator.inference.files import separate_files
    from separator.inference.plan import check_folder, plan

    output = Path(config.output)
    jobs, failures = plan(config.inputs, output, config.format, config.stems, config.overwrite)
    if jobs:
        check_folder(output)
        keep_memory()
        separator = Separator.load(config.model or find_model(), config.device)
        failures += separate_files(jobs, separator, config.bitrate or None, config.batch)
    for failure in failures:
        sys.stderr.write(f"separator: {printable(failure)}\n")
    return 1 if failures else 0

"""`separator scan FOLDER…`: index a music library, and report what training cannot use."""

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from separator.arguments import check_report
from separator.config import parse
from separator.data.library.scan import Library, check_jobs, scan
from separator.data.library.scan_report import named_files, summary, write_report
from separator.errors import SeparatorError, printable

if TYPE_CHECKING:
    from torch import Tensor

    from separator.streaming import StreamingSeparator


@dataclass(frozen=True)
class ScanConfig:
    """Find the usable songs of a music library; report the other files. None is moved.

    Attributes:
        roots: folders of music; all their subfolders are searched.
        report: file to write; it lists every quarantined (unusable) file with the reason, every
            duplicate, and every usable file that has a defect. JSON if its name ends in .json, else
            tab-separated text.
        jobs: number of processes that decode files; one for each core by default.
        index: file in which the results are kept, so that the next scan reads new and changed files
            only; by default $SEPARATOR_INDEX, or a file in your user's data folder.
        pairs: folder to write pairs of songs to. A song of which the library has both the full mix
            and the instrumental, by their names or by their sound, is aligned in time and written
            as a pair, for `separator train 'data.roots=[pairs:FOLDER]'`.
    """

    roots: list[str]
    report: str | None = field(default=None, metadata={"metavar": "FILE"})
    jobs: int | None = None
    index: str | None = field(default=None, metadata={"metavar": "FILE"})
    pairs: str | None = field(default=None, metadata={"metavar": "FOLDER"})

    def __post_init__(self) -> None:
        check_jobs(self.jobs)
        if self.report:
            check_report(self.report)
        if self.pairs and Path(self.pairs).exists() and not Path(self.pairs).is_dir():
            raise SeparatorError(f"pairs: {self.pairs} is a file; give a folder")


def main(argv: list[str]) -> int:
    """Scan the library and print a summary; the status is 0 when the scan is complete."""
    config = parse(ScanConfig, argv, "scan", positional="roots")
    if config.pairs:
        import torch  # noqa: F401  # a missing one ends the command here, not after a long search
    library = scan(config.roots, config.index, config.jobs)
    print(summary(library))
    for line in filter(None, map(_layout, library.roots)):
        print(line)
    if config.pairs:
        _write_pairs(library, config, config.pairs)
    if config.report:
        write_report(library, config.report)
    elif text := named_files(library):
        print(text)
    return 0


def _write_pairs(library: Library, config: ScanConfig, folder: str) -> None:
    """Write the pairs of a library; print the ones that were left out, and why."""
    from separator.data.library.fingerprints import library_fingerprints, similar_songs
    from separator.data.pairs import suggested_pairs, write_pairs

    similar = similar_songs(library_fingerprints(library, config.index, config.jobs))
    pairs, written = suggested_pairs(library.songs, similar, library.keys), 0
    for pair, reason in write_pairs(pairs, folder, _voice):
        written += not reason
        if reason:
            names = (printable(str(song.path)) for song in (pair.instrumental, pair.original))
            print("left out     {} and {}: {}".format(*names, reason))
    suggested = f"{written} of {len(pairs)} that names or sound suggest"
    print(f"pairs        {suggested}, in {printable(folder)}")


def _voice(wave: "Tensor", rate: int) -> "Tensor":
    """Return the voice in a wave (c t), as the bundled model estimates it."""
    return wave - _model().separate(wave, rate)["instrumental"]


@functools.cache
def _model() -> "StreamingSeparator":
    """Load the bundled model, once it is needed."""
    from separator.api import load

    return load("tiny-vocals")


def _layout(root: Path) -> str:
    """Describe the layout that training would detect in a folder; "" for one of mixed songs."""
    from separator.data.layouts import describe_layout

    try:
        text = describe_layout(root)
    except SeparatorError as error:
        text = str(error)
    return f"layout       {text}" if text else ""

"""Songs to stems on disk: which file becomes which, one song as a stream, many in turn."""

import contextlib
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from separator import audio
from separator.api import Separator
from separator.atomic import replacing
from separator.audio import AudioInfo
from separator.errors import SeparatorError
from separator.inference.separate import SeparateConfig
from separator.inference.tags import copy_tags

log = logging.getLogger(__name__)

STEMS = ("Instrumental", "Vocals")
INTEGER = {"flac", "aiff"}  # by default wav holds floats, and lossy codecs keep overs


@dataclass(frozen=True)
class Job:
    """One song and the files it becomes, the instrumental first."""

    info: AudioInfo
    outputs: tuple[Path, ...]


def plan(config: SeparateConfig) -> tuple[list[Job], list[str]]:
    """Decide which songs are to be separated into which files.

    Returns:
        The jobs, without those whose results exist, and a line for each input that is no song.
    """
    failures: list[str] = []
    songs: list[tuple[AudioInfo, Path]] = []
    for text in config.inputs:
        for path, below in _songs(Path(text)):
            try:
                songs.append((audio.probe(path), below))
            except SeparatorError as error:
                failures.append(str(error))
    jobs, skipped = [], 0
    for info, outputs in zip([info for info, _ in songs], _outputs(songs, config), strict=True):
        if not config.overwrite and all(path.exists() for path in outputs):
            skipped += 1
        else:
            jobs.append(Job(info, outputs))
    if skipped:
        log.info("%d already separated (--overwrite does them again)", skipped)
    if not songs and not failures:
        failures.append(f"{', '.join(config.inputs)}: no songs found; give audio files or folders")
    return jobs, failures


def separate_files(jobs: list[Job], separator: Separator, config: SeparateConfig) -> list[str]:
    """Separate songs in turn; returns a line for each that failed."""
    failures = []
    total = sum(job.info.seconds for job in jobs)
    form = "{l_bar}{bar}| {n:.0f}/{total:.0f} s [{elapsed}<{remaining}, {rate_fmt}]"
    with logging_redirect_tqdm(), tqdm(total=total, unit=" s", bar_format=form) as bar:
        for job in jobs:
            bar.set_description(job.info.path.name[:40])
            try:
                separate_file(job, separator, config, bar)
                bar.write("\n".join(str(path) for path in job.outputs))
            except (SeparatorError, OSError) as error:
                failures.append(_named(job.info.path, error))
    return failures


def separate_file(job: Job, separator: Separator, config: SeparateConfig, bar: tqdm) -> None:
    """Separate one song as a stream; its files appear together when all is done.

    Raises:
        SeparatorError: the song cannot be read to its end, or has samples that are not finite.
    """
    info = job.info
    if info.channels > 2:
        log.info("%s: %d channels are folded to stereo", info.path, info.channels)
    peak = _write(job, separator, config, 1.0, bar)
    if peak > 1 and any(_format(path) in INTEGER for path in job.outputs):
        log.info("%s: all stems are lowered by %.2f dB, which %s needs", info.path,
                 20 * torch.tensor(peak).log10().item(), job.outputs[0].suffix[1:])  # fmt: skip
        _write(job, separator, config, 1 / peak, bar)


def _write(
    job: Job, separator: Separator, config: SeparateConfig, gain: float, bar: tqdm
) -> float:
    """Write all stems with one gain; returns the largest sample of any before it."""
    info, peak = job.info, 0.0
    channels = min(info.channels, 2)
    with contextlib.ExitStack() as stack:
        temporary = [stack.enter_context(replacing(path)) for path in job.outputs]
        with contextlib.ExitStack() as open_files:
            writers = [
                open_files.enter_context(
                    audio.Writer(path, info.rate, channels, bitrate=config.bitrate or None)
                )
                for path in temporary
            ]
            for mixture, vocals in separator.stream(_finite(info), info.rate, config.batch):
                for writer, stem in zip(writers, (mixture - vocals, vocals), strict=False):
                    peak = max(peak, stem.abs().amax().item())
                    writer.write(stem * gain if gain != 1 else stem)
                bar.update(mixture.shape[-1] / info.rate)
        for path, stem in zip(temporary, STEMS, strict=False):
            copy_tags(info.path, path, stem)
    return peak


def _finite(info: AudioInfo) -> Iterator[Tensor]:
    for block in audio.blocks(info.path):
        if not torch.isfinite(block).all():
            raise SeparatorError(f"{info.path}: holds NaN or infinite samples; repair it first")
        yield block


def _songs(root: Path) -> Iterator[tuple[Path, Path]]:
    """Yield songs with the folder, relative to the output, that their results go to."""
    if not root.is_dir():
        yield root, Path()
        return
    for path in sorted(root.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
        if path.suffix.lower() in audio.SUFFIXES and path.is_file() and not hidden:
            yield path, path.relative_to(root).parent


def _outputs(
    songs: list[tuple[AudioInfo, Path]], config: SeparateConfig
) -> list[tuple[Path, ...]]:
    """Name the results; songs that differ in their suffix only keep it in the name."""
    stems = STEMS if config.stems else STEMS[:1]
    targets = []
    for info, below in songs:
        suffix = info.format if config.format == "input" else config.format
        targets.append((Path(config.output) / below, info.path.stem, suffix))
    taken = Counter(targets)
    named, used = [], Counter()
    for (info, _), target in zip(songs, targets, strict=True):
        folder, name, suffix = target
        name = info.path.name if taken[target] > 1 else name
        used[folder, name, suffix] += 1
        again = used[folder, name, suffix]
        name = f"{name} {again}" if again > 1 else name
        named.append(tuple(folder / f"{name} ({stem}).{suffix}" for stem in stems))
    return named


def _format(path: Path) -> str:
    return path.suffix[1:].lower()


def _named(path: Path, error: Exception) -> str:
    return str(error) if str(path) in str(error) else f"{path}: {error}"

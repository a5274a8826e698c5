"""Songs to stems on disk: a song as a stream, many in turn; outputs appear whole or not at all."""

import contextlib
import logging
import math
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from separator import audio
from separator.api import Separator
from separator.atomic import remove_leftovers, replacing
from separator.errors import one_line
from separator.inference.plan import TITLES, Job
from separator.inference.tags import copy_tags

log = logging.getLogger(__name__)

INTEGER = {".flac", ".aiff"}  # wav holds floats by default, and lossy codecs keep overs


def separate_files(
    jobs: Sequence[Job], separator: Separator, bitrate: int | None = None, batch: int = 1
) -> list[str]:
    """Separate songs in turn, with a progress bar in seconds of sound.

    Args:
        jobs: what to do.
        separator: the model.
        bitrate: kb/s of lossy formats; None takes each format's default.
        batch: chunks processed at once.

    Returns:
        A line for each song that failed.
    """
    failures, done = [], 0.0
    form = "{l_bar}{bar}| {n:.0f}/{total:.0f} s [{elapsed}<{remaining}, {rate_fmt}]"
    total = sum(job.info.seconds for job in jobs)
    with (
        logging_redirect_tqdm(),
        tqdm(total=total, unit=" s", bar_format=form, disable=None) as bar,
    ):
        for job in jobs:
            bar.set_description(job.info.path.name[:40])
            try:
                separate_file(job, separator, bar, bitrate, batch)
                bar.write("\n".join(str(path) for path in job.outputs))
            except Exception as error:  # whatever a decoder raises, the other songs are wanted
                failures.append(_named(job.info.path, error))
            done += job.info.seconds
            bar.update(done - bar.n)
    return failures


def separate_file(
    job: Job, separator: Separator, bar: tqdm, bitrate: int | None = None, batch: int = 1
) -> None:
    """Separate one song as a stream; its files appear together when all is done.

    Raises:
        SeparatorError: the song cannot be read to its end, or has samples that are not finite.
        OSError: the outputs cannot be written.
    """
    info = job.info
    if info.channels > 2:
        log.info("%s: %d channels are folded to stereo", info.path, info.channels)
    for path in job.outputs:
        remove_leftovers(path.parent, path.stem)
    with contextlib.ExitStack() as stack:
        temporary = [stack.enter_context(replacing(path)) for path in job.outputs]
        pieces = _stems(job, separator, bar, batch)
        if any(path.suffix in INTEGER for path in job.outputs):
            spool = stack.enter_context(tempfile.TemporaryFile(dir=temporary[0].parent))
            pieces = _fitted(pieces, spool, job)
        _write(pieces, temporary, info, bitrate)
        for path, stem in zip(temporary, TITLES, strict=False):
            copy_tags(info.path, path, stem)


def _stems(job: Job, separator: Separator, bar: tqdm, batch: int) -> Iterator[Tensor]:
    """Yield pieces (s c t) of the stems that the job writes."""
    info = job.info
    for mixture, vocals in separator.stream(audio.blocks(info.path), info.rate, batch):
        yield torch.stack([mixture - vocals, vocals][: len(job.outputs)])
        bar.update(min(mixture.shape[-1] / info.rate, max(bar.total - bar.n, 0)))


def _fitted(pieces: Iterator[Tensor], spool: tempfile.TemporaryFile, job: Job) -> Iterator[Tensor]:
    """Lower all stems by one gain when a sample of any exceeds ±1, which integers cannot hold.

    The gain is known at the end only, so the stems wait in a nameless file.
    """
    shapes, peak = [], 1.0
    for piece in pieces:
        peak = max(peak, piece.abs().max().item())
        spool.write(piece.contiguous().numpy().data)
        shapes.append(piece.shape)
    if peak > 1:
        name, decibels = job.outputs[0].suffix[1:], 20 * math.log10(peak)
        log.info(
            "%s: all stems are lowered by %.2f dB to fit into %s", job.info.path, decibels, name
        )
    spool.seek(0)
    for shape in shapes:
        piece = torch.frombuffer(bytearray(spool.read(4 * shape.numel())), dtype=torch.float32)
        yield piece.view(shape) / peak


def _write(
    pieces: Iterator[Tensor], paths: Sequence[Path], info: audio.AudioInfo, bitrate: int | None
) -> None:
    """Encode pieces (s c t), each stem in a thread of its own while the next piece is computed."""
    with contextlib.ExitStack() as stack:
        shape = (info.rate, min(info.channels, 2))
        writers = [
            stack.enter_context(audio.Writer(path, *shape, bitrate=bitrate, samples=info.samples))
            for path in paths
        ]
        pool = stack.enter_context(ThreadPoolExecutor(len(writers)))  # ends before the writers do
        pending = []
        for piece in pieces:
            for job in pending:
                job.result()
            pending = [
                pool.submit(writer.write, stem) for writer, stem in zip(writers, piece, strict=True)
            ]
        for job in pending:
            job.result()


def _named(path: Path, error: Exception) -> str:
    """Return one line that begins with the song."""
    text = one_line(error)
    if isinstance(error, OSError):
        text += "; free some disk space or choose another folder with -o"
    return text if text.startswith(str(path)) else f"{path}: {text}"

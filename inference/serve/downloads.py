"""Encode stems, or a mix of them at other levels, as files with the song's tags; several as zip."""

import hashlib
import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from separator import audio
from separator.errors import SeparatorError
from separator.inference.choices import MIX, sample_format
from separator.inference.serve.session import Session, Song
from separator.inference.tags import copy_tags

MAX_DOWNLOADS = 4  # of a session, that stay on the disk


@dataclass(frozen=True)
class Request:
    """One download.

    Attributes:
        songs: of what.
        stems: the stems that are wanted, each as a file.
        gains: a factor for each stem, for one file of all of them; instead of `stems`.
        format: suffix without its dot, or "input" for the song's own.
        written: numbers of samples that are encoded so far.
    """

    songs: tuple[Song, ...]
    stems: tuple[str, ...]
    gains: Mapping[str, float]
    format: str
    written: list[int] = field(default_factory=list, compare=False)

    @property
    def bytes(self) -> int:
        """Bytes of its files as 32-bit floats, and once more the largest, while it is zipped."""
        waves = [
            song.spool.samples * song.spool.channels * 4
            for song in self.songs
            for _ in _outputs(song, self)
        ]
        return sum(waves) + max(waves, default=0) * (len(waves) > 1)

    @property
    def progress(self) -> float:
        """The part of it that is encoded, from 0 to 1."""
        samples = [song.spool.samples * len(list(_outputs(song, self))) for song in self.songs]
        return sum(self.written) / max(sum(samples), 1)

    @property
    def id(self) -> str:
        """A name that is the same for the same request."""
        ids = [song.id for song in self.songs]
        key = json.dumps([ids, self.stems, sorted(self.gains.items()), self.format])
        return hashlib.blake2b(key.encode(), digest_size=12).hexdigest()


def prepare(session: Session, request: Request) -> Path:
    """Make the file of a request, unless it is there already.

    Args:
        session: whose songs they are.
        request: of what.

    Raises:
        SeparatorError: it cannot be encoded, or none of the stems are the songs'.
    """
    if path := session.download(request.id):
        return path
    folder = session.folder / request.id
    try:
        folder.mkdir()
        path = _made(request, folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    session.downloads[request.id] = path, request.songs
    for id in [*session.downloads][:-MAX_DOWNLOADS]:
        session.drop_download(id)
    if any(song.cancelled.is_set() for song in request.songs):  # removed since its last block
        session.drop_download(request.id)
    return path


def _made(request: Request, folder: Path) -> Path:
    """Encode the files, and put several into a zip."""
    made: list[Path] = []
    for number, song in enumerate(request.songs):
        outputs = list(_outputs(song, request))
        with ThreadPoolExecutor(max(1, len(outputs))) as pool:
            pending = [
                pool.submit(_encoded, song, *output, request, folder / str(number))
                for output in outputs
            ]
        made += [one.result() for one in pending]
    if not made:
        raise SeparatorError("none of these stems are the song's; choose others")
    if len(made) == 1:
        return made[0].rename(folder / made[0].name)
    name = request.songs[0].path.stem if len(request.songs) == 1 else "stems"
    path = folder / f"{name}.zip"
    taken: set[str] = set()
    with zipfile.ZipFile(path, "w") as archive:
        for file in made:
            archive.write(file, _free_name(file, taken))
            file.unlink()
    return path


def _free_name(file: Path, taken: set[str]) -> str:
    """Return a file's name, with a number if another file of the zip has it."""
    name, number = file.name, 2
    while name.casefold() in taken:
        name, number = f"{file.stem} {number}{file.suffix}", number + 1
    taken.add(name.casefold())
    return name


def _outputs(song: Song, request: Request) -> Iterator[tuple[str, Tensor]]:
    """Yield title and factors (s) of each file that is wanted of a song."""
    names = song.spool.names
    if request.gains:
        yield MIX, torch.tensor([request.gains.get(name, 1.0) for name in names])
        return
    for place, name in enumerate(names):
        if name in request.stems:
            yield name.capitalize(), torch.eye(len(names))[place]


def _encoded(song: Song, title: str, factors: Tensor, request: Request, folder: Path) -> Path:
    """Write one file of a song as the command line does: its rate, sample format and tags.

    Where an integer format would clip, all stems of a song are lowered by one gain.
    """
    suffix = audio.written_as(song.info.format) if request.format == "input" else request.format
    path = folder / f"{song.path.stem} ({title}).{suffix}"
    subtype = sample_format(song.info, suffix, 0)
    options = {"subtype": subtype, "dither": subtype == "PCM_16"} if subtype else {}
    spool = song.spool

    def mixed() -> Iterator[Tensor]:
        for block in spool.blocks():
            yield torch.einsum("sct,s->ct", block, factors)

    peak = 1.0
    if subtype.startswith("PCM"):
        alone = title != MIX
        peak = spool.peak if alone else max(float(wave.abs().max()) for wave in mixed())
    with audio.Writer(
        path, song.info.rate, spool.channels, samples=spool.samples, **options
    ) as writer:
        for wave in mixed():
            writer.write(wave / max(peak, 1.0))
            request.written.append(wave.shape[-1])
            if song.cancelled.is_set():
                raise SeparatorError("the song was removed")
    copy_tags(song.path, path, title)
    return path

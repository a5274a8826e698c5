"""Songs for training: finding them in every layout people keep them in, and reading their stems.

A song's stems are sums of sources (streams of files) with factors, so that one description serves
stems, pairs (vocals = mixture - instrumental) and pools alike. Reading is in `load_stems`.
"""

import functools
import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from separator import audio
from separator.data.layouts import FINDERS, SongFiles, check_kind
from separator.data.reader import Reader, Source
from separator.data.splits import pool_shared_out, shared_out
from separator.data.stem_files import FOUR, ONE, TWO, StemFile, Stems, table
from separator.data.walk import checked_folders
from separator.errors import SeparatorError, one_line, printable

_APART_SECONDS = 1.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Track:
    """One song.

    Attributes:
        name: Unique within its root and split.
        split: "train", "valid" or "test".
        stems: For each stem, vocals last, the sources whose sum it is.
        samples: Length of the shortest source, at `rate`.
        rate: Sampling rate of that source in Hz.
        kind: Layout of its root, a key of `layouts.FINDERS`.
        root: The folder it was found in; tracks of one root share their weight.
        weight: Share of training segments that the root gets, relative to other roots.
        content: What tells the same audio in any file; empty where no scan has looked at it.
    """

    name: str
    split: str
    stems: tuple[tuple[str, tuple[Source, ...]], ...]
    samples: int
    rate: int
    kind: str
    root: str
    weight: float = 1.0
    content: str = ""

    @property
    def identity(self) -> object:
        """Equal for the same song found in two roots: its content if known, else its files."""
        return self.content or self.stems

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the stems, vocals last."""
        return tuple(name for name, _ in self.stems)

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.samples / self.rate

    def length(self, rate: int) -> int:
        """Samples after resampling to `rate`."""
        return -(-self.samples * rate // self.rate)


def stem_names(tracks: Sequence[Track]) -> tuple[str, ...]:
    """The finest division into stems that every track has: `FOUR`, `TWO` or `ONE`."""
    if any("mixture" in track.names for track in tracks):
        return ONE
    return FOUR if all(track.names == FOUR for track in tracks) else TWO


def find_tracks(
    root: str | os.PathLike,
    kind: str = "auto",
    weight: float = 1.0,
    valid_share: float = 0.1,
) -> list[Track]:
    """Find the songs below one folder. Those that cannot be used are logged with the reason.

    Args:
        root: The folder.
        kind: Its layout, or "auto" to recognise it:
            musdb18: *.stem.mp4 in train/ and test/, or in the folder itself;
            musdb18hq: train/ and test/ with SONG/{mixture,drums,bass,other,vocals}.wav;
            stems: SONG/{vocals,drums,bass,other,...}; what is not vocals is accompaniment;
            pairs: mixtures/ and instrumentals/ with files of the same names;
            pool: instrumentals/ and vocals/, to be mixed at random;
            library: anything else: mixed songs without stems.
            Folders train/, valid/ and test/ around the songs are their split, also under the
            other names of `splits.FOLDERS` and in any case; in a library only where nothing else
            stands beside them. Without valid/, the songs of train/ that musdb validates with do.
        weight: Share of training segments, relative to other roots.
        valid_share: Part of the songs that is kept for validation where the collection has no
            split of its own; chosen by a hash of each song's name, so that adding songs does not
            move the others. At least one of two or more.

    Returns:
        Tracks sorted by name. A pool's training tracks are halves (one stem each); its validation
        tracks are instrumentals with a fixed voice.

    Raises:
        SeparatorError: when the folder is not there or has no usable song, or a folder beside its
            splits is named like one and not understood.
    """
    (folder,) = checked_folders([root], "give the path of a folder with music")
    root = Path(folder)
    kind = check_kind(root, kind)
    skipped: list[str] = []
    songs = sorted(FINDERS[kind](root, skipped), key=lambda song: song.name)
    tracks = _probed(songs, (kind, str(root), weight), skipped)
    for reason in skipped:
        log.warning("skipped: %s", reason)
    if not tracks:
        why = f" ({len(skipped)} skipped: {skipped[0]})" if skipped else ""
        name = printable(str(root))
        raise SeparatorError(f"{name}: no usable song of kind {kind}{why}; check its layout")
    tracks = (pool_shared_out if kind == "pool" else shared_out)(tracks, valid_share)
    _log_found(root, kind, tracks, len(skipped))
    if kind in ("stems", "musdb18hq"):
        log.info("%s: %s", printable(str(root)), table(dict(track.stems) for track in tracks))
    return tracks


def _probed(
    songs: Sequence[SongFiles], place: tuple[str, str, float], skipped: list[str]
) -> list[Track]:
    """Look at the files of songs; those that cannot be used are added to `skipped`."""
    tracks = []
    for song in songs:
        try:
            tracks.append(track_of(song, place))
        except (SeparatorError, OSError) as error:
            skipped.append(one_line(error))
    return tracks


def track_of(song: SongFiles, place: tuple[str, str, float]) -> Track:
    """Look at the headers of a song's files.

    Args:
        song: the song.
        place: kind, root and weight, as the attributes of `Track`.

    Raises:
        SeparatorError: a file cannot be read, or is much shorter than another.
        OSError: the system does not let a file be read.
    """
    stems = _sources(song.stems)
    samples, rate = _common_length(stems)
    return Track(song.name, song.split or "", stems, samples, rate, *place, song.content)


def _log_found(root: Path, kind: str, tracks: Sequence[Track], skipped: int) -> None:
    """Say how many songs a folder has, and of which split."""
    splits = Counter(track.split for track in tracks)
    counts = ", ".join(f"{split} {splits[split]}" for split in ("train", "valid", "test"))
    number = f"{len(tracks)} song{'s' * (len(tracks) != 1)}"
    log.info(
        "%s: %s of kind %s (%s); skipped: %d", printable(str(root)), number, kind, counts, skipped
    )


def load_stems(
    track: Track,
    rate: int,
    start: int = 0,
    samples: int | None = None,
    reader: Reader | None = None,
    names: tuple[str, ...] | None = None,
) -> dict[str, Tensor]:
    """Read a song, or a part of it, as stereo stems at `rate`.

    Args:
        track: The song.
        rate: Sampling rate of the result; `start` and `samples` are counted at it.
        start: First sample.
        samples: How many; fewer come back at the song's end. None: to the end.
        reader: Keeps caches between calls; its rate must be `rate`.
        names: Division into stems, such as `FOUR`; by default vocals and accompaniment, or the
            mixture where nothing else is known. ("mixture",) is the sum of all stems.

    Returns:
        For each name (c t) with c = 2. Half of a pool has only its own stem.

    Raises:
        SeparatorError: when a file cannot be read; nothing is ever replaced by zeros.
    """
    reader = reader or Reader(rate)
    left = max(0, track.length(rate) - start)
    samples = left if samples is None else min(samples, left)

    @functools.cache  # pairs use one file twice
    def wave(source: Source) -> Tensor:
        return reader.read(source, start, samples)

    def stem(sources: tuple[Source, ...]) -> Tensor:
        first, *more = (wave(replace(source, gain=1.0)) for source in sources)
        total = first if sources[0].gain == 1 else first * sources[0].gain
        for source, part in zip(sources[1:], more, strict=True):
            total = total.add(part, alpha=source.gain)
        return total

    stems = {name: stem(sources) for name, sources in track.stems}
    return _fold(stems, names or (ONE if "mixture" in stems else TWO))


def _fold(stems: dict[str, Tensor], names: tuple[str, ...]) -> dict[str, Tensor]:
    """Sum stems into a coarser division."""
    if names == ONE:
        return {"mixture": torch.stack(list(stems.values())).sum(0)}
    if names == TWO:
        rest = [wave for name, wave in stems.items() if name != "vocals"]
        folded = {"accompaniment": torch.stack(rest).sum(0)} if rest else {}
        return folded | {name: stems[name] for name in ("vocals",) if name in stems}
    return {name: stems[name] for name in names}


def _sources(stems: Stems) -> tuple[tuple[str, tuple[Source, ...]], ...]:
    """Probe the files of a song; raises for one that cannot be read."""

    def source(file: StemFile) -> Source:
        info = file.info or audio.probe(file.path)
        name = printable(str(file.path))
        if info.samples <= 0:
            raise SeparatorError(f"{name}: has no samples; copy it again")
        if file.stream >= info.streams:
            raise SeparatorError(
                f"{name}: has {info.streams} of the 5 audio streams of MUSDB18's songs; name it "
                "other than *.stem.mp4"
            )
        return Source(file.path, info.samples, info.rate, file.stream, file.gain)

    return tuple((name, tuple(source(file) for file in files)) for name, files in stems.items())


def _common_length(stems: tuple[tuple[str, tuple[Source, ...]], ...]) -> tuple[int, int]:
    """Samples and rate of the shortest source; raises when one is suspiciously short."""
    sources = sorted((s for _, group in stems for s in group), key=lambda s: s.samples / s.rate)
    shortest, longest = (s.samples / s.rate for s in (sources[0], sources[-1]))
    subtracts = any(s.gain < 0 for s in sources)
    name, other = printable(str(sources[0].path)), printable(sources[-1].path.name)
    if longest - shortest > (_APART_SECONDS if subtracts else longest / 2):
        raise SeparatorError(
            f"{name}: lasts {shortest:.1f} s, its companion {other} {longest:.1f} s; copy it again"
        )
    if longest - shortest > _APART_SECONDS:
        log.warning(
            "%s: lasts %.1f s, its companion %s %.1f s; what is longer is not used",
            *(name, shortest, other, longest),
        )
    return sources[0].samples, sources[0].rate

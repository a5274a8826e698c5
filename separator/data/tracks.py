"""Songs for training: finding them in every layout people keep them in, and reading their stems.

A song's stems are sums of sources (streams of files) with factors, so that one description serves
stems, pairs (vocals = mixture - instrumental) and pools alike. Reading is in `load_stems`.
"""

import functools
import hashlib
import logging
import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from separator import audio
from separator.data.layouts import FINDERS, FOUR, ONE, TWO, Part, check_kind
from separator.data.reader import Reader, Source
from separator.errors import SeparatorError

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
            Folders train/, valid/ and test/ around the songs of the first three are their split.
            Without valid/, songs of train/ that musdb validates with are for validation.
        weight: Share of training segments, relative to other roots.
        valid_share: Part of the songs that is kept for validation where the collection has no
            split of its own; chosen by a hash of each song's name, so that adding songs does not
            move the others. At least one of two or more.

    Returns:
        Tracks sorted by name. A pool's training tracks are halves (one stem each); its validation
        tracks are instrumentals with a fixed voice.

    Raises:
        SeparatorError: when the folder is not there, or has no usable song.
    """
    root = Path(os.path.abspath(os.path.expanduser(root)))  # names do not depend on its spelling
    if not root.is_dir():
        raise SeparatorError(f"{root}: no such folder; give the path of a folder with music")
    kind = check_kind(root, kind)
    skipped: list[str] = []
    tracks = []
    for found in sorted(FINDERS[kind](root, skipped), key=lambda found: found.name):
        try:
            stems = _sources(found.parts)
            samples, rate = _common_length(stems)
        except (SeparatorError, OSError) as error:
            skipped.append(str(error))
            continue
        place = (kind, str(root), weight, found.content)
        tracks.append(Track(found.name, found.split or "", stems, samples, rate, *place))
    for reason in skipped:
        log.warning("skipped: %s", reason)
    if not tracks:
        why = f" ({len(skipped)} skipped: {skipped[0]})" if skipped else ""
        raise SeparatorError(f"{root}: no usable song of kind {kind}{why}; check its layout")
    log.info("%s: %d songs of kind %s, %d skipped", root, len(tracks), kind, len(skipped))
    return (_pool_splits if kind == "pool" else _splits)(tracks, valid_share)


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


def _sources(parts: dict[str, tuple[Part, ...]]) -> tuple[tuple[str, tuple[Source, ...]], ...]:
    """Probe the files of a song; raises for one that cannot be read."""

    def source(part: Part) -> Source:
        info = part.info or audio.probe(part.path)
        if info.samples <= 0:
            raise SeparatorError(f"{part.path}: has no samples; copy it again or remove it")
        return Source(part.path, info.samples, info.rate, part.stream, part.gain)

    return tuple((name, tuple(source(part) for part in group)) for name, group in parts.items())


def _common_length(stems: tuple[tuple[str, tuple[Source, ...]], ...]) -> tuple[int, int]:
    """Samples and rate of the shortest source; raises when one is suspiciously short."""
    sources = sorted((s for _, group in stems for s in group), key=lambda s: s.samples / s.rate)
    shortest, longest = (s.samples / s.rate for s in (sources[0], sources[-1]))
    subtracts = any(s.gain < 0 for s in sources)
    if longest - shortest > (_APART_SECONDS if subtracts else longest / 2):
        raise SeparatorError(
            f"{sources[0].path}: lasts {shortest:.1f} s, its companion {sources[-1].path.name} "
            f"{longest:.1f} s; copy it again or remove the song"
        )
    return sources[0].samples, sources[0].rate


def _uniform(name: str, draw: int) -> float:
    """Number in [0, 1) that depends on a song's name alone, on any system; one for each draw."""
    text = f"{draw}:{unicodedata.normalize('NFC', name)}"
    coded = text.encode(errors="surrogateescape")  # a file's name need not be text
    return int.from_bytes(hashlib.blake2b(coded, digest_size=6).digest()) / 2**48


def _splits(tracks: list[Track], share: float) -> list[Track]:
    """Assign a split to the tracks that their collection gave none."""
    free = {t.name: _uniform(t.name, 0) for t in tracks if not t.split}
    valid = {name for name, number in free.items() if number < share}
    if len(free) > 1 and share > 0 and not valid:
        valid = {min(free, key=free.__getitem__)}
    if len(free) > 1 and len(valid) == len(free):
        valid.remove(max(free, key=free.__getitem__))
    return [
        t if t.split else replace(t, split="valid" if t.name in valid else "train") for t in tracks
    ]


def _pool_splits(tracks: list[Track], share: float) -> list[Track]:
    """Split both halves of a pool, and give each instrumental for validation a fixed voice."""
    halves = [[t for t in tracks if t.names == (name,)] for name in TWO]
    for name, half in zip(("instrumentals", "vocals"), halves, strict=True):
        if not half:
            raise SeparatorError(f"{tracks[0].root}: {name}/ has no usable file; add some")
    songs, voices = (_splits(half, share) for half in halves)
    train = [t for t in songs + voices if t.split == "train"]
    spare = [t for t in voices if t.split == "valid"]
    met = []
    for song in (t for t in songs if t.split == "valid" and spare):
        voice = spare[int(_uniform(song.name, 1) * len(spare))]
        short = min(song, voice, key=lambda t: t.seconds)
        name = f"{song.name} with {voice.name}"
        stems = song.stems + voice.stems
        met.append(replace(short, name=name, split="valid", stems=stems))
    return train + met

"""Songs for training: finding them in every layout people keep them in, and reading their stems.

A song's stems are sums of sources (streams of files) with factors, so that one description serves
stems, pairs (vocals = mixture - instrumental) and pools alike. Reading is in `load_stems`.
"""

import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from separator import audio
from separator.data.config import DataConfig
from separator.data.layouts import layout_of
from separator.data.layouts.layout import SongFiles
from separator.data.library.walk import checked_folders
from separator.data.roots import fraction_of, parse_root
from separator.data.stem_cache import StemCache, is_compressed
from separator.data.stem_files import MIXTURE_ONLY, StemFile, Stems, table
from separator.errors import SeparatorError, counted, one_line, printable
from separator.stems import FOUR_STEMS, TWO_STEMS

_LENGTH_TOLERANCE = 1.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """One audio stream of one file.

    Attributes:
        path: The file.
        samples: Its length, at its own rate.
        rate: Its sampling rate in Hz.
        stream: Number of the audio stream, for files with several.
        gain: Factor; -1 subtracts.
    """

    path: Path
    samples: int
    rate: int
    stream: int = 0
    gain: float = 1.0


@dataclass(frozen=True)
class Track:
    """One song.

    Attributes:
        name: Unique within its root and split.
        split: "train", "valid" or "test".
        stems: For each stem, vocals last, the sources whose sum it is.
        samples: Length of the shortest source, at `rate`.
        rate: Sampling rate of that source in Hz.
        kind: Layout of its root, a key of `layouts.LAYOUTS`.
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
    def estimated(self) -> bool:
        """Whether tags say that a stem is a result of `separator separate`, and so not true."""
        sources = [source for _, stem in self.stems for source in stem]
        return any(audio.result_record(source.path) for source in sources)

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.samples / self.rate

    def length(self, rate: int) -> int:
        """Return the length after resampling.

        Args:
            rate: in Hz.

        Returns:
            Samples.
        """
        return -(-self.samples * rate // self.rate)


def stem_names(tracks: Sequence[Track]) -> tuple[str, ...]:
    """Find the stems that songs are read as: the finest division that any of them has.

    A song with fewer stems fills the others with zeros: its accompaniment is "other" then.

    Args:
        tracks: the songs.

    Returns:
        Names of the four stems, of the two, or of the mixture alone.
    """
    if any("mixture" in track.names for track in tracks):
        return MIXTURE_ONLY
    four = any(track.names == FOUR_STEMS.names for track in tracks)
    return (FOUR_STEMS if four else TWO_STEMS).names


def find_tracks(
    root: str | os.PathLike, kind: str = "auto", weight: float = 1.0, valid_share: float = 0.1
) -> list[Track]:
    """Find the songs below one folder. Those that cannot be used are logged with the reason.

    Args:
        root: The folder.
        kind: Its layout, a key of `LAYOUTS`, or "auto" to detect it.
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
    layout = layout_of(root, kind)
    skipped: list[str] = []
    tracks = []
    for song in sorted(layout.find(root, skipped), key=lambda song: song.name):
        try:
            tracks.append(track_of(song, (layout.name, str(root), weight)))
        except (SeparatorError, OSError) as error:
            skipped.append(one_line(error))
    for reason in skipped:
        log.warning("skipped: %s", reason)
    if not tracks:
        why = f" ({len(skipped)} skipped: {skipped[0]})" if skipped else ""
        raise SeparatorError(f"{root}: no usable song of kind {layout.name}{why}; check its layout")
    tracks = layout.split(tracks, valid_share)
    _log_tracks(root, layout.name, tracks, len(skipped))
    if layout.stems_by_name:
        log.info("%s: %s", printable(str(root)), table(dict(track.stems) for track in tracks))
    return tracks


def track_of(song: SongFiles, place: tuple[str, str, float]) -> Track:
    """Read the headers of a song's files.

    Args:
        song: the song.
        place: kind, root and weight, as the attributes of `Track`.

    Returns:
        The track.

    Raises:
        SeparatorError: a file cannot be read, or is much shorter than another.
        OSError: the system does not let a file be read.
    """
    stems = _sources(song.stems)
    samples, rate = _common_length(stems)
    return Track(song.name, song.split or "", stems, samples, rate, *place, song.content)


def _log_tracks(root: Path, kind: str, tracks: Sequence[Track], skipped: int) -> None:
    """Say how many songs a folder has, and of which split."""
    splits = Counter(track.split for track in tracks)
    counts = ", ".join(f"{split} {splits[split]}" for split in ("train", "valid", "test"))
    number = counted(len(tracks), "song")
    place = printable(str(root))
    log.info("%s: %s of kind %s (%s); skipped: %d", place, number, kind, counts, skipped)


def _sources(stems: Stems) -> tuple[tuple[str, tuple[Source, ...]], ...]:
    """Probe the files of a song; raises for one that cannot be read."""

    def source(file: StemFile) -> Source:
        info = file.info or audio.probe(file.path)
        if info.samples <= 0:
            raise SeparatorError(f"{file.path}: has no samples; copy it again")
        if file.stream >= info.streams:
            raise SeparatorError(
                f"{file.path}: has {info.streams} of the 5 audio streams of MUSDB18's songs; name "
                "it other than *.stem.mp4"
            )
        return Source(file.path, info.samples, info.rate, file.stream, file.gain)

    return tuple((name, tuple(source(file) for file in files)) for name, files in stems.items())


def _common_length(stems: tuple[tuple[str, tuple[Source, ...]], ...]) -> tuple[int, int]:
    """Samples and rate of the shortest source; raises when one is suspiciously short."""
    sources = sorted((s for _, group in stems for s in group), key=lambda s: s.samples / s.rate)
    shortest, longest = (s.samples / s.rate for s in (sources[0], sources[-1]))
    subtracts = any(s.gain < 0 for s in sources)
    name, other = printable(str(sources[0].path)), printable(sources[-1].path.name)
    if longest - shortest > (_LENGTH_TOLERANCE if subtracts else longest / 2):
        raise SeparatorError(
            f"{name}: lasts {shortest:.1f} s, {other} {longest:.1f} s; copy it again"
        )
    if longest - shortest > _LENGTH_TOLERANCE:
        log.warning(
            "%s: lasts %.1f s, %s %.1f s; the rest of the longer one is not used",
            *(name, shortest, other, longest),
        )
    return sources[0].samples, sources[0].rate


def config_tracks(config: DataConfig) -> list[Track]:
    """Find the songs of every root, and decode MUSDB18's stems that are not cached.

    The split does not depend on a run's seed, so that runs can be compared. A song that several
    roots hold counts for the first: under another name it could both train and validate.

    Args:
        config: roots and shares.

    Returns:
        The songs of all splits.

    Raises:
        SeparatorError: a root has no usable song.
    """
    tracks: list[Track] = []
    seen: set[object] = set()
    for path, kind, weight in map(parse_root, config.roots):
        listed = find_tracks(path, kind, weight, config.valid_share)
        fresh = [track for track in listed if track.identity not in seen]
        if len(fresh) < len(listed):
            songs = counted(len(listed) - len(fresh), "song")
            log.warning("%s: left out: %s that a root before it has too", printable(path), songs)
        seen.update(track.identity for track in fresh)
        tracks += fresh
    paths = {source.path for track in tracks for _, group in track.stems for source in group}
    compressed = sorted(filter(is_compressed, paths))
    StemCache(config.cache_gb).prepare(compressed, threads=max(1, (os.cpu_count() or 2) // 2))
    return tracks


def training_tracks(config: DataConfig) -> tuple[list[Track], list[Track]]:
    """Find the songs to train on and those to validate with.

    Args:
        config: roots and shares.

    Returns:
        Songs to train on, and songs to validate with.

    Raises:
        SeparatorError: one of the two is empty.
    """
    tracks = config_tracks(config)
    splits = {name: [t for t in tracks if t.split == name] for name in ("train", "valid")}
    for name, songs in splits.items():
        if not songs:
            fix = "add songs, or set data.valid_share between 0 and 1"
            if len(tracks) == 1:
                fix = "there is 1 song, but training needs one and validation another: add songs"
            elif name == "train" or config.valid_share:
                fix = "add songs"
            roots = ", ".join(config.roots)
            raise SeparatorError(f"data.roots: {roots}: no songs for the split {name!r}; {fix}")
    return fraction_of(splits["train"], config.fraction), splits["valid"]

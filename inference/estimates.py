"""Stems that other programs wrote, to be scored as the estimates of models are.

A folder of estimates holds, at any depth, a folder for each song with a file for each stem, as
demucs, spleeter, open-unmix and MUSDB18's layout have it, or files "SONG (Vocals).flac" and
"SONG (Instrumental).flac", as `separator separate` writes them.
"""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from separator import audio
from separator.data.layouts.layout import SongFiles, audio_files, grouped
from separator.data.library.musdb_holdout import plain_name
from separator.data.library.walk import checked_folders
from separator.data.reader import load_stems
from separator.data.splits import Parts
from separator.data.stem_files import Stems, estimated_stems, role, table
from separator.data.tracks import Source, Track, track_of
from separator.dsp.config import STFTConfig
from separator.errors import SeparatorError, counted, printable
from separator.stems import NAMES, TWO_STEMS, StemSet, title

log = logging.getLogger(__name__)

TOLERANCE = 0.1  # seconds by which the length of an estimate may differ from the song's
NAMED = 3  # missing songs that an error names
_TITLED = re.compile(rf"(.+)[ _]\(({'|'.join(map(title, NAMES))})\)", re.IGNORECASE)
_ENDING = re.compile(r"(\.stem)?(_umx[a-z0-9]*)?$", re.IGNORECASE)  # of MUSDB18 and open-unmix


@dataclass(frozen=True)
class Estimates:
    """The stems that one program wrote for a set of tracks.

    Attributes:
        root: their folder.
        songs: their files for each track, by the track's identity.
        rate: sampling rate at which they are scored, in Hz.
        stft: transform of the ideal mask beside them.
        stems: those that are scored.
    """

    root: str
    songs: dict[object, Track]
    rate: int
    stft: STFTConfig
    stems: StemSet

    @property
    def device(self) -> torch.device:
        """The device of the work: files are read on the CPU."""
        return torch.device("cpu")

    @property
    def description(self) -> dict:
        """The files that count as each stem, for the report."""
        stems = table(dict(song.stems) for song in self.songs.values())
        return {"stage": "estimates", "stems": stems}

    def read(self, track: Track, mixture: Tensor) -> list[Tensor]:
        """Read the estimates of a track.

        Args:
            track: one of those that `find_estimates` was given.
            mixture: (c t) at `rate`; a stem without a file is the mixture minus the other stem.

        Returns:
            The stems (c t), as long as the mixture.

        Raises:
            SeparatorError: a file cannot be read.
        """
        samples, song = mixture.shape[-1], self.songs[track.identity]
        waves = {
            name: torch.nn.functional.pad(wave, (0, samples - wave.shape[-1]))
            for name, wave in load_stems(song, self.rate, names=self.stems.names).items()
        }
        if len(waves) == 1:
            (wave,) = waves.values()
            return [waves.get(name, mixture - wave) for name in self.stems.names]
        return [waves[name] for name in self.stems.names]


def find_estimates(
    folder: str,
    tracks: Sequence[Track],
    rate: int,
    stft: STFTConfig | None = None,
    stems: StemSet = TWO_STEMS,
) -> Estimates:
    """Find the stems that a program wrote for each of the tracks.

    Args:
        folder: the program's output folder, or one above it.
        tracks: songs with known stems.
        rate: sampling rate at which the estimates are scored, in Hz.
        stft: transform of the ideal mask; by default that of `STFTConfig`.
        stems: those that are scored; accompaniment and vocals where a song does not have them.

    Returns:
        The estimates of all tracks, which are scored like a model.

    Raises:
        SeparatorError: the folder is not there, a track has no stems or several there, or a file
            cannot be read or has another length than its song.
    """
    (root,) = checked_folders([folder], "give --estimates a folder of separated songs")
    skipped: list[str] = []
    files = _files(Path(root), skipped)
    for reason in skipped:
        log.warning("skipped: %s", reason)
    songs = {}
    for track, parts in zip(tracks, _matched(root, tracks, files), strict=True):
        song = track_of(SongFiles(track.name, track.split, files[parts]), ("stems", root, 1.0))
        _check_lengths(song, track)
        songs[track.identity] = song
    if any(stems.lacking(song.names) for song in songs.values()):
        stems = TWO_STEMS
    estimates = Estimates(folder, songs, rate, stft or STFTConfig(), stems)
    number = counted(len(songs), "song")
    log.info("%s: %s; %s", printable(folder), number, estimates.description["stems"])
    _log_conversions(estimates)
    _warn_of_missing_files(estimates)
    return estimates


def _files(root: Path, skipped: list[str]) -> dict[Parts, Stems]:
    """Sort the files below a folder into songs, by the songs' paths below it."""
    songs: dict[Parts, dict[str, Path]] = {}
    for folder, files in grouped(audio_files(root, skipped), skipped).items():
        parts = folder.relative_to(root).parts or (root.name,)
        for name, path in files.items():
            titled = _TITLED.fullmatch(name)  # SONG (Stem), beside the other songs
            song, stem = ((*parts, titled[1]), titled[2]) if titled else (parts, name)
            songs.setdefault(song, {})[stem] = path
    estimates = {}
    for parts, files in songs.items():
        stems = estimated_stems(files)
        if stems is None:
            name = printable(str(next(iter(files.values())).parent))
            skipped.append(f"{name}: has no vocals or accompaniment; name the files by stem")
        else:
            estimates[parts] = stems
    return estimates


def _matched(root: str, tracks: Sequence[Track], files: Iterable[Parts]) -> list[Parts]:
    """Return the song in a folder of estimates that each track is.

    Raises:
        SeparatorError: a track has none or several, or shares one with another track.
    """
    indexes, missing = _indexes(files), []
    owners: dict[Parts, str] = {}
    matches = {track.name: _candidates(track.name, indexes) for track in tracks}
    named = {song for songs in matches.values() for song in songs}
    for track in tracks:
        name = track.name
        songs = matches[name]
        if not songs:  # by the last part of its name, where no other song is meant
            alike = indexes[1].get(_plain(name.rpartition("/")[2]), [])
            songs = [song for song in alike if song not in named]
        if not songs:
            missing.append(name)
            continue
        if len(songs) > 1:
            both = " and ".join("/".join(song) for song in songs[:2])
            raise SeparatorError(
                f"{root}: {both} both match the song {name}; give --estimates the folder "
                "of one program"
            )
        if songs[0] in owners:
            raise SeparatorError(
                f"{root}: {'/'.join(songs[0])} matches the songs {owners[songs[0]]} and {name}; "
                "give each song a folder of its own"
            )
        owners[songs[0]] = name
    if missing:
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        raise SeparatorError(
            f"{root}: has no stems of {len(missing)} of {len(tracks)} songs: "
            f"{', '.join(missing[:NAMED])}{more}; separate these too, into folders of their names"
        )
    return list(owners)


def _indexes(files: Iterable[Parts]) -> tuple[dict[str, list[Parts]], ...]:
    """Index songs by exact names, by plain names, and "mixture" by the folders around it."""
    indexes: tuple[dict[str, list[Parts]], ...] = ({}, {}, {})
    for parts in files:
        names = ["/".join(parts[start:]) for start in range(len(parts))]
        folders = parts[:-1] if role(parts[-1]) == ("mixture", True) else ()
        keys_of = names, map(_plain, names), map(_plain, folders)
        for index, keys in zip(indexes, keys_of, strict=True):
            for key in set(keys) - {""}:  # a name without letters and digits has no plain form
                index.setdefault(key, []).append(parts)
    return indexes


def _candidates(name: str, indexes: Sequence[Mapping[str, list[Parts]]]) -> list[Parts]:
    """Return the songs that match a track's name best."""
    exact, plain, around = indexes
    key = _plain(name)
    return exact.get(name) or plain.get(key) or around.get(key) or []


def _plain(name: str) -> str:
    """Letters and digits of a name, without what MUSDB18 and open-unmix add to its end."""
    return plain_name(_ENDING.sub("", name))


def _check_lengths(song: Track, track: Track) -> None:
    """Refuse estimates whose length is not that of the track."""
    lengths = [source.samples / source.rate for source in _sources(track)]
    for source in _sources(song):
        seconds = source.samples / source.rate
        if not min(lengths) - TOLERANCE <= seconds <= max(lengths) + TOLERANCE:
            raise SeparatorError(
                f"{source.path}: lasts {seconds:.2f} s, its song {track.seconds:.2f} s; separate "
                "the whole song again"
            )


def _warn_of_missing_files(estimates: Estimates) -> None:
    """Name a song that has other files than most: the program may have been stopped."""
    names = {
        song.name: tuple(sorted(source.path.stem for source in _sources(song)))
        for song in estimates.songs.values()
    }
    usual = Counter(names.values()).most_common(1)[0][0]
    odd = sorted(song for song, files in names.items() if len(files) < len(usual))
    if odd:
        log.warning(
            "%s: %d of %d songs have fewer files than most, %s first: %s instead of %s",
            printable(estimates.root), len(odd), len(names), printable(odd[0]),
            printable(", ".join(names[odd[0]])), printable(", ".join(usual)),
        )  # fmt: skip


def _log_conversions(estimates: Estimates) -> None:
    """Say how many files are resampled or made stereo before they are scored."""
    sources = [source for song in estimates.songs.values() for source in _sources(song)]
    rate, resampled = estimates.rate, sum(source.rate != estimates.rate for source in sources)
    mono = sum(audio.probe(source.path).channels == 1 for source in sources)
    name, total = printable(estimates.root), len(sources)
    if resampled:
        log.info("%s: %d of %d files are resampled to %d Hz", name, resampled, total, rate)
    if mono:
        log.info("%s: %d of %d files are mono and count as both channels", name, mono, total)


def _sources(track: Track) -> list[Source]:
    return [source for _, group in track.stems for source in group]

"""Settings of all results: which stems, their names and formats."""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from separator import audio
from separator.audio import AudioInfo
from separator.audio.formats import encoding_of
from separator.errors import SeparatorError, UsageError
from separator.stems import ACCOMPANIMENT, MIXTURE, NAMES, VOCALS, public_name, stem_of, title

if TYPE_CHECKING:
    from numpy import ndarray as Array

    from separator.stems import StemSet

LONGEST_NAME = 180  # bytes; file systems take 255, and the stem and a temporary suffix come on top
MIX, ALL = "Mix", "Stems"  # titles of files that are no stem
SUBTYPES = {16: "PCM_16", 24: "PCM_24", 32: "FLOAT"}


class Output(NamedTuple):
    """A file that separation writes: a stem, or all that it leaves of the mixture."""

    stem: str
    without: bool = False
    titles: tuple[str, ...] = ()  # of several sounds in one file

    @property
    def title(self) -> str:
        """The stem's name in file names: "Instrumental", "Vocals", "Drums", "No drums", …"""
        if not self.without:
            return title(self.stem)
        opposite = {VOCALS: ACCOMPANIMENT, ACCOMPANIMENT: VOCALS}
        return title(opposite.get(self.stem, f"no {self.stem}"))

    def wave(self, mixture: "Array", stems: Mapping[str, "Array"]) -> "Array":
        """Return the file's sound (c t) of the mixture's (c t) and the stems'."""
        return mixture - stems[self.stem] if self.without else stems[self.stem]


class Mix(NamedTuple):
    """A file with the mixture, of which some stems have other levels."""

    gains: tuple[tuple[str, float], ...]  # stems and factors
    title: str = MIX
    titles: tuple[str, ...] = ()

    def wave(self, mixture: "Array", stems: Mapping[str, "Array"]) -> "Array":
        """Return the file's sound (c t) of the mixture's (c t) and the stems'."""
        wave = mixture
        for name, gain in self.gains:
            wave = wave + (gain - 1) * stems[name]
        return wave


class AllStems(NamedTuple):
    """A file with several sounds: the mixture, and the stems of these names."""

    stems: tuple[str, ...]
    title: str = ALL

    @property
    def titles(self) -> tuple[str, ...]:
        """Titles of the sounds."""
        return tuple(map(title, (MIXTURE, *self.stems)))

    def wave(self, mixture: "Array", stems: Mapping[str, "Array"]) -> "Array":
        """Put all sounds of the file together.

        Args:
            mixture: (c t).
            stems: (c t) each, by name.

        Returns:
            (s·c t), the sounds one after another.
        """
        import numpy as np

        return np.concatenate([mixture, *(stems[name] for name in self.stems)])


AnyOutput = Output | Mix | AllStems

TITLES = tuple(dict.fromkeys(Output(name, w).title for w in (False, True) for name in NAMES))
RESULT_TITLES = (*TITLES, MIX, ALL)  # also those that titles of songs may end with


def outputs(
    stems: "StemSet",
    wanted: Iterable[str] = (),
    two: str = "",
    mix: Mapping[str, float] | None = None,
    together: bool = False,
) -> tuple[AnyOutput, ...]:
    """Choose the files that are written for each song.

    Args:
        stems: of the model.
        wanted: names of stems, perhaps with commas between them, or "all". By default the
            instrumental, if it is a stem of the model, otherwise all stems.
        two: a stem that is written beside the sum of all others, instead of `wanted`.
        mix: levels in dB of stems in a file of the mixture; alone, or beside what is asked for.
        together: whether one file gets the mixture and all stems.

    Returns:
        The files, in order, without repetition.

    Raises:
        UsageError: the model does not have a stem.
    """
    names = [stem_of(name) for words in wanted for name in words.split(",")]
    accepted = (*stems.names, ACCOMPANIMENT) if VOCALS in stems.names else stems.names
    if mix:
        gains = dict.fromkeys(stems.names, 1.0)
        for name, level in mix.items():
            _check("--mix", stem_of(name), accepted)
            whole = [stem_of(name)] if stem_of(name) in gains else {*stems.names} - {VOCALS}
            gains |= {stem: gains[stem] * 10 ** (level / 20) for stem in whole}
        if not any(gains.values()):
            raise UsageError("--mix: all stems are off; leave one of them on")
        mixed = Mix(tuple((stem, gain) for stem, gain in gains.items() if gain != 1))
        beside = outputs(stems, wanted, two) if two or names else ()
        return mixed, *beside
    if together:
        return (AllStems(tuple(sorted(stems.names, key=NAMES.index))),)
    if two:
        _check("--two-stems", stem_of(two), stems.names)
        return Output(stem_of(two)), Output(stem_of(two), without=True)
    if not names:
        names = [ACCOMPANIMENT] if ACCOMPANIMENT in stems.names else ["all"]
    if "all" in names:
        names = list(stems.names)
    for name in names:
        _check("--stems", name, accepted)
    chosen = dict.fromkeys(names)
    return tuple(Output(n) if n in stems.names else Output(VOCALS, without=True) for n in chosen)


def _check(option: str, name: str, choices: tuple[str, ...]) -> None:
    if name not in choices:
        names = ", ".join(dict.fromkeys(map(public_name, choices)))
        raise UsageError(f"{option}: this model has no {name}, only {names}")


@dataclass(frozen=True)
class Choices:
    """Settings of all results that the user and the model decide.

    Attributes:
        model: digest of the model.
        version: version of the program.
        format: suffix of the results without its dot, or "input".
        titles: of the files of a song, as they stand in their names.
        bits: 16, 24 or 32 (float) bits a sample; 0 keeps the song's own.
        bitrate: kb/s of lossy formats; 0 takes the format's default.
        overwrite: whether songs whose results exist are done again.
        keep: whether results that exist count, whatever made them.
        shifts: number of separations that are averaged.
        chunk: seconds that the model sees at once.
        overlap: seconds that a chunk shares with the next.
        mix: levels of stems in the mix, as the user wrote them.
        video: whether songs with a picture keep it.
        name: template of the results' names; "" for the usual ones.
    """

    model: str = ""
    version: str = ""
    format: str = "flac"
    titles: tuple[str, ...] = TITLES[:1]
    bits: int = 0
    bitrate: int = 0
    overwrite: bool = False
    keep: bool = False
    shifts: int = 1
    chunk: float = 12.0
    overlap: float = 1.0
    mix: str = ""
    video: bool = False
    name: str = ""

    def made_by(self, subtype: str) -> dict[str, Any]:
        """Describe how a result is made; its record holds this, so that a change makes it outdated.

        Args:
            subtype: sample format of the file, "" for a lossy codec.

        Returns:
            Model, version, and the settings that change the sound.
        """
        # versions that differ in their last number only separate alike
        version = ".".join(self.version.split(".")[:2])
        keys = "model", "shifts", "chunk", "overlap", "mix"
        settings = {key: getattr(self, key) for key in keys} | {"version": version}
        return settings | ({"subtype": subtype} if subtype else {"bitrate": self.bitrate})

    def targets(self, songs: Sequence[tuple[AudioInfo, Path]]) -> list[tuple[Path, str, str]]:
        """Name the results of songs.

        The name contains the suffix of the song where another song differs only in its suffix.

        Args:
            songs: each with its folder below the output folder.

        Returns:
            For each song the folder below the output folder, the name, and the suffix without a
            dot.
        """
        targets = [(below, info.path.stem, self._suffix(info)) for info, below in songs]
        sharing = Counter(folded(*target) for target in targets)
        alike = Counter(folded(below, info.path.name) for info, below in songs)
        named = []
        for (info, _), (below, name, suffix) in zip(songs, targets, strict=True):
            others = sharing[folded(below, name, suffix)] - alike[folded(below, info.path.name)]
            named.append((below, _short(info.path.name if others else name), suffix))
        return named

    def _suffix(self, info: AudioInfo) -> str:
        """Choose the suffix of a song's results."""
        if self.video and (container := audio.video_container(info)):
            return container
        return audio.written_as(info.format) if self.format == "input" else self.format


def check_bits(format: str, bits: int) -> None:
    """Refuse bits a sample that a format does not hold.

    Raises:
        SeparatorError: names those that it holds, or says that it has none.
    """
    encoding = encoding_of(format)
    subtypes = encoding.subtypes + encoding.requested_subtypes
    if not subtypes:
        raise SeparatorError(
            f"bits: {format} has no bits per sample; leave it out, or give bitrate"
        )
    if SUBTYPES[bits] not in subtypes:
        allowed = " or ".join(str(key) for key, name in SUBTYPES.items() if name in subtypes)
        raise SeparatorError(f"bits: {format} holds {allowed}; choose one, or --format wav")


def sample_format(info: AudioInfo, suffix: str, bits: int) -> str:
    """Choose the sample format of a song's results.

    Args:
        info: the song.
        suffix: of the results, without its dot.
        bits: 16, 24 or 32, as the user chose. With 0 the format is the song's, except that 8 bits
            become 16 and 32-bit integers become 24.

    Returns:
        A subtype of soundfile such as PCM_16; "" for lossy codecs.
    """
    encoding = encoding_of(suffix)
    if not encoding.subtypes:
        return ""
    nearest = {"PCM_U8": "PCM_16", "PCM_S8": "PCM_16", "PCM_32": "PCM_24"}
    wanted = SUBTYPES[bits] if bits else nearest.get(info.subtype, info.subtype)
    allowed = encoding.subtypes + (encoding.requested_subtypes if bits else ())
    return wanted if wanted in allowed else allowed[0]


def folded(*parts: object) -> tuple[str, ...]:
    """Return names in a form that is equal where a file system sees one name.

    Some do not distinguish a from A, or the ways in which an accent is coded.

    Args:
        parts: names, or paths.
    """
    return tuple(unicodedata.normalize("NFC", str(part)).casefold() for part in parts)


def _short(name: str) -> str:
    """Cut a name to what file systems take, keeping bytes that are no text as they are."""
    while len(os.fsencode(name)) > LONGEST_NAME:
        name = name[:-1]
    return name

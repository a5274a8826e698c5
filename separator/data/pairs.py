"""Originals and their instrumentals in a library: found by name or sound, checked by their sound.

Jansson et al. 2017 trained on 20,000 such pairs. Names and fingerprints only suggest a pair: the
two files must be the same recording, sample by sample once they are aligned, but for the vocals.
"""

import hashlib
import logging
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from separator import audio
from separator.audio import AudioInfo
from separator.data.alignment import Alignment, Voice, align, first_sings, overlapping
from separator.errors import SeparatorError, one_line, printable

log = logging.getLogger(__name__)

MARK = re.compile(
    r"\b(?:instrumentals?|karaoke|off[\s-]?vocals?|(?:without|no|minus) vocals?|backing track"
    r"|minus one|inst)\b\.?|カラオケ|インスト(?:ゥルメンタル|ルメンタル)?|オフ\s?ボーカル|伴奏",
    re.IGNORECASE,
)
BRACKETS = re.compile(r"[(\[{<（【「][^)\]}>）】」]*[)\]}>）】」]")  # noqa: RUF001
NUMBER = re.compile(r"^\d{1,3}(?:[.\-\s]+\d{1,3})?[.\-\s]+")  # of the track, before a file's title

MAX_SECONDS = 1200.0  # of a song: both are in memory, 0.9 GB at 44.1 kHz, and copies
MAX_TITLE_BYTES = 180  # of a name, which may have 255 with what is added
SUBFOLDERS = "mixtures", "instrumentals"


@dataclass(frozen=True)
class Pair:
    """Two files that may be one song with and without vocals.

    Attributes:
        original: the song.
        instrumental: the same without vocals.
        name: of the song, fit for a file's name.
        turned: the pair's name if the other file is the instrumental; "" where names say which.
    """

    original: AudioInfo
    instrumental: AudioInfo
    name: str
    turned: str = ""


def suggested_pairs(
    songs: Sequence[AudioInfo],
    similar: Iterable[tuple[int, int, int]] = (),
    keys: Sequence[str] = (),
) -> list[Pair]:
    """Pair songs with their instrumentals by titles, artists and folders, and by their sound.

    A title with a mark such as "(Instrumental)", or of an album or folder so marked, belongs to the
    title without it of the same artist, or of the same folder where no artist is named. Of several
    originals the one nearest in length is taken.

    Args:
        songs: a library.
        similar: (number of a song, number of a later one, votes) of songs whose fingerprints agree.
        keys: what tells the content of each song, as in `Library`; needed with `similar`.

    Returns:
        Pairs by names in the order of these, then those that sound suggests besides.
    """
    groups: dict[tuple[str, str], tuple[list[AudioInfo], list[AudioInfo]]] = {}
    names: dict[tuple[str, str], str] = {}
    marks = []
    for song in songs:
        artist, title, marked = _described(song)
        marks.append(marked)
        if title:
            groups.setdefault((artist, title), ([], []))[marked].append(song)
            if not marked:
                names[artist, title] = song.path.stem
    pairs = []
    for key, (originals, instrumentals) in groups.items():
        for number, instrumental in enumerate(instrumentals if originals else []):
            nearest = min(originals, key=lambda o: abs(o.seconds - instrumental.seconds))
            name = _file_name(names[key])
            pairs.append(Pair(nearest, instrumental, f"{name} {number + 1}" if number else name))
    pairs = _numbered(sorted(pairs, key=lambda pair: pair.name))
    named = {(pair.original.path, pair.instrumental.path) for pair in pairs}
    for first, second, _ in similar:
        if marks[first] and not marks[second]:
            first, second = second, first
        if (songs[first].path, songs[second].path) not in named and not marks[first]:
            name = _name_by_sound(songs[first], keys[first], keys[second])
            turned = _name_by_sound(songs[second], keys[second], keys[first])
            turned = "" if marks[second] else turned
            pairs.append(Pair(songs[first], songs[second], name, turned))
    return pairs


def _name_by_sound(original: AudioInfo, key: str, other_key: str) -> str:
    """Name a pair as no other, and the same when the library grows or moves."""
    digest = hashlib.blake2b(f"{key} {other_key}".encode(), digest_size=4).hexdigest()
    return f"{_file_name(original.path.stem)} {digest}"


def _file_name(title: str) -> str:
    name = printable(title).replace("/", "_")
    return name.encode()[:MAX_TITLE_BYTES].decode(errors="ignore")


def _numbered(pairs: list[Pair]) -> list[Pair]:
    """Give pairs of the same name different ones."""
    seen: dict[str, int] = {}
    result = []
    for pair in pairs:
        key = pair.name.casefold()
        seen[key] = seen.get(key, 0) + 1
        name = f"{pair.name} ({seen[key]})" if seen[key] > 1 else pair.name
        result.append(Pair(pair.original, pair.instrumental, name))
    return result


def _described(song: AudioInfo) -> tuple[str, str, bool]:
    """Return whose a song is, its title without marks, and whether it is marked."""
    try:
        tags = audio.read_tags(song.path)
    except Exception as error:  # damaged tags, in as many ways as mutagen has
        log.debug("%s: %s", song.path, one_line(error))
        tags = {}
    title = (tags.get("title") or [NUMBER.sub("", song.path.stem)])[0]
    album = (tags.get("album") or [song.path.parent.name])[0]
    artist = (tags.get("artist") or tags.get("albumartist") or [""])[0]
    marked = bool(MARK.search(title) or MARK.search(album))
    bare = BRACKETS.sub(lambda match: "" if MARK.search(match[0]) else match[0], title)
    return _plain(artist) or str(song.path.parent), _plain(MARK.sub("", bare)), marked


def _plain(text: str) -> str:
    """Letters and digits alone, in one case."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(letter for letter in folded if letter.isalnum())


def write_pairs(
    pairs: Sequence[Pair], folder: str | os.PathLike, voice: Voice
) -> Iterator[tuple[Pair, str]]:
    """Check pairs by their sound, and write those that fit as FLAC, aligned and at one level.

    FOLDER/mixtures/NAME.flac and FOLDER/instrumentals/NAME.flac are of equal length; `separator
    train 'data.roots=[pairs:FOLDER]'` reads them. Files that are there are not written again. Each
    other instrumental is written with the original that fits it best.

    Args:
        pairs: suggestions.
        folder: is made where it is not there.
        voice: separates the voice from a wave; finds the original where names do not say it.

    Yields:
        Each pair with the reason why it is left out, "" for one that is written.

    Raises:
        SeparatorError: the folder cannot be written.
    """
    for group in _connected(pairs):
        yield from _write_group(group, Path(folder), voice)


def _connected(pairs: Iterable[Pair]) -> list[list[Pair]]:
    """Group pairs that share songs with each other."""
    groups: dict[Path, list[Pair]] = {}
    for pair in pairs:
        songs = (pair.original.path, pair.instrumental.path)
        group = [pair]
        for other in {id(groups[song]): groups[song] for song in songs if song in groups}.values():
            group += other
        for member in group:
            groups[member.original.path] = groups[member.instrumental.path] = group
    return list({id(group): group for group in groups.values()}.values())


def _write_group(pairs: list[Pair], folder: Path, voice: Voice) -> Iterator[tuple[Pair, str]]:
    """Write the pairs of one song's versions, each instrumental once."""
    written, fits = [], []
    for pair in pairs:
        existing = [turn for turn in _turns(pair) if all(map(Path.exists, _targets(turn, folder)))]
        written += existing
        if not existing:
            try:
                fits.append(_fit(pair, voice))
            except SeparatorError as error:
                yield pair, one_line(error)
    done = {pair.instrumental.path for pair in written}
    partial = {pair.instrumental.path for pair, _ in fits}  # as originals they lack some vocals
    fits.sort(key=lambda fit: (fit[0].original.path in partial, fit[1]))
    originals = {pair.original.path for pair in (*written, *(pair for pair, _ in fits))}
    yield from ((pair, "") for pair in written)
    for pair, _ in fits:
        if pair.instrumental.path in originals:
            yield pair, "not all vocals are removed from it: another file has fewer"
        elif pair.instrumental.path in done:
            yield pair, "another original fits better"
        else:
            try:
                waves, rate, _ = _aligned(pair)
            except SeparatorError as error:  # it has changed since
                yield pair, one_line(error)
                continue
            done.add(pair.instrumental.path)
            for target, wave in zip(_targets(pair, folder), waves, strict=True):
                target.parent.mkdir(parents=True, exist_ok=True)
                with audio.Writer(target, rate, wave.shape[0]) as writer:
                    writer.write(wave)
            yield pair, ""


def _turns(pair: Pair) -> list[Pair]:
    """Return a pair and, where either file may be the instrumental, the pair of the two turned."""
    if not pair.turned:
        return [pair]
    return [pair, Pair(pair.instrumental, pair.original, pair.turned, pair.name)]


def _targets(pair: Pair, folder: Path) -> list[Path]:
    return [folder / side / f"{pair.name}.flac" for side in SUBFOLDERS]


def _fit(pair: Pair, voice: Voice) -> tuple[Pair, float]:
    """Return a pair, the original first, and its residual in decibels.

    Raises:
        SeparatorError: it is none; says why.
    """
    failure = SeparatorError("which of the two is the instrumental is not clear")
    for turn in _turns(pair):
        try:
            (first, second), rate, alignment = _aligned(turn)
        except SeparatorError as error:
            failure = error
            continue
        if not pair.turned or first_sings(first, second, rate, voice):
            return turn, alignment.best_db
    raise failure


def _aligned(pair: Pair) -> tuple[tuple[Tensor, Tensor], int, Alignment]:
    """Read a pair and cut it to what both hold: (c t) each, their rate, and how they fit.

    Raises:
        SeparatorError: a file cannot be read, or they are not one recording; says why.
    """
    rate = pair.original.rate
    for song in (pair.original, pair.instrumental):
        if song.seconds > MAX_SECONDS:
            raise SeparatorError(f"longer than {MAX_SECONDS / 60:.0f} minutes")
    first, second = (_stereo(song, rate) for song in (pair.original, pair.instrumental))
    alignment = align(first, second, rate)
    first, second = overlapping(first, second, alignment.shift)
    second = second * alignment.gain
    peak = max(wave.abs().max().item() for wave in (first, second))
    scale = 1 / max(peak, 1.0)  # decoded mp3s go beyond full scale
    return (first * scale, second * scale), rate, alignment


def _stereo(song: AudioInfo, rate: int) -> Tensor:
    """Read a song as (2 t) at a rate."""
    wave = audio.to_channels(audio.read(song.path), 2)
    return audio.resample(wave, song.rate, rate)

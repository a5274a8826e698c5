"""Originals and their instrumentals in a library: found by their names, checked by their sound.

Jansson et al. 2017 trained on 20,000 such pairs. Names only suggest a pair: the two files must be
the same recording, sample by sample once they are aligned, but for the vocals.
"""

import logging
import math
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from separator import audio
from separator.audio import AudioInfo
from separator.errors import SeparatorError, one_line, printable

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

MARK = re.compile(
    r"\b(?:instrumentals?|karaoke|off[\s-]?vocals?|(?:without|no|minus) vocals?|backing track"
    r"|minus one|inst)\b\.?|カラオケ|インスト(?:ゥルメンタル|ルメンタル)?|オフ\s?ボーカル|伴奏",
    re.IGNORECASE,
)
BRACKETS = re.compile(r"[(\[{<（【「][^)\]}>）】」]*[)\]}>）】」]")  # noqa: RUF001
NUMBER = re.compile(r"^\d{1,3}(?:[.\-\s]+\d{1,3})?[.\-\s]+")  # of the track, before a file's title

MAX_SECONDS = 1200.0  # of a song: both are in memory, 0.9 GB at 44.1 kHz, and copies
MAX_SHIFT_SECONDS = 20.0
COARSE_RATE = 4000
POSITIONS = (0.2, 0.5, 0.8)  # of the song, at which the alignment is refined; they must agree
POSITION_SECONDS = 10.0
MAX_DRIFT = 2  # samples between the positions
FIT_FRAME_SECONDS = 0.5
MIN_FRAMES = 4
MAX_RESIDUAL_DB = -15.0  # relative to the original, in the frames that fit best
FIT_SHARE = 0.05  # of the frames, which must fit so well
IDENTICAL_DB = -35.0  # residual of the whole song below which there are no vocals
SUBFOLDERS = "mixtures", "instrumentals"
MIN_POWER = 1e-4  # mean square of a frame, -40 dB of full scale


@dataclass(frozen=True)
class Pair:
    """Two files that names say are one song with and without vocals.

    Attributes:
        original: the song.
        instrumental: the same without vocals.
        name: of the song, fit for a file's name.
    """

    original: AudioInfo
    instrumental: AudioInfo
    name: str


@dataclass(frozen=True)
class Alignment:
    """The fit between an instrumental and its original.

    Attributes:
        shift: samples by which the original is late.
        gain: factor on the instrumental.
        best_db: residual relative to the original, in the frames that fit best.
        residual_db: the same of the whole.
    """

    shift: int
    gain: float
    best_db: float
    residual_db: float


def suggested_pairs(songs: Iterable[AudioInfo]) -> list[Pair]:
    """Pair songs with their instrumentals by titles, artists and folders.

    A title with a mark such as "(Instrumental)", or of an album or folder so marked, belongs to the
    title without it of the same artist, or of the same folder where no artist is named. Of several
    originals the one nearest in length is taken.

    Args:
        songs: a library.

    Returns:
        Pairs in the order of their names.
    """
    groups: dict[tuple[str, str], tuple[list[AudioInfo], list[AudioInfo]]] = {}
    names: dict[tuple[str, str], str] = {}
    for song in songs:
        artist, title, marked = _described(song)
        if title:
            groups.setdefault((artist, title), ([], []))[marked].append(song)
            if not marked:
                names[artist, title] = song.path.stem
    pairs = []
    for key, (originals, instrumentals) in groups.items():
        for number, instrumental in enumerate(instrumentals if originals else []):
            nearest = min(originals, key=lambda o: abs(o.seconds - instrumental.seconds))
            name = printable(names[key]).replace("/", "_")
            pairs.append(Pair(nearest, instrumental, f"{name} {number + 1}" if number else name))
    pairs.sort(key=lambda pair: pair.name)
    return _numbered(pairs)


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


def write_pairs(pairs: Sequence[Pair], folder: str | os.PathLike) -> Iterator[tuple[Pair, str]]:
    """Check pairs by their sound, and write those that fit as FLAC, aligned and at one level.

    FOLDER/mixtures/NAME.flac and FOLDER/instrumentals/NAME.flac are of equal length; `separator
    train 'data.roots=[pairs:FOLDER]'` reads them. Files that are there are not written again.

    Yields:
        Each pair with the reason why it is left out, "" for one that is written.

    Raises:
        SeparatorError: the folder cannot be written.
    """
    for pair in pairs:
        targets = [Path(folder) / side / f"{pair.name}.flac" for side in SUBFOLDERS]
        if all(target.exists() for target in targets):
            yield pair, ""
            continue
        try:
            waves, rate = _aligned(pair)
        except SeparatorError as error:
            yield pair, one_line(error)
            continue
        for target, wave in zip(targets, waves, strict=True):
            target.parent.mkdir(parents=True, exist_ok=True)
            with audio.Writer(target, rate, wave.shape[0]) as writer:
                writer.write(wave)
        yield pair, ""


def _aligned(pair: Pair) -> tuple[tuple["Tensor", "Tensor"], int]:
    """Read a pair and cut it to what both hold: (c t) each, and their rate.

    Raises:
        SeparatorError: a file cannot be read, or they are not one recording; says why.
    """
    rate = pair.original.rate
    for song in (pair.original, pair.instrumental):
        if song.seconds > MAX_SECONDS:
            raise SeparatorError(f"longer than {MAX_SECONDS / 60:.0f} minutes")
    first, second = (_stereo(song, rate) for song in (pair.original, pair.instrumental))
    alignment = align(first, second, rate)
    first, second = _overlapping(first, second, alignment.shift)
    second = second * alignment.gain
    peak = max(wave.abs().max().item() for wave in (first, second))
    scale = 1 / max(peak, 1.0)  # decoded mp3s go beyond full scale
    return (first * scale, second * scale), rate


def _stereo(song: AudioInfo, rate: int) -> "Tensor":
    """Read a song as (2 t) at a rate."""
    wave = audio.to_channels(audio.read(song.path), 2)
    return audio.resample(wave, song.rate, rate)


def _overlapping(first: "Tensor", second: "Tensor", shift: int) -> tuple["Tensor", "Tensor"]:
    """Cut two waves (c t), of which the first is late by so many samples, to what both hold."""
    first, second = first[:, max(0, shift) :], second[:, max(0, -shift) :]
    length = min(first.shape[-1], second.shape[-1])
    return first[:, :length], second[:, :length]


def align(original: "Tensor", instrumental: "Tensor", rate: int) -> Alignment:
    """Find shift and gain that align an instrumental with its original.

    Args:
        original: (c t) wave.
        instrumental: (c t) wave.
        rate: of both, in Hz.

    Returns:
        Shift and gain, and how well the instrumental fits.

    Raises:
        SeparatorError: they are not the same recording, or the original has no vocals either.
    """
    first, second = original.mean(dim=0), instrumental.mean(dim=0)
    low = [audio.resample(wave[None], rate, COARSE_RATE)[0] for wave in (first, second)]
    limit = round(MAX_SHIFT_SECONDS * COARSE_RATE)
    coarse = round(_lag(*low, limit, whiten=True) * rate / COARSE_RATE)
    overlap = _overlapping(first[None], second[None], coarse)
    if overlap[0].shape[-1] < MIN_FRAMES * FIT_FRAME_SECONDS * rate:
        raise SeparatorError("too short, or hardly any of it is in both files")
    shift = _refined(*overlap, rate) + coarse
    return _fit(*_overlapping(original, instrumental, shift), rate, shift)


def _lag(first: "Tensor", second: "Tensor", limit: int, whiten: bool) -> int:
    """Samples by which the first wave (t) is late, at most `limit`, where they correlate best.

    Whitened (GCC-PHAT) it is told from other places of a song that repeats itself; as it is, the
    residual of the one in the other is smallest there.
    """
    import torch

    size = 1 << (first.shape[-1] + second.shape[-1]).bit_length()
    cross = torch.fft.rfft(first, size) * torch.fft.rfft(second, size).conj()
    if whiten:
        cross = cross / cross.abs().clamp(min=1e-12)
    correlation = torch.fft.irfft(cross, size)
    limit = min(limit, size // 2 - 1)
    window = torch.cat([correlation[-limit:], correlation[: limit + 1]])
    return int(window.argmax()) - limit


def _refined(first: "Tensor", second: "Tensor", rate: int) -> int:
    """Samples by which the first wave (1 t) is late, less than two coarse ones.

    Raises:
        SeparatorError: at other places of the song it is another number.
    """
    limit = 2 * rate // COARSE_RATE
    span = min(round(POSITION_SECONDS * rate), first.shape[-1])
    starts = [round(position * (first.shape[-1] - span)) for position in POSITIONS]
    parts = [(first[0, s : s + span], second[0, s : s + span]) for s in starts]
    lags = [_lag(*part, limit, whiten=False) for part in parts]
    if max(lags) - min(lags) > MAX_DRIFT:
        raise SeparatorError("another recording, or another speed: positions of it do not align")
    return sorted(lags)[1]


def _fit(first: "Tensor", second: "Tensor", rate: int, shift: int) -> Alignment:
    """Find the gain, and judge how well aligned waves (c t) fit, half a second at a time."""
    power, other_power, products = _frame_sums(first, second, round(FIT_FRAME_SECONDS * rate))
    frames = (power > MIN_POWER) & (other_power > MIN_POWER)
    power, other_power, products = power[frames], other_power[frames], products[frames]
    if len(power) < MIN_FRAMES:
        raise SeparatorError("nearly silent")
    likeness = products / (power * other_power).sqrt()
    best = likeness.argsort(descending=True)[: max(1, math.ceil(FIT_SHARE * len(power)))]
    gain = (products[best] / other_power[best]).median().item()
    residual = (power - 2 * gain * products + gain**2 * other_power).clamp(min=0)
    best_db = _decibels((residual / power).quantile(FIT_SHARE).item())
    residual_db = _decibels((residual.sum() / power.sum()).item())
    if gain <= 0 or best_db > MAX_RESIDUAL_DB:
        raise SeparatorError(
            f"another recording: where they fit best, their difference is {-best_db:.0f} dB below "
            f"the original; {-MAX_RESIDUAL_DB:.0f} are needed"
        )
    if residual_db < IDENTICAL_DB:
        raise SeparatorError("the original has no vocals either: both are the same")
    return Alignment(shift, gain, best_db, residual_db)


def _frame_sums(first: "Tensor", second: "Tensor", frame: int) -> tuple["Tensor", ...]:
    """Mean squares and mean product of two waves (c t) in each frame: three of (n), float64."""
    import torch

    rows = []
    for start in range(0, first.shape[-1] - frame + 1, frame):
        one, other = (wave[:, start : start + frame].double() for wave in (first, second))
        rows.append([one.square().mean(), other.square().mean(), (one * other).mean()])
    return torch.tensor(rows, dtype=torch.float64).unbind(1)


def _decibels(ratio: float) -> float:
    return 10 * math.log10(max(ratio, 1e-12))

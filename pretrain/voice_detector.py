"""Songs without voices: a model that separates vocals says how loud they are in each song."""

import contextlib
import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path

import torch

from separator.atomic import write_text
from separator.data.reader import Reader, load_stems
from separator.data.stem_cache import default_folder
from separator.data.tracks import Track
from separator.errors import SeparatorError, one_line
from separator.logs import bar
from separator.separation import Separator
from separator.stems import MIXTURE, VOCALS

EXCERPTS = (0.25, 0.5, 0.75)  # middles of the excerpts, as parts of the song
EXCERPT_SECONDS = 8.0
SILENCE_DB = -60.0  # mean power of an excerpt, relative to full scale, that says nothing
SONGS_PER_WRITE = 50

log = logging.getLogger(__name__)


def without_voices(songs: Sequence[Track], model: str, limit_db: float, device: str) -> list[Track]:
    """Leave out the songs in which a model finds a voice, and log how many those are.

    Args:
        songs: of any kind; those with stems stay.
        model: a file or a bundled name; it separates vocals.
        limit_db: level of the vocals relative to the song, which they may reach in no excerpt.
        device: on which the model runs.

    Returns:
        The other songs, in the same order.

    Raises:
        SeparatorError: the model cannot be used, or separates no vocals.
    """
    separator = Separator.load(model, device)
    if VOCALS not in separator.stems.names:
        raise SeparatorError(f"remix.detector: {model} separates no {VOCALS}; give one that does")
    path = default_folder() / "voices" / f"{separator.description['digest']}.json"
    cached, reader = _cached(path), Reader(separator.rate)
    mixtures = [song for song in songs if song.names == (MIXTURE,)]
    decibels: dict[Track, float] = {}
    for number, song in enumerate(bar(mixtures, "voices", unit="song"), 1):
        key = str(song.identity)
        if key not in cached:
            cached[key] = _judged(song, separator, reader)
        decibels[song] = cached[key]
        if number % SONGS_PER_WRITE == 0 or number == len(mixtures):
            with contextlib.suppress(OSError):  # then it is measured again the next time
                path.parent.mkdir(parents=True, exist_ok=True)
                write_text(path, json.dumps(cached))
    remaining = [song for song in songs if decibels.get(song, -math.inf) <= limit_db]
    log.info(
        "remix.detector: left out: %d of %d songs with a voice, and %d that could not be judged",
        sum(db > limit_db for db in decibels.values()),
        *(len(mixtures), sum(map(math.isnan, decibels.values()))),
    )
    return remaining


def _cached(path: Path) -> dict[str, float]:
    """Read what was measured before, NaN of songs that could not be judged; {} without a file."""
    try:
        decibels = json.loads(path.read_text(encoding="utf-8")).items()
    except (OSError, ValueError, AttributeError):
        return {}
    return {key: db for key, db in decibels if isinstance(db, float)}


def _judged(song: Track, separator: Separator, reader: Reader) -> float:
    """Measure the level of the voice; NaN of a song that is too short, silent or unreadable."""
    try:
        return voice_level(song, separator, reader)
    except SeparatorError as error:
        log.warning("remix.detector: %s", one_line(error))
        return math.nan


def voice_level(song: Track, separator: Separator, reader: Reader) -> float:
    """Measure how loud the estimated vocals are, in the excerpt in which they are loudest.

    Args:
        song: a mixture.
        separator: separates vocals.
        reader: of its rate.

    Returns:
        Decibels relative to the song; NaN where it is shorter than an excerpt, or silent in one.

    Raises:
        SeparatorError: the song cannot be read, or the model's estimate is not finite.
    """
    rate = separator.rate
    length, samples = song.length(rate), round(EXCERPT_SECONDS * rate)
    if length < samples:
        return math.nan
    starts = [round(middle * length) - samples // 2 for middle in EXCERPTS]
    starts = [min(max(start, 0), length - samples) for start in starts]
    crops = (load_stems(song, rate, start, samples, reader) for start in starts)
    mixtures = torch.stack([crop[MIXTURE] for crop in crops])
    voices = separator(mixtures)[:, separator.stems.names.index(VOCALS)]
    power, voice = (wave.square().mean(dim=(1, 2)) for wave in (mixtures, voices))
    if bool((power <= 10 ** (SILENCE_DB / 10)).any()):
        return math.nan
    return (10 * (voice / power).clamp(min=1e-12).log10()).max().item()

"""Small songs made by arithmetic, with known stems: for tests, and for a first run without data.

Chords, bass, drums and a sung voice in the same key: the voice's partials fall on the chords',
which is what makes separating real songs hard. The same seed gives the same songs.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from separator import audio
from separator.stems import FOUR_STEMS

RATE = 44100
_TAU = 2 * np.pi
# Formant frequencies in Hz of a, e, i, o, u (after Peterson & Barney 1952) and their bandwidths.
_VOWELS = np.array(
    [
        [800, 1200, 2600, 3500],
        [480, 2000, 2700, 3600],
        [300, 2350, 3050, 3700],
        [480, 880, 2500, 3400],
        [330, 750, 2350, 3300],
    ],
    dtype=float,
)
_BANDWIDTHS = np.array([90.0, 110.0, 160.0, 220.0])
_FORMANT_GAINS = np.array([1.0, 1.0, 0.6, 0.4])
_SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
_PROGRESSIONS = ((0, 4, 5, 3), (0, 5, 3, 4), (5, 3, 0, 4), (0, 3, 4, 4), (0, 2, 3, 4))


@dataclass(frozen=True)
class _Score:
    """The music of a song: key, tempo, and one chord (as degree of the scale) for each bar."""

    root: int
    scale: tuple[int, ...]
    beat: int
    total: int
    degrees: tuple[int, ...]

    def pitch(self, degree: int) -> int:
        """MIDI number of a degree of the scale, counted from the root over any octaves."""
        octave, step = divmod(degree, 7)
        return self.root + 12 * octave + self.scale[step]

    def chord_at(self, sample: int) -> int:
        """Degree of the chord that sounds at a sample."""
        return self.degrees[sample // (4 * self.beat) % len(self.degrees)]


def song(seconds: float = 12.0, seed: int = 0, index: int = 0) -> dict[str, np.ndarray]:
    """Compose and play one song.

    Args:
        seconds: Length, at 44.1 kHz.
        seed: Number of the collection.
        index: Number of the song in it.

    Returns:
        drums, bass, other and vocals, each (c t) float64 with c = 2; their sum peaks at 0.8.
    """
    rng = np.random.default_rng([seed, index])
    score = _compose(rng, max(1, round(seconds * RATE)))
    parts = (_drumkit(rng, score), _bassline(rng, score), _chords(rng, score), _voice(rng, score))
    stems = dict(zip(FOUR_STEMS.names, parts, strict=True))
    levels = dict(zip(stems, (0.0, -2.0, -1.0, rng.uniform(-2.0, 2.0)), strict=True))
    for name, wave in stems.items():
        stems[name] = wave * 10 ** (levels[name] / 20) / (np.sqrt(np.mean(wave**2)) + 1e-9)
    peak = max(np.abs(wave).max() for wave in (*stems.values(), sum(stems.values())))
    return {name: wave * (0.8 / peak) for name, wave in stems.items()}


def write_corpus(
    folder: str | os.PathLike, songs: int = 8, seconds: float = 12.0, seed: int = 0
) -> Path:
    """Write songs as stem folders, `folder/song-000/{drums,bass,other,vocals}.flac`.

    Files are 16-bit FLAC, each appearing only when it is whole. The split into training and
    validation is that of every stem folder (see `separator.data.tracks`).

    Args:
        folder: gets a folder for each song.
        songs: number of songs.
        seconds: length of each.
        seed: of all songs.

    Returns:
        The folder.
    """
    folder = Path(folder)
    for index in range(songs):
        for name, wave in song(seconds, seed, index).items():
            path = folder / f"song-{index:03d}" / f"{name}.flac"
            path.parent.mkdir(parents=True, exist_ok=True)
            with audio.Writer(path, RATE, 2) as writer:
                writer.write(wave.astype(np.float32))
    return folder


def _compose(rng: np.random.Generator, total: int) -> _Score:
    """Choose key, tempo and chords."""
    scale = _SCALES[str(rng.choice(list(_SCALES)))]
    beat = round(RATE * 60 / rng.uniform(84, 138))
    degrees = _PROGRESSIONS[rng.integers(len(_PROGRESSIONS))]
    return _Score(int(rng.integers(45, 57)), scale, beat, total, degrees)


def _hertz(pitch: float | np.ndarray) -> float | np.ndarray:
    """Frequency of a MIDI number."""
    return 440.0 * 2 ** ((pitch - 69) / 12)


def _add(track: np.ndarray, start: int, note: np.ndarray) -> None:
    """Add a note (… t) to a track (… t), cutting what falls past its end."""
    length = min(note.shape[-1], track.shape[-1] - start)
    if length > 0:
        track[..., start : start + length] += note[..., :length]


def _tone(frequency: float, length: int, brightness: float) -> np.ndarray:
    """(t) harmonic tone whose partials fall off as k**-1/brightness and stop below 9 kHz."""
    phase = _TAU * frequency / RATE * np.arange(length)
    count = int(np.clip(9000 // frequency, 1, 10))
    twice, previous, partial = 2 * np.cos(phase), np.zeros(length), np.sin(phase)
    wave = partial.copy()
    for k in range(2, count + 1):  # sin(kx) = 2 cos(x) sin((k-1)x) - sin((k-2)x): no new sines
        previous, partial = partial, twice * partial - previous
        wave += k ** (-1 / brightness) * partial
    return wave


def _envelope(length: int, attack: float, decay: float, release: float = 0.03) -> np.ndarray:
    """(t) rise over `attack` seconds, exponential fall of time constant `decay`, short end."""
    time = np.arange(length) / RATE
    remaining = (length - np.arange(length)) / RATE
    return np.minimum(time / attack, 1) * np.exp(-time / decay) * np.minimum(remaining / release, 1)


def _chords(rng: np.random.Generator, score: _Score) -> np.ndarray:
    """(c t) a pad held over each bar, or broken chords in eighths; detuned against each other."""
    out = np.zeros((2, score.total))
    brightness, plucked = rng.uniform(0.5, 0.9), bool(rng.random() < 0.5)
    step = score.beat // 2 if plucked else 4 * score.beat
    for number, start in enumerate(range(0, score.total, step)):
        notes = [12 + score.pitch(score.chord_at(start) + third) for third in (0, 2, 4, 7)]
        if plucked:
            notes = [notes[number % 4], notes[0] - 12] if number % 4 == 0 else [notes[number % 4]]
        length = min(int(1.5 * step) if plucked else step, score.total - start)
        shape = _envelope(length, 0.004, 0.45) if plucked else _envelope(length, 0.06, 3.0, 0.1)
        for note in notes:
            for channel in (0, 1):  # each ear its own detuning: a wide sound
                tone = _tone(_hertz(note + rng.normal(0, 0.05)), length, brightness)
                _add(out[channel], start, tone * shape * rng.uniform(0.5, 1.0))
    return out


def _bassline(rng: np.random.Generator, score: _Score) -> np.ndarray:
    """(c t) roots and fifths in eighths, in the middle of the picture."""
    out = np.zeros(score.total)
    pattern = rng.choice([0, 0, 0, 4, 7], size=8)
    rests = rng.random(8) < 0.2
    step = score.beat // 2
    for number, start in enumerate(range(0, score.total, step)):
        if rests[number % 8] and number % 8:
            continue
        degree = score.chord_at(start) + int(pattern[number % 8]) * (number % 8 > 0)
        frequency = _hertz(score.pitch(degree) - 24)
        _add(out, start, _tone(frequency, step, 0.6) * _envelope(step, 0.005, 0.35))
    return np.tile(out, (2, 1))


def _drumkit(rng: np.random.Generator, score: _Score) -> np.ndarray:
    """(c t) kick (falling sine), snare (tone and noise) and hi-hat (bright noise) in sixteenths."""
    out = np.zeros((2, score.total))
    time = np.arange(RATE // 3) / RATE
    noise = rng.standard_normal((2, RATE // 3))
    hiss = np.diff(noise, n=2, axis=-1, prepend=0, append=0)[:, : RATE // 3]
    sweep = _TAU * (48 * time + 6.0 * (1 - np.exp(-time / 0.03)))
    kick = np.sin(sweep) * np.exp(-time / 0.12) * np.ones((2, 1))
    snare = 0.5 * np.sin(_TAU * 190 * time) * np.exp(-time / 0.06)
    snare = snare + 0.35 * noise * np.exp(-time / 0.09)
    hat = 0.09 * hiss * np.exp(-time / 0.03) * np.array([[0.7], [1.0]])
    kicks = rng.random(16) < np.tile([0.9, 0.05, 0.3, 0.1], 4)
    for number, start in enumerate(range(0, score.total, max(1, score.beat // 4))):
        place = number % 16
        if place == 0 or (kicks[place] and place not in (4, 12)):
            _add(out, start, kick * rng.uniform(0.8, 1.0))
        if place in (4, 12):
            _add(out, start, snare * rng.uniform(0.8, 1.0))
        if place % 2 == 0:
            _add(out, start, hat * rng.uniform(0.5, 1.0))
    return out


def _melody(rng: np.random.Generator, score: _Score) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make a vocal line: (t) pitch in MIDI numbers, (t) loudness, (t) index of the vowel."""
    pitch, loud, vowel = (np.zeros(score.total) for _ in range(3))
    start, degree = int(rng.integers(2)) * score.beat, 7
    while start < score.total:
        for _ in range(int(rng.integers(4, 8))):  # a phrase
            length = int(score.beat * rng.choice([0.5, 1.0, 1.0, 1.5, 2.0]))
            near = score.chord_at(start) + np.array([0, 2, 4, 7, 9, 11])
            degree = int(rng.choice(near[np.argsort(np.abs(near - degree))[:4]]))
            note = slice(start, start + length)
            pitch[note] = score.pitch(degree)
            vowel[note] = rng.integers(len(_VOWELS))
            _add(loud, start, _envelope(length, 0.05, 4.0, 0.06))
            start += length
        start += int(score.beat * rng.choice([1.0, 2.0]))  # breath
    return pitch, loud, vowel


def _smooth(steps: np.ndarray, seconds: float) -> np.ndarray:
    """Moving mean along the last axis: glides instead of jumps."""
    width = max(1, int(seconds * RATE))
    padded = np.concatenate([np.full(width, steps[0]), steps])
    total = np.cumsum(padded)
    return (total[width:] - total[:-width]) / width


def _voice(rng: np.random.Generator, score: _Score) -> np.ndarray:
    """(c t) glottal pulses, as a sum of partials, through the resonances of changing vowels."""
    pitch, loud, vowel = _melody(rng, score)
    held = np.where(pitch > 0, pitch, pitch[pitch > 0].mean() if pitch.any() else 60.0)
    time = np.arange(score.total) / RATE
    drift = _smooth(rng.standard_normal(score.total), 0.02)  # jitter: no throat is a quartz
    vibrato = 0.3 * np.sin(_TAU * rng.uniform(5.0, 6.2) * time) + drift
    frequency = _hertz(_smooth(held, 0.05) + vibrato)
    phase = _TAU * np.cumsum(frequency) / RATE
    block = 128  # resonances move slowly: one value in 128 samples, straight lines between
    grid = np.minimum(np.arange(0, score.total + block, block), score.total - 1)
    size = rng.uniform(0.95, 1.15)  # of the throat
    vowels = _VOWELS[vowel.astype(int)]
    formants = size * np.stack([_smooth(vowels[:, k], 0.06)[grid] for k in range(4)])
    twice, previous, partial = 2 * np.cos(phase), np.zeros(score.total), np.sin(phase)
    wave = np.zeros(score.total)
    for k in range(1, int(7000 / np.median(frequency)) + 1):
        weight = _resonance(k * frequency[grid], formants) / k  # pulses fall 6 dB an octave
        wave += np.interp(np.arange(score.total), np.arange(len(grid)) * block, weight) * partial
        previous, partial = partial, twice * partial - previous
    breath = np.diff(rng.standard_normal(score.total), prepend=0) * 0.004 * (1 + 6 * (loud < 0.3))
    dry = _smooth(loud, 0.01) * (wave + breath)
    wet = np.tile(dry, (2, 1))
    for channel, milliseconds in ((0, 31), (1, 43), (0, 67), (1, 79)):  # walls of a room
        delay = RATE * milliseconds // 1000
        wet[channel, delay:] += 0.15 * dry[: score.total - delay]
    return wet


def _resonance(frequency: np.ndarray, formants: np.ndarray) -> np.ndarray:
    """(n) gain at (n) frequencies of parallel resonators at (k n) formants."""
    off = (frequency - formants) / _BANDWIDTHS[:, None]
    return (_FORMANT_GAINS[:, None] / np.sqrt(1 + off**2)).sum(0)

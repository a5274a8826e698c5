"""Find songs that share a recording by their sound, whatever their names say (Wang 2003).

A fingerprint is the strongest peaks of a spectrogram. Each peak and each of the next ones make a
hash of their two frequencies and the time between them. Two songs of one recording have many hashes
in common at one shift, even if one of them is coded with loss or has a voice.
"""

import contextlib
import functools
import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from separator import audio
from separator.data.library.examination import in_processes
from separator.data.library.index import Index
from separator.data.library.scan import Library, default_index
from separator.logs import bar as progress_bar

log = logging.getLogger(__name__)

# with other peaks, raise PEAKS_VERSION of the index
PEAK_RATE = 8000  # Hz
PEAK_FFT, PEAK_HOP = 1024, 256
FRAMES_PER_SECOND = PEAK_RATE // PEAK_HOP
BINS = PEAK_FFT // 2  # 9 bits
LOWEST_BIN = 5  # 39 Hz
PEAK_DISTANCE = 3, 6  # frames and bins around a peak in which nothing is louder
PEAK_BANDS = 4  # each with as many peaks, so that a bass or a voice does not take all of them
BAND_PEAKS = 4  # in a second
PARTNERS = 4  # of a peak
MAX_GAP = 64  # frames between partners; 6 bits
HASH_SHARE = 4  # one hash in so many is compared: a true pair has enough of them
MAX_SONG_SECONDS = 1200.0  # longer files are sets or albums
MAX_PEAKS_BETWEEN = 40  # a peak and its partners
MAX_SHIFT_FRAMES = 20 * FRAMES_PER_SECOND
MAX_MATCHES = 1_000_000  # of a song's hashes in others, the rarest hashes first: time and memory
MIN_VOTES = 20  # unrelated songs share up to 14, a pair of 23 s or more at least 22


def fingerprint(path: str | os.PathLike) -> np.ndarray:
    """Return the peaks of a song.

    Args:
        path: an audio file.

    Returns:
        (p) uint32, frame · 512 + bin, in rising order; 16 at most for each second.

    Raises:
        AudioError: it cannot be decoded.
    """
    resampler = audio.Resampler(audio.probe(path).rate, PEAK_RATE, 1)
    mono = (np.ascontiguousarray(audio.to_channels(wave, 1)) for wave in audio.blocks(path))
    return _peaks(np.concatenate([*map(resampler.push, mono), resampler.flush()], axis=1)[0])


def _peaks(wave: np.ndarray) -> np.ndarray:
    """Return the strongest local maxima of the spectrogram of a wave (t)."""
    magnitudes = _magnitudes(np.pad(wave, (0, max(0, PEAK_FFT - len(wave)))))
    magnitudes[:, :LOWEST_BIN] = 0
    loudest = magnitudes
    for axis, distance in enumerate(PEAK_DISTANCE):
        loudest = _sliding_maximum(loudest, distance, axis)
    frames, bins = np.nonzero((magnitudes == loudest) & (magnitudes > 1e-3))
    # the loudest of each second and band
    edges = np.geomspace(LOWEST_BIN, BINS, PEAK_BANDS + 1)[1:-1]
    group = frames // FRAMES_PER_SECOND * PEAK_BANDS + np.searchsorted(edges, bins)
    order = np.lexsort((-magnitudes[frames, bins], group))
    rank = np.arange(len(order)) - np.searchsorted(group[order], group[order])
    chosen = order[rank < BAND_PEAKS]
    return np.sort(frames[chosen] * BINS + bins[chosen]).astype(np.uint32)


def _magnitudes(wave: np.ndarray) -> np.ndarray:
    """Return the magnitudes (n f) of the short-time spectrum of a wave (t)."""
    frames = np.lib.stride_tricks.sliding_window_view(wave, PEAK_FFT)[::PEAK_HOP]
    result = np.empty((len(frames), BINS), np.float32)
    window = np.hanning(PEAK_FFT).astype(np.float32)
    for start in range(0, len(frames), 1024):  # not all of the complex spectrum at once
        spectrum = np.fft.rfft(frames[start : start + 1024] * window)
        result[start : start + 1024] = np.abs(spectrum[:, :BINS])
    return result


def _sliding_maximum(values: np.ndarray, distance: int, axis: int) -> np.ndarray:
    """Return the maximum of each value (n f) and those up to `distance` beside it on an axis."""
    margin = [(0, 0), (0, 0)]
    margin[axis] = (distance, distance)
    padded = np.pad(values, margin)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * distance + 1, axis)
    return functools.reduce(np.maximum, np.moveaxis(windows, -1, 0))  # three times max's speed


def library_fingerprints(
    library: Library, index: str | os.PathLike | None = None, jobs: int | None = None
) -> Iterator[np.ndarray]:
    """Return the fingerprints of a library's songs, and keep them in the index.

    Args:
        library: a scan.
        index: the index file; `default_index()` when not given.
        jobs: processes; when not given, as many as there are cores and work for.

    Yields:
        One for each song, in their order; an empty one for a song of more than 20 minutes, or one
        that cannot be decoded.

    Raises:
        LibraryIndexError: the index cannot be used.
    """
    with Index(index or default_index()) as store:
        songs = zip(library.keys, library.songs, strict=True)
        missing = [
            (key, song.path)
            for key, song in songs
            if song.seconds <= MAX_SONG_SECONDS and store.fingerprint(key) is None
        ]
        with (
            progress_bar(total=len(missing), desc="fingerprints", unit="song") as bar,
            contextlib.closing(in_processes(_peaks_of, missing, jobs)) as results,
        ):
            for (key, _), peaks in results:
                if peaks is not None:
                    store.record_fingerprint(key, peaks.tobytes())
                bar.update()
        without = 0
        for key in library.keys:
            stored = store.fingerprint(key)
            without += stored is None
            stored = stored or b""
            yield np.frombuffer(stored[: len(stored) // 4 * 4], np.uint32)
    if without:
        limit = f"longer than {MAX_SONG_SECONDS / 60:.0f} minutes, or not readable"
        log.warning("songs not compared by their sound (%s): %d", limit, without)


def _peaks_of(key: str, path: Path) -> np.ndarray | None:
    """Return the peaks of a song; None where it has gone or changed since it was scanned."""
    with contextlib.suppress(audio.AudioError, OSError):
        return fingerprint(path)
    return None


def similar_songs(fingerprints: Iterable[np.ndarray]) -> list[tuple[int, int, int]]:
    """Find songs that share a recording, at shifts of up to 20 s.

    Args:
        fingerprints: of the songs.

    Returns:
        (number of a song, number of a later one, hashes that they share at the best shift), in
        rising order, of those that share enough.
    """
    hashes = [_hashes(peaks) for peaks in fingerprints]
    if not hashes:
        return []
    # hash, song and frame in one number: 24, 20 and 16 bits
    table = np.concatenate([codes | song << 16 for song, codes in enumerate(hashes)])
    table.sort()
    return [
        (song, other, votes)
        for song, codes in enumerate(hashes)
        for other, votes in _votes(codes, song, table)
        if votes >= MIN_VOTES
    ]


def _votes(codes: np.ndarray, song: int, table: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield each later song of the table with the hashes it shares at the best shift."""
    first = np.searchsorted(table, codes >> 36 << 36 | song + 1 << 16)
    counts = np.searchsorted(table, (codes >> 36) + 1 << 36) - first
    rarest = np.argsort(counts, kind="stable")
    rarest = rarest[np.cumsum(counts[rarest]) <= MAX_MATCHES]
    codes, first, counts = codes[rarest], first[rarest], counts[rarest]
    ramp = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    entries = table[np.repeat(first, counts) + ramp]
    shifts = (entries & 0xFFFF) - np.repeat(codes & 0xFFFF, counts) + MAX_SHIFT_FRAMES
    near = (shifts >= 0) & (shifts <= 2 * MAX_SHIFT_FRAMES)
    keys = entries[near] >> 16 << 16 & (1 << 36) - 1 | shifts[near]
    places, votes = np.unique(keys, return_counts=True)
    # a shift that falls between two frames divides its votes
    beside = np.flatnonzero(np.diff(places) == 1)
    votes[beside] += votes[beside + 1]
    songs, starts = np.unique(places >> 16, return_index=True)
    if len(songs):
        best = np.maximum.reduceat(votes, starts)
        yield from zip(songs.tolist(), best.tolist(), strict=True)


def _hashes(peaks: np.ndarray) -> np.ndarray:
    """Return the hashes (h) of peaks (p), int64: 24 bits, 20 free ones, and the frame in 16."""
    frames, bins = np.divmod(peaks.astype(np.int64), BINS)
    partners, hashes = np.zeros(len(peaks), np.int64), []
    for distance in range(1, MAX_PEAKS_BETWEEN):
        gaps = frames[distance:] - frames[:-distance]
        usable = (gaps > 0) & (gaps < MAX_GAP) & (partners[: len(gaps)] < PARTNERS)
        peak = np.flatnonzero(usable)
        partners[peak] += 1
        codes = bins[peak] << 15 | bins[peak + distance] << 6 | gaps[peak]
        chosen = (codes * 0x9E3779B1 >> 16) % HASH_SHARE == 0
        hashes.append(codes[chosen] << 36 | frames[peak][chosen])
    return np.concatenate(hashes)

"""Songs that share a recording are found by their sound, and others are not."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import torch

from separator import audio
from separator.data.corpus import song
from separator.data.library import fingerprints
from separator.data.library.fingerprints import (
    fingerprint,
    library_fingerprints,
    similar_songs,
)
from separator.data.library.index import Content, Finding, Index, Stamp
from separator.data.library.scan import scan

RATE = 44100


def write(path: Path, wave: torch.Tensor, late: int = 0, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with audio.Writer(path, rate, wave.shape[0]) as writer:
        writer.write(torch.nn.functional.pad(wave, (late, 0)))
    return path


def with_and_without(folder: Path, seed: int, late: int) -> list[Path]:
    """A song and its instrumental in lossy formats, one `late` samples after the other."""
    parts = {name: torch.from_numpy(wave).float() for name, wave in song(40.0, seed).items()}
    voice = parts.pop("vocals")
    music = sum(parts.values())
    first = write(folder / f"{seed}.mp3", music + voice, late)
    return [first, write(folder / f"{seed}i.m4a", 0.5 * music)]


def test_pairs_of_made_songs_are_found_and_no_others(tmp_path: Path):
    # 128 samples at 8 kHz, half a hop, move each peak the most
    shifts = {7: 128 * RATE // 8000, 8: 10 * RATE}
    paths = [
        path for seed, late in shifts.items() for path in with_and_without(tmp_path, seed, late)
    ]
    prints = [fingerprint(path) for path in paths]
    similar = similar_songs(prints)
    assert [(first, second) for first, second, _ in similar] == [(0, 1), (2, 3)]
    assert all(12 < len(peaks) / 40 < 17 for peaks in prints)


@pytest.mark.parametrize(("late", "expected"), [(0, True), (618, True), (640, False)])
def test_shifts_of_up_to_twenty_seconds_are_searched(late: int, expected: bool):
    generator = np.random.default_rng(0)
    peaks = np.unique(generator.integers(0, 3000, 1500) * 512 + generator.integers(5, 512, 1500))
    prints = [peaks.astype(np.uint32), (peaks + 512 * late).astype(np.uint32)]
    assert bool(similar_songs(prints)) == bool(similar_songs(prints[::-1])) == expected


def test_frequent_hashes_are_compared_last(monkeypatch: pytest.MonkeyPatch):
    generator = np.random.default_rng(0)
    jingle = np.unique(generator.integers(0, 1500, 700) * 512 + generator.integers(5, 512, 700))
    shared = np.unique(generator.integers(2000, 2500, 150) * 512 + generator.integers(5, 512, 150))
    prints = [jingle.astype(np.uint32)] * 20
    prints[:2] = [np.concatenate([jingle, shared]).astype(np.uint32)] * 2
    assert len([first for first, *_ in similar_songs(prints) if first == 0]) == 19
    monkeypatch.setattr(fingerprints, "MAX_MATCHES", len(fingerprints._hashes(shared)))
    assert [other for first, other, _ in similar_songs(prints) if first == 0] == [1]


def test_votes_equal_those_that_are_counted_one_by_one(monkeypatch: pytest.MonkeyPatch):
    generator = np.random.default_rng(0)
    monkeypatch.setattr(fingerprints, "MIN_VOTES", 1)
    monkeypatch.setattr(fingerprints, "HASH_SHARE", 1)
    songs = [
        np.unique(generator.integers(0, 700, 90) * 512 + generator.integers(5, 9, 90))
        for _ in range(6)
    ]
    expected = []
    hashes = [one_by_one(peaks) for peaks in songs]
    for first in range(6):
        for second in range(first + 1, 6):
            shifts = Counter(
                t - s
                for h, s in hashes[first]
                for g, t in hashes[second]
                if h == g and abs(t - s) <= 620
            )
            best = max((n + shifts.get(at + 1, 0) for at, n in shifts.items()), default=0)
            expected += [(first, second, best)] if best else []
    assert len(expected) > 5
    assert similar_songs(peaks.astype(np.uint32) for peaks in songs) == expected


def one_by_one(peaks: np.ndarray) -> list[tuple[tuple[int, int, int], int]]:
    """Each peak with the next four less than 64 frames after it, and not in its own frame."""
    points = [divmod(int(peak), 512) for peak in peaks]
    rows = []
    for number, (frame, bin) in enumerate(points):
        later = [(t, f) for t, f in points[number + 1 : number + 40] if 0 < t - frame < 64]
        rows += [((bin, f, t - frame), frame) for t, f in later[:4]]
    return rows


def test_peaks_are_the_maxima_that_scipy_finds():
    values = np.random.default_rng(0).random((50, 60), dtype=np.float32)
    ours = fingerprints._sliding_maximum(fingerprints._sliding_maximum(values, 3, 0), 6, 1)
    assert np.array_equal(ours, scipy.ndimage.maximum_filter(values, (7, 13), mode="constant"))


@pytest.mark.parametrize("jobs", [1, 2])
def test_fingerprints_are_kept_and_a_song_that_has_gone_is_tried_again(
    tmp_path: Path, jobs: int, caplog: pytest.LogCaptureFixture
):
    waves = np.random.default_rng(0).standard_normal((3, 2, 2 * RATE)).astype(np.float32) * 0.1
    paths = [write(tmp_path / f"{n}.flac", torch.from_numpy(w)) for n, w in enumerate(waves)]
    library = scan([tmp_path], tmp_path / "i.sqlite", 1)
    contents = paths[1].read_bytes()
    paths[1].unlink()

    def found() -> list[np.ndarray]:
        return list(library_fingerprints(library, tmp_path / "i.sqlite", jobs))

    first = found()
    assert caplog.messages == [
        "songs not compared by their sound (longer than 20 minutes, or not readable): 1"
    ]
    paths[1].write_bytes(contents)
    paths[0].unlink()
    second = found()
    assert [len(peaks) > 0 for peaks in first] == [True, False, True]
    assert [len(peaks) > 0 for peaks in second] == [True, True, True]
    for path, peaks in zip(paths[1:], second[1:], strict=True):
        assert np.array_equal(peaks, fingerprint(path))


def test_fingerprints_of_another_version_and_of_files_that_have_gone_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path, key = tmp_path / "a.wav", Stamp(1, 2).key("a.wav")
    with Index(tmp_path / "i.sqlite") as store:
        store.record([Finding(str(path), Stamp(1, 2), key, Content())])
        store.record_fingerprint(key, b"peak")
        store.record_fingerprint("coded audio", b"another")
        assert store.fingerprint(key) == b"peak"
        store.forget(str(tmp_path), [])
        assert store.fingerprint(key) is None
        assert store.fingerprint("coded audio") == b"another"
        monkeypatch.setattr("separator.data.library.index.PEAKS_VERSION", b"v0: ")
        assert store.fingerprint("coded audio") is None


def test_short_and_silent_songs_have_no_peaks(tmp_path: Path):
    silent = write(tmp_path / "silent.flac", torch.zeros(2, RATE))
    short = write(tmp_path / "short.flac", torch.zeros(1, 10))
    prints = [fingerprint(silent), fingerprint(short)]
    assert [len(peaks) for peaks in prints] == [0, 0] and similar_songs(prints) == []
    assert similar_songs([]) == []


def test_real_songs_are_found(shared_data: Path, tmp_path: Path):
    folders = sorted((shared_data / "stems_cc0").iterdir())[:3]
    paths = []
    for number, folder in enumerate(folders):
        voice, music = (audio.read(folder / f"{part}.opus") for part in ("vocals", "accompaniment"))
        length = min(voice.shape[1], music.shape[1], 90 * 48000)
        rate = audio.probe(folder / "vocals.opus").rate
        mix = music[:, :length] + 2 * voice[:, :length]
        paths.append(write(tmp_path / f"{number}.mp3", 0.5 * mix, 7777 * number, rate))
        paths.append(write(tmp_path / f"{number}.m4a", music[:, :length], 0, rate))
    paths += sorted((shared_data / "songs").iterdir())
    similar = similar_songs(map(fingerprint, paths))
    assert [(first, second) for first, second, _ in similar] == [(0, 1), (2, 3), (4, 5)]
    assert min(votes for *_, votes in similar) > 100

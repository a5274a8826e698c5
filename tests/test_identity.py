"""What tells the songs of a run, wherever they lie."""

import shutil
from pathlib import Path

import pytest
import soundfile
import torch

from separator.data.identity import song_digests
from separator.data.tracks import find_tracks
from tests.toys import seeded


def song(path: Path, seed: int, seconds: float = 0.5) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = 0.1 * torch.randn(int(seconds * 8000), 2, generator=seeded(seed))
    soundfile.write(path, wave.numpy(), 8000)


def digests(*roots: Path, **options: object) -> list[int]:
    tracks = [track for root in roots for track in find_tracks(root, **options)]
    return song_digests(tracks).tolist()


@pytest.fixture
def stems(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        for seed, stem in enumerate(("vocals", "drums")):
            song(tmp_path / "stems" / name / f"{stem}.wav", seed)
    return tmp_path / "stems"


@pytest.fixture
def library(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        song(tmp_path / "library" / f"{name}.flac", ord(name))
    return tmp_path / "library"


def test_songs_that_moved_are_the_same(stems: Path, library: Path, tmp_path: Path):
    before = digests(stems, library)
    assert len(set(before)) == 5
    for root in (stems, library):
        shutil.move(root, tmp_path / "mnt" / root.name)
    assert digests(tmp_path / "mnt" / "stems", tmp_path / "mnt" / "library") == before


def test_other_sound_of_the_same_name_and_length_is_another_song(stems: Path, library: Path):
    before = digests(stems, library)
    song(stems / "a" / "drums.wav", 9)
    song(library / "c.flac", 9)
    now = digests(stems, library)
    assert [old == new for old, new in zip(before, now, strict=True)] == [
        *(False, True),
        *(True, True, False),
    ]


def test_what_changes_the_draws_changes_the_songs(stems: Path, library: Path):
    assert set(digests(stems, weight=2.0)).isdisjoint(digests(stems))
    assert digests(library, stems) != digests(stems, library)

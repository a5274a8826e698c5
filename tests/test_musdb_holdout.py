"""Songs of MUSDB18's test set are known by name and tags, and kept out of libraries."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import mutagen
import numpy as np
import pytest
import soundfile

from separator.data import splits
from separator.data.library import scan as library
from separator.data.library.musdb_holdout import TEST_SONGS, held_out
from separator.errors import SeparatorError


def test_there_are_fifty():
    assert len(set(TEST_SONGS)) == 50
    for song in TEST_SONGS:
        assert held_out(Path(f"MUSDB18/test/{song}.stem.mp4"), {}) == song
        assert held_out(Path(f"MUSDB18-HQ/test/{song}/mixture.wav"), {}) == song


@pytest.mark.parametrize(
    ("path", "tags", "song"),
    [
        ("zeno_-_signs.mp3", {}, "Zeno - Signs"),
        ("03 - Zeno - Signs.mp3", {}, "Zeno - Signs"),
        ("Zeno/Album/CD 1/07. Signs.flac", {}, "Zeno - Signs"),
        ("Zeno - Album - 02 Signs.flac", {}, "Zeno - Signs"),
        ("Zeno - Signs (Remastered 2012).flac", {}, "Zeno - Signs"),
        ("stems/Zeno - Signs [Vocals].flac", {}, "Zeno - Signs"),
        ("x.mp3", {"artist": ["ZENO"], "title": ["Signs"]}, "Zeno - Signs"),
        ("x.mp3", {"albumartist": ["Juliets Rescue"], "title": ["Heartbeats"]}, TEST_SONGS[18]),
        ("x.mp3", {"artist": ["Triviul"], "title": ["Widow"]}, "Triviul feat. The Fiend - Widow"),
        ("The Easton Ellises/SDRNR.ogg", {}, "The Easton Ellises (Baumi) - SDRNR"),
        ("Signs.mp3", {}, None),
        ("Zeno - Signs of Life.mp3", {}, None),
        ("Bloc Party/Signs.mp3", {"artist": ["Bloc Party"], "title": ["Signs"]}, None),
        ("Zeno/Album/Another.mp3", {"artist": ["Zeno"], "title": ["Another"]}, None),
        ("Skelpolu - Human Mistakes.stem.mp4", {}, None),  # the same artist, for validation
        ("50 Ways - 1999.mp3", {}, None),
    ],
)
def test_artist_and_title_must_both_agree(path: str, tags: Mapping, song: str | None):
    assert held_out(Path(path), tags) == song


def test_a_scan_keeps_them_out(tmp_path: Path):
    noise = np.random.default_rng(0).standard_normal((3, 4410)) * 0.1
    music = tmp_path / "music"
    music.mkdir()
    for name, wave in zip(("tagged.flac", "PR - Oh No.wav", "other.flac"), noise, strict=True):
        soundfile.write(music / name, wave, 44100)
    file = mutagen.File(music / "tagged.flac", easy=True)
    file["artist"], file["title"] = ["Timboz"], ["Pony"]
    file.save()
    found = library.scan([music], tmp_path / "index.sqlite", 1)
    assert [song.path.name for song in found.songs] == ["other.flac"]
    assert {path.name: reason for path, reason in found.quarantined} == {
        "tagged.flac": "test song: Timboz - Pony is in MUSDB18's test set",
        "PR - Oh No.wav": "test song: PR - Oh No is in MUSDB18's test set",
    }
    file["title"] = ["Another"]
    file.save()
    again = library.scan([music], tmp_path / "index.sqlite", 1)
    assert len(again.songs) == 2


def test_lists_of_musdb_that_is_not_installed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    splits.musdb_setup.cache_clear()
    with pytest.raises(SeparatorError, match="pip install 'separator"):
        splits.musdb_setup()

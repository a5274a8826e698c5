"""Finding songs in every layout, and reading their stems exactly."""

import errno
import logging
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from separator import audio
from separator.data.layouts import detect_layout
from separator.data.reader import Reader, load_stems
from separator.data.stem_cache import StemCache
from separator.data.tracks import Source, Track, find_tracks, stem_names
from separator.errors import SeparatorError
from separator.stems import FOUR_STEMS

RATE = 8000


def noise(seconds=1.0, rate=RATE, channels=2, seed=0, level=0.1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return level * torch.randn(channels, round(seconds * rate), generator=generator)


def write(path: Path, wave: torch.Tensor, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with audio.Writer(path, rate, wave.shape[0]) as writer:
        writer.write(wave)
    return path


def only(tracks: list[Track]) -> Track:
    assert len(tracks) == 1
    return tracks[0]


def split_of(tracks: list[Track]) -> dict[str, str]:
    return {track.name: track.split for track in tracks}


# Stem folders


def test_stem_folder_accompaniment_is_the_sum_of_everything_but_vocals_and_mixture(tmp_path):
    waves = {n: noise(seed=i) for i, n in enumerate([*FOUR_STEMS.names, "guitar", "mixture"])}
    for name, wave in waves.items():
        write(tmp_path / "song" / f"{name}.wav", wave)
    track = only(find_tracks(tmp_path))
    assert (track.kind, track.names, track.split) == ("stems", FOUR_STEMS.names, "train")
    stems = load_stems(track, RATE)
    assert torch.equal(stems["vocals"], waves["vocals"])
    expected = sum(waves[n] for n in ("drums", "bass", "other", "guitar"))
    assert torch.allclose(stems["accompaniment"], expected, atol=1e-6)
    four = load_stems(track, RATE, names=FOUR_STEMS.names)
    assert torch.allclose(four["other"], waves["other"] + waves["guitar"], atol=1e-6)


@pytest.mark.parametrize("names", [("vocals", "drums"), FOUR_STEMS.names])
def test_a_whole_accompaniment_is_no_further_stem(tmp_path, names):
    waves = {name: noise(seed=i) for i, name in enumerate(names)}
    accompaniment = sum(wave for name, wave in waves.items() if name != "vocals")
    for name, wave in {**waves, "no_vocals": accompaniment}.items():  # as Demucs names it
        write(tmp_path / "s" / f"{name}.wav", wave)
    stems = load_stems(only(find_tracks(tmp_path)), RATE)
    assert torch.allclose(stems["accompaniment"], accompaniment, atol=1e-6)


@pytest.mark.parametrize(
    ("places", "kind"),
    [
        (["a/Vocals", "a/Drums", "b/VOCALS", "b/Other"], "stems"),
        (["artist/a/vocals", "artist/a/other", "other artist/b/vocals", "extra/x"], "stems"),
        (["a/mixture", "a/instrumental"], "stems"),
        (["a/vocals"], "stems"),  # so that what it lacks is said
        (["train/a/vocals", "train/a/other", "test/b/vocals"], "musdb18hq"),
        (["train/a/vocals", "train/a/other", "valid/b/vocals"], "stems"),
        (["one album/vocals", "one album/drums", "b/x", "c/x"], "library"),
        ([], "library"),
    ],
)
def test_stems_are_recognised_in_half_of_the_folders(tmp_path, places, kind):
    for place in places:
        path = tmp_path / f"{place}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert detect_layout(tmp_path).name == kind


def test_suffixes_may_be_mixed_and_start_and_length_are_exact(tmp_path):
    vocals = write(tmp_path / "s" / "vocals.flac", noise(3.0))
    drums = write(tmp_path / "s" / "drums.ogg", noise(3.0, seed=1))
    track = only(find_tracks(tmp_path))
    assert track.names == ("accompaniment", "vocals")
    stems = load_stems(track, RATE, start=1000, samples=500)
    assert torch.equal(stems["vocals"], audio.read(vocals, 1000, 500))
    assert torch.equal(stems["accompaniment"], audio.read(drums, 1000, 500))
    assert load_stems(track, RATE, start=3 * RATE - 10, samples=500)["vocals"].shape == (2, 10)


@pytest.mark.parametrize(
    ("files", "signs"),
    [
        (("vocals", "instrumental", "drums"), {"accompaniment": {"instrumental": 1}}),
        (("vocals", "mixture"), {"accompaniment": {"mixture": 1, "vocals": -1}}),
        (("mixture", "instrumental"), {"vocals": {"mixture": 1, "instrumental": -1}}),
    ],
)
def test_what_is_missing_is_the_difference(tmp_path, files, signs):
    waves = {name: noise(seed=i) for i, name in enumerate(files)}
    for name, wave in waves.items():
        write(tmp_path / "s" / f"{name}.wav", wave)
    stems = load_stems(only(find_tracks(tmp_path, "stems")), RATE)
    for stem, parts in signs.items():
        expected = sum(sign * waves[name] for name, sign in parts.items())
        assert torch.allclose(stems[stem], expected, atol=1e-6)


def test_unreadable_stems_skip_the_song_and_say_why(tmp_path, caplog):
    for song in ("good", "broken", "short", "empty", "no vocals"):
        for name in ("vocals", "drums"):
            write(tmp_path / song / f"{name}.wav", noise())
    (tmp_path / "broken" / "vocals.wav").write_text("not audio")
    write(tmp_path / "short" / "drums.wav", noise(0.2))
    (tmp_path / "empty" / "drums.wav").write_bytes(b"")
    (tmp_path / "no vocals" / "vocals.wav").unlink()
    with caplog.at_level(logging.INFO):
        assert only(find_tracks(tmp_path)).name == "good"
    for song in ("broken", "short", "empty", "no vocals"):
        assert sum(song in record.getMessage() for record in caplog.records) == 1
    assert "accompaniment = drums (1); vocals = vocals (1)" in caplog.text  # of what is used


def test_missing_and_empty_roots_are_named(tmp_path):
    with pytest.raises(SeparatorError, match="nowhere: no such folder"):
        find_tracks(tmp_path / "nowhere")
    with pytest.raises(SeparatorError, match="no usable song of kind stems"):
        find_tracks(tmp_path, "stems")
    with pytest.raises(SeparatorError, match="kind 'wav' is not known"):
        find_tracks(tmp_path, "wav")


# Splits


def short_songs(root: Path, *songs: str | bytes) -> None:
    for song in songs:
        for name in ("vocals", "drums"):
            write(root / os.fsdecode(song) / f"{name}.wav", noise(0.05))


def test_split_depends_on_the_name_alone(tmp_path):
    def songs(count: int) -> dict[str, str]:
        for i in range(count):
            for name in ("vocals", "drums"):
                write(tmp_path / f"song {i}" / f"{name}.wav", noise(0.05))
        return split_of(find_tracks(tmp_path, valid_share=0.3))

    few, many = songs(10), songs(30)
    assert {name: many[name] for name in few} == few
    assert 2 <= list(many.values()).count("valid") <= 17


def test_names_need_not_be_text(tmp_path):
    short_songs(tmp_path, "a", b"caf\xe9")
    splits = split_of(find_tracks(tmp_path))
    assert sorted(map(os.fsencode, splits)) == [b"a", b"caf\xe9"]
    assert sorted(splits.values()) == ["train", "valid"]


@pytest.mark.parametrize("kind", ["stems", "library"])
def test_the_split_does_not_depend_on_how_the_root_is_written(tmp_path, monkeypatch, kind):
    for i in range(12):
        write(tmp_path / "m" / f"song {i}" / "vocals.wav", noise(0.05, seed=i))
        write(tmp_path / "m" / f"song {i}" / "drums.wav", noise(0.05, seed=20 + i))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    whole, *others = (
        split_of(find_tracks(root, kind, valid_share=0.3))
        for root in (tmp_path / "m", "m", "./m/../m/", "~/m")
    )
    assert others == [whole] * 3
    assert not any(name.startswith("/") for name in whole)
    monkeypatch.chdir(tmp_path / "m")
    assert split_of(find_tracks(".", kind, valid_share=0.3)) == whole


OFFICIAL = "ANiMAL - Rockshow"  # one of musdb's validation songs


@pytest.mark.parametrize("kind", ["auto", "stems", "musdb18hq"])
def test_train_valid_and_test_are_the_split(tmp_path, kind):
    short_songs(tmp_path, "train/a", f"train/{OFFICIAL}", "valid/a", "valid/artist/b", "test/c")
    found = {(t.split, t.name) for t in find_tracks(tmp_path, kind, valid_share=0.9)}
    assert found == {
        *(("train", "a"), ("train", OFFICIAL)),
        *(("valid", "a"), ("valid", "artist/b"), ("test", "c")),
    }


@pytest.mark.parametrize("kind", ["auto", "stems", "musdb18hq"])
def test_without_valid_musdbs_list_validates_or_else_the_share(tmp_path, monkeypatch, kind):
    monkeypatch.setitem(sys.modules, "stempeg", None)  # as where ffmpeg is missing
    monkeypatch.delitem(sys.modules, "musdb", raising=False)
    short_songs(tmp_path, *(f"train/{i}" for i in range(4)), "test/t")
    free = split_of(find_tracks(tmp_path, kind, valid_share=1e-9))
    assert free.pop("t") == "test"
    assert sorted(free.values()) == ["train", "train", "train", "valid"]
    short_songs(tmp_path, f"train/{OFFICIAL}")
    assert split_of(find_tracks(tmp_path, kind, valid_share=0.9)) == {
        **dict.fromkeys("0123", "train"),
        **{OFFICIAL: "valid", "t": "test"},
    }


@pytest.mark.parametrize(("share", "valid"), [(1e-9, 1), (0.999999, 1), (0.0, 0)])
def test_two_songs_are_one_each_unless_none_is_wanted(tmp_path, share, valid):
    for song in "ab":
        write(tmp_path / song / "vocals.wav", noise(0.05))
        write(tmp_path / song / "drums.wav", noise(0.05))
    splits = split_of(find_tracks(tmp_path, valid_share=share))
    assert list(splits.values()).count("valid") == valid


# Pairs, pools, libraries


def test_pairs_are_matched_by_name_and_vocals_are_the_difference(tmp_path, caplog):
    waves = {}
    for folder, names in (("mixtures", "abd"), ("instrumentals", "bac")):
        for name in names:
            waves[folder, name] = noise(seed=len(waves))
            suffix = "wav" if folder == "mixtures" else "flac"
            write(tmp_path / folder / "x" / f"{name}.{suffix}", waves[folder, name])
    with caplog.at_level(logging.WARNING):
        tracks = {track.name: track for track in find_tracks(tmp_path)}
    assert set(tracks) == {"x/a", "x/b"}
    assert "d.wav: has no file of the same name in instrumentals/" in caplog.text
    assert "c.flac: has no file of the same name in mixtures/" in caplog.text
    stems = load_stems(tracks["x/b"], RATE)
    instrumental = waves["instrumentals", "b"]
    assert torch.allclose(stems["accompaniment"], instrumental, atol=1e-6)
    assert torch.allclose(stems["vocals"], waves["mixtures", "b"] - instrumental, atol=1e-6)


def test_pairs_of_different_length_are_refused(tmp_path):
    write(tmp_path / "mixtures" / "a.wav", noise(4.0))
    write(tmp_path / "instrumentals" / "a.wav", noise(2.5))
    with pytest.raises(SeparatorError, match=r"lasts 2\.5 s, a\.wav 4\.0 s"):
        find_tracks(tmp_path)


def test_pools_are_halves_for_training_and_fixed_pairs_for_validation(tmp_path):
    for i in range(12):
        write(tmp_path / "instrumentals" / f"i{i}.wav", noise(0.5, seed=i))
        write(tmp_path / "vocals" / f"v{i}.wav", noise(0.3, seed=50 + i))
    tracks = find_tracks(tmp_path, valid_share=0.25)
    assert {track.kind for track in tracks} == {"pool"}
    train = [track for track in tracks if track.split == "train"]
    valid = [track for track in tracks if track.split == "valid"]
    assert {track.names for track in train} == {("accompaniment",), ("vocals",)}
    used = {source.path for track in train for _, group in track.stems for source in group}
    assert valid
    for track in valid:
        assert track.seconds == pytest.approx(0.3)
        stems = load_stems(track, RATE)
        (song,), (voice,) = (group for _, group in track.stems)
        assert not used & {song.path, voice.path}
        assert torch.equal(stems["accompaniment"], audio.read(song.path)[:, :2400])
        assert torch.equal(stems["vocals"], audio.read(voice.path))


def test_a_library_has_mixtures_only_and_says_what_it_leaves_out(tmp_path, caplog):
    wave = noise(3.0, channels=1)
    write(tmp_path / "album" / "song.flac", wave)
    write(tmp_path / "silence.wav", torch.zeros(2, 3 * RATE))
    (tmp_path / "broken.mp3").write_text("not audio")
    write(tmp_path / "PR - Oh No.wav", noise(1.0))
    with caplog.at_level(logging.WARNING):
        track = only(find_tracks(tmp_path))
    assert (track.kind, track.names) == ("library", ("mixture",))
    for kind in ("silent 1", "not audio 1", "test song 1", "separator scan --report FILE"):
        assert kind in caplog.text
    stems = load_stems(track, RATE, start=5, samples=100)
    assert torch.allclose(stems["mixture"], wave[:, 5:105].repeat(2, 1), atol=1e-6)
    assert stem_names([track]) == ("mixture",)


# Reading at another rate


@pytest.mark.parametrize("seconds", [3.0, 31.0])  # kept whole in memory, and sliced on disk
@pytest.mark.parametrize(("from_rate", "to_rate"), [(8000, 11025), (11025, 8000), (8000, 8000)])
def test_a_resampled_slice_equals_that_slice_of_the_whole(tmp_path, seconds, from_rate, to_rate):
    path = write(tmp_path / "a.wav", noise(seconds, from_rate, channels=1), from_rate)
    source = Source(path, round(seconds * from_rate), from_rate)
    whole = audio.resample(audio.read(path), from_rate, to_rate).repeat(2, 1)
    reader = Reader(to_rate, memory_mb=1)
    total = whole.shape[1]
    for start, count in ((0, 1000), (1, 7), (total // 2 + 3, 5000), (total - 999, 999)):
        part = reader.read(source, start, count)
        assert part.shape == (2, count)
        assert torch.allclose(part, whole[:, start : start + count], atol=2e-5)
    assert torch.equal(reader.read(source, 10, 10), reader.read(source, 10, 10))


def test_memory_stays_within_its_limit(tmp_path):
    reader = Reader(RATE, memory_mb=0.3)
    for i in range(8):
        wave = noise(1.0, seed=i)  # 64 kB
        path = write(tmp_path / f"{i}.wav", wave)
        assert torch.equal(reader.read(Source(path, RATE, RATE), 0, RATE), wave)
    assert reader._used == sum(song.nbytes for song in reader._songs.values()) <= 300_000
    assert len(reader._songs) == 4


def test_files_that_break_off_or_hold_nan_are_errors_never_zeros(tmp_path):
    path = write(tmp_path / "a.wav", noise(1.0))
    with pytest.raises(SeparatorError, match="cut off"):
        Reader(RATE).read(Source(path, 3 * RATE, RATE), 0, 3 * RATE)
    bad = noise(1.0)
    bad[1, 100] = float("nan")
    path = write(tmp_path / "b.wav", bad)
    with pytest.raises(SeparatorError, match="NaN or infinite"):
        Reader(RATE).read(Source(path, RATE, RATE), 0, RATE)


# MUSDB18


@pytest.fixture(scope="module")
def musdb_roots(shared_data, tmp_path_factory) -> dict[str, Path]:
    if shutil.which("ffmpeg") is None:
        pytest.skip("needs the ffmpeg program")
    roots = {}
    for kind, options in (("musdb18", []), ("musdb18hq", ["--hq"])):
        roots[kind] = tmp_path_factory.mktemp(kind)
        command = [sys.executable, str(shared_data / "make_musdb.py"), str(roots[kind])]
        subprocess.run([*command, "--songs", "3", *options], check=True)
    for root, suffix in ((roots["musdb18"], ".stem.mp4"), (roots["musdb18hq"], "")):
        third = next((root / "train").glob("*Easy Tiger*"))
        third.rename(third.with_name(OFFICIAL + suffix))
    return roots


def test_musdb18_has_the_official_split_and_musdbs_samples(musdb_roots, tmp_path, monkeypatch):
    import musdb

    monkeypatch.setenv("SEPARATOR_CACHE", str(tmp_path))
    root = musdb_roots["musdb18"]
    before = sorted(root.rglob("*"))
    tracks = find_tracks(root)
    assert detect_layout(root).name == "musdb18"
    assert list(split_of(tracks).values()) == ["train", "train", "valid"]
    official = musdb.DB(root=str(root), subsets="train").tracks[0]
    stems = load_stems(tracks[0], 44100, names=FOUR_STEMS.names)
    for name in FOUR_STEMS.names:
        expected = official.sources[name].audio.T
        got = stems[name].double().numpy()[:, : expected.shape[1]]
        error = np.abs(np.clip(got, -1, 1) - expected)  # musdb clips
        assert error.max() < 2 / 32768 and (error > 0).mean() < 0.01  # two builds of FFmpeg
    part = load_stems(tracks[0], 44100, start=12345, samples=1000, names=FOUR_STEMS.names)
    assert torch.equal(part["bass"], stems["bass"][:, 12345:13345])
    assert sorted(root.rglob("*")) == before
    files = list((tmp_path / "stems").rglob("*.*"))
    assert len(files) == 4


def test_each_stem_is_the_stream_that_stempeg_reads(example_stem, tmp_path, monkeypatch):
    if shutil.which("ffmpeg") is None:
        pytest.skip("needs the ffmpeg program")
    import stempeg

    monkeypatch.setenv("SEPARATOR_CACHE", str(tmp_path / "cache"))
    (tmp_path / "root" / "train").mkdir(parents=True)
    shutil.copy(example_stem, tmp_path / "root" / "train" / "A - Song.stem.mp4")
    track = find_tracks(tmp_path / "root")[0]
    stems = load_stems(track, 44100, names=FOUR_STEMS.names)
    for number, name in enumerate(("drums", "bass", "other", "vocals"), 1):
        expected = stempeg.read_stems(str(example_stem), stem_id=number)[0].T
        got = stems[name].double().numpy()[:, : expected.shape[1]]
        assert np.abs(got - expected).max() < 2 / 32768, name


def test_musdb18hq_equals_its_files(musdb_roots):
    root = musdb_roots["musdb18hq"]
    tracks = find_tracks(root)
    assert {(track.kind, track.names) for track in tracks} == {("musdb18hq", FOUR_STEMS.names)}
    assert list(split_of(tracks).values()) == ["train", "train", "valid"]
    wave = audio.read(root / "train" / tracks[1].name / "bass.wav")
    assert torch.equal(load_stems(tracks[1], 44100, names=FOUR_STEMS.names)["bass"], wave)


# The cache


def test_the_cache_is_keyed_by_content_bounded_and_heals(
    example_stem, tmp_path, caplog, monkeypatch
):
    monkeypatch.setenv("PATH", "")  # no ffmpeg
    songs = [tmp_path / f"{i}.stem.mp4" for i in range(2)]
    for song in songs:
        shutil.copy(example_stem, song)
    cache = StemCache(folder=tmp_path / "cache")
    first = cache.path(songs[0], 4)
    made = first.stat().st_mtime_ns
    assert cache.path(songs[1], 4) == first  # another path, the same content
    assert first.stat().st_mtime_ns == made
    assert len(list(first.parent.iterdir())) == 4
    first.write_bytes(b"damaged")
    size = audio.probe(next(first.parent.glob("1.*"))).samples
    wave = Reader(44100, cache).read(Source(songs[0], size, 44100, 4), 0, size)
    assert wave.abs().max() > 0
    assert audio.probe(first).samples == size

    older, newer = cache.folder / "older", cache.folder / "newer"
    for place, entry in enumerate((older, newer)):
        entry.mkdir()
        (entry / "1.flac").write_bytes(bytes(1_000_000))
        used = time.time() - 100 + 10 * place
        os.utime(entry, (used, used))
    held = sum(file.stat().st_size for file in first.parent.iterdir())
    cache.limit = held + 1_500_000
    with caplog.at_level(logging.WARNING):
        cache._evict(keep=first.parent)
    assert not older.exists()
    assert newer.exists()
    assert first.exists()
    assert "data.cache_gb" in caplog.text


def test_a_broken_stem_file_is_one_line(tmp_path):
    song = tmp_path / "train" / "a.stem.mp4"
    song.parent.mkdir()
    song.write_bytes(b"\0" * 5000)
    with pytest.raises(SeparatorError) as caught:
        find_tracks(tmp_path)
    assert "a.stem.mp4" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_cache_takes_names_that_are_no_text(example_stem, tmp_path):
    song = tmp_path / os.fsdecode(b"caf\xe9.stem.mp4")
    shutil.copy(example_stem, song)
    cache = StemCache(folder=tmp_path)
    assert cache.entry(song) == cache.entry(song) == cache.entry(example_stem)


def test_a_cache_that_cannot_be_written_says_where(example_stem, tmp_path):
    (tmp_path / "keys").write_text("in the way of a folder")
    with pytest.raises(SeparatorError, match="SEPARATOR_CACHE"):
        StemCache(folder=tmp_path).path(example_stem, 1)


@pytest.mark.parametrize(
    "note", [b"../../precious", b"/etc", b"", b"\xff\xfe", b"0" * 63, b"0" * 64 + b"/..", b"x" * 64]
)
def test_a_note_of_the_cache_that_is_no_key_leads_nowhere(example_stem, tmp_path, note):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "1.flac").write_text("not ours")
    cache = StemCache(folder=tmp_path / "cache")
    entry = cache.entry(example_stem)
    (path,) = cache.keys.iterdir()
    path.write_bytes(note)
    assert cache.entry(example_stem) == entry and entry.parent == cache.folder
    assert len(path.read_text()) == 64
    assert (precious / "1.flac").read_text() == "not ours"


def test_a_file_in_the_place_of_a_cache_entry_is_replaced(example_stem, tmp_path):
    cache = StemCache(folder=tmp_path)
    entry = cache.entry(example_stem)
    entry.parent.mkdir(parents=True)
    entry.write_text("no folder")
    samples = audio.probe(example_stem, stream=2).samples
    assert audio.probe(cache.path(example_stem, 2)).samples == samples


def test_a_full_disk_is_named_only_where_it_is_full(tmp_path):
    for number, words in ((errno.ENOSPC, "make room there or set"), (errno.EROFS, "; set")):
        with pytest.raises(SeparatorError) as raised, StemCache(folder=tmp_path)._storing():
            raise OSError(number, os.strerror(number))
        assert words in str(raised.value)
        assert ("room" in str(raised.value)) == (number == errno.ENOSPC)


def test_nan_in_stems_never_reaches_a_batch(tmp_path, caplog):
    from separator.data.config import DataConfig
    from separator.data.dataset import batches

    for song in "ab":
        for stem in ("vocals", "drums"):
            wave = noise(2.0, seed=ord(song))
            if (song, stem) == ("b", "vocals"):
                wave[:, ::50] = float("nan")
            write(tmp_path / song / f"{stem}.wav", wave)
    tracks = find_tracks(tmp_path)
    config = DataConfig([str(tmp_path)], segment_seconds=0.5, batch=4, workers=0)
    with caplog.at_level(logging.WARNING):
        batch = next(batches(tracks, config, RATE, 0))
    assert batch.stems.isfinite().all() and set(batch.songs.tolist()) == {0}
    assert "b/vocals.wav: has NaN or infinite samples" in caplog.text
    lost = [track for track in tracks if track.name == "b"]
    with pytest.raises(SeparatorError, match="too many unreadable files in a row; the last: "):
        next(batches(lost, config, RATE, 0))

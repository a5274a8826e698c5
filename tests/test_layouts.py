"""What folders are taken for: stems by their files' names, splits by folders, other layouts."""

import logging
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from separator.data import layouts
from separator.data.layouts import LAYOUTS, describe_layout, detect_layout
from separator.data.reader import load_stems
from separator.data.splits import FOLDERS, placed, split_of
from separator.data.stem_files import holds_stems, role, sorted_stems, table, unclear
from separator.data.tracks import find_tracks
from separator.errors import SeparatorError

RATE = 8000


def wave(seed: int, seconds: float = 0.1) -> np.ndarray:
    """(t c) noise that 16 bits hold exactly, in sums too."""
    steps = np.random.default_rng(seed).integers(-2000, 2000, (round(seconds * RATE), 2))
    return (steps / 32768).astype("float32")


def write(path: Path, samples: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(
        path, wave(zlib.crc32(bytes(path))) if samples is None else samples, RATE, "PCM_16"
    )
    return path


def touch(root: Path, *places: str) -> None:
    for place in places:
        path = root / f"{place}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def songs(root: Path, *places: str) -> None:
    for place in places:
        for name in ("vocals", "instrumental"):
            write(root / place / f"{name}.wav")


def splits(root: Path, kind: str = "auto", share: float = 0.1) -> dict[str, set[str]]:
    """The names of the songs of each split."""
    found: dict[str, set[str]] = {}
    for track in find_tracks(root, kind, valid_share=share):
        found.setdefault(track.split, set()).add(track.name)
    return found


def sums(stems: dict) -> dict[str, list[str]]:
    """For each stem the files' names, with a sign where one is subtracted."""
    return {
        stem: sorted(("-" if file.gain < 0 else "") + file.path.stem for file in files)
        for stem, files in stems.items()
    }


# Names of stems


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("vocals Vocal vox VOCALS vocals_2 01_vocals", "vocals"),
        ("lead_vocals lead-vocals LeadVox backing_vocals BackingVox1 bgvox voices", "vocals"),
        ("male_vocals choir harmony_vocals acapella Acappella vocals_dry", "vocals"),
        (
            "instrumental no_vocals NoVocals minus_vocals accompaniment Backing_Track",
            "accompaniment",
        ),
        ("mixture mix linear_mixture mixdown Full_Mix master", "mixture"),
        ("drums DRUMS Drum drums_1", "drums"),
        ("bass bass2", "bass"),
        ("other Others", "other"),
    ],
)
def test_the_names_that_people_give_to_stems_are_known(names: str, expected: str):
    for name in names.split():
        assert role(name) == (expected, True), name


@pytest.mark.parametrize("name", ["guitar", "lead", "kick_in", "Devocalise", "bassoon", "", "01"])
def test_other_names_are_further_instruments(name: str):
    assert role(name) == ("other", False)


def test_a_word_that_says_vocals_among_others_counts_and_is_told(tmp_path, caplog):
    assert role("Vocals for Anna") == ("vocals", False)
    stems = sorted_stems({n: Path(f"{n}.wav") for n in ("vocals", "drums", "vocals for Anna")})
    assert sums(stems)["vocals"] == ["vocals", "vocals for Anna"]
    assert unclear(stems) == [Path("vocals for Anna.wav")]
    touch(tmp_path, "s/vocals", "s/drums", "s/vocals for Anna")
    list(LAYOUTS["stems"].find(tmp_path, []))
    assert "vocals for Anna.wav: counts as vocals, for its name; is it?" in caplog.text


@pytest.mark.parametrize(
    ("files", "stems"),
    [
        (
            "mixture vocals drums",
            {"accompaniment": ["-vocals", "mixture"], "vocals": ["vocals"]},
        ),
        (
            "mixture lead_vocals backing_vocals bass other",
            {
                "accompaniment": ["-backing_vocals", "-lead_vocals", "mixture"],
                "vocals": ["backing_vocals", "lead_vocals"],
            },
        ),
        (
            "mix vocals instrumental drums",
            {"accompaniment": ["instrumental"], "vocals": ["vocals"]},
        ),
        (
            "vocals backing_vocals drums bass other",
            {
                **{"drums": ["drums"], "bass": ["bass"], "other": ["other"]},
                "vocals": ["backing_vocals", "vocals"],
            },
        ),
        (  # the plain one is the sum of the two others
            "vocals lead_vocals backing_vocals instrumental",
            {"accompaniment": ["instrumental"], "vocals": ["vocals"]},
        ),
        (
            "master vox",
            {"accompaniment": ["-vox", "master"], "vocals": ["vox"]},
        ),
    ],
)
def test_which_files_are_summed_and_subtracted(files: str, stems: dict):
    assert sums(sorted_stems({name: Path(f"{name}.wav") for name in files.split()})) == stems


def test_some_stems_beside_a_mixture_are_not_the_accompaniment(tmp_path):
    waves = {name: wave(k) for k, name in enumerate(("vocals", "drums", "bass", "other"))}
    for name in ("vocals", "drums"):
        write(tmp_path / "s" / f"{name}.wav", waves[name])
    write(tmp_path / "s" / "mixture.wav", sum(waves.values()))
    (track,) = find_tracks(tmp_path)
    expected = torch.from_numpy(waves["drums"] + waves["bass"] + waves["other"]).T
    assert torch.allclose(load_stems(track, RATE)["accompaniment"], expected, atol=1e-6)


@pytest.mark.parametrize(
    "names",
    [["The Voice", "Drums"], ["Voices"], ["Lead Vocals"], ["Song (Vocals)", "Song (Instrumental)"]],
)
def test_songs_called_like_a_voice_are_no_stems(names: list[str]):
    assert not holds_stems(names)
    assert sorted_stems({name: Path(name) for name in names}) is None


def test_the_table_says_of_which_files_stems_consist(tmp_path, caplog):
    songs(tmp_path, "train/a", "train/b", "test/c")
    write(tmp_path / "train/b/backing_vocals.wav")
    with caplog.at_level(logging.INFO):
        find_tracks(tmp_path)
    expected = "accompaniment = instrumental (3); vocals = vocals (2), vocals + backing_vocals (1)"
    assert f"{tmp_path}: {expected}" in caplog.text
    assert describe_layout(tmp_path) == (
        f"{tmp_path}: musdb18hq, 3 songs (not split 2, test 1); {expected}"
    )
    assert table([{"vocals": ()}] * 0) == ""


def test_of_two_files_of_one_name_the_first_counts_and_the_other_is_told(tmp_path, caplog):
    songs(tmp_path, "a")
    write(tmp_path / "a" / "Vocals.flac")
    (track,) = find_tracks(tmp_path)
    assert sums(dict(track.stems))["vocals"] == ["Vocals"]
    assert "vocals.wav: Vocals.flac has the same name and is taken" in caplog.text


# Names of splits


def test_split_names_in_any_case_and_with_a_word_behind():
    for split, names in FOLDERS.items():
        for name in names:
            for spelled in (
                name,
                name.upper(),
                f"{name.title()} set",
                f"{name}-data",
                f"{name}Set",
            ):
                assert split_of(spelled) == split, spelled
    for other in ("trainer", "Testament", "valentine", "devo", "mixtures", "eval", "test2", ""):
        assert split_of(other) is None, other


@pytest.mark.parametrize(
    ("train", "valid", "test"),
    [
        ("train", "validation", "test"),
        ("Train", "Valid", "Test"),
        ("TRAINING", "Val", "testing"),
        ("train_set", "dev", "Test Songs"),
        ("MUSDB/train", "MUSDB/validation", "MUSDB/test"),
    ],
)
def test_held_out_songs_never_train(tmp_path, train: str, valid: str, test: str):
    songs(tmp_path, f"{train}/a", f"{train}/artist/b", f"{valid}/c", f"{test}/d")
    below = "MUSDB/" if "/" in train else ""
    assert splits(tmp_path, share=0.9) == {
        "train": {f"{below}a", f"{below}artist/b"},
        "valid": {f"{below}c"},
        "test": {f"{below}d"},
    }


@pytest.mark.parametrize("folder", ["eval", "test2", "holdout", "valid-new", "Held_Out"])
@pytest.mark.parametrize("kind", ["stems", "library"])
def test_a_folder_named_like_a_split_and_not_understood_is_an_error(tmp_path, folder: str, kind):
    songs(tmp_path, "train/a", f"{folder}/b")
    with pytest.raises(SeparatorError) as raised:
        find_tracks(tmp_path, kind)
    assert str(raised.value) == (
        f"{tmp_path}: {folder}/: named like a split, but not understood; rename them to train, "
        "valid (or validation, val, dev) and test"
    )


def test_two_folders_named_like_splits_are_an_error_without_a_third(tmp_path):
    songs(tmp_path, "train1/a", "eval/b")
    with pytest.raises(SeparatorError, match="eval/, train1/: named like a split"):
        find_tracks(tmp_path)


@pytest.mark.parametrize("place", ["Test 1", "Train of Thought/x", "fold/x", "artist/eval/x"])
def test_songs_and_artists_may_be_called_like_splits(tmp_path, place: str):
    songs(tmp_path, "a", "b", place)
    assert sum(map(len, splits(tmp_path).values())) == 3


def test_splits_below_a_data_set_need_two_sides():
    root = Path("/r")
    artist = {("Rock", "Train", "song"): None, ("Rock", "Dylan", "song"): None}
    assert placed(root, artist) == artist
    folders = {("A", "train", "x"): "train", ("A", "Test", "x"): "test", ("B", "y"): None}
    assert placed(root, folders) == folders


@pytest.mark.parametrize("train", ["training", "Train"])
def test_splits_around_and_inside_pairs_and_pools(tmp_path, train: str):
    for split, names in ((train, "ab"), ("validation", "c"), ("test", "d")):
        for name in names:
            for side in ("Mixtures", "instruments"):
                write(tmp_path / "around" / split / side / f"{name}.wav")
            for side in ("instrumentals", "vocals"):
                write(tmp_path / "inside" / side / split / f"{name}.wav")
    assert detect_layout(tmp_path / "around").name == "pairs"
    assert splits(tmp_path / "around") == {"train": {"a", "b"}, "valid": {"c"}, "test": {"d"}}
    assert detect_layout(tmp_path / "inside").name == "pool"
    assert splits(tmp_path / "inside") == {
        "train": {f"{side}/{name}" for side in ("instrumentals", "vocals") for name in "ab"},
        "valid": {"instrumentals/c with vocals/c"},
        "test": {"instrumentals/d with vocals/d"},
    }


def test_a_library_in_splits_keeps_them_and_a_band_called_train_is_none(tmp_path):
    for k, place in enumerate(("train/a", "train/b", "validation/c", "Test/d")):
        write(tmp_path / "m" / f"{place}.wav", wave(k))
    assert splits(tmp_path / "m") == {
        "train": {"train/a.wav", "train/b.wav"},
        "valid": {"validation/c.wav"},
        "test": {"Test/d.wav"},
    }
    write(tmp_path / "m/Abba/e.wav", wave(9))
    found = splits(tmp_path / "m")
    assert found.keys() == {"train", "valid"}
    assert {"Test/d.wav", "validation/c.wav", "Abba/e.wav"} <= set().union(*found.values())


@pytest.mark.parametrize("kind", ["stems", "pool"])
def test_songs_of_musdb18s_test_set_are_held_out_of_any_collection(tmp_path, kind: str):
    names = ["Zeno - Signs", "a", "b"]
    if kind == "stems":
        songs(tmp_path, *names)
    else:
        for side in ("instrumentals", "vocals"):
            for name in names:
                write(tmp_path / side / f"{name}.wav")
    found = splits(tmp_path, kind)
    assert len(found["test"]) == 1 and "Zeno - Signs" in found["test"].pop()
    assert not any("Zeno" in name for name in found["train"] | found["valid"])


def test_test_songs_among_those_for_training_are_told(tmp_path, caplog):
    songs(tmp_path, "train/Zeno - Signs", "train/a", "valid/b")
    assert splits(tmp_path)["train"] == {"Zeno - Signs", "a"}
    assert "folders for training: 1, such as Zeno - Signs; a model trained on them" in caplog.text


def test_a_root_called_test_is_told(tmp_path, caplog):
    songs(tmp_path, "Test/a", "Test/b")
    find_tracks(tmp_path / "Test")
    assert "songs that are held out; give the folder above it" in caplog.text
    caplog.clear()
    assert splits(tmp_path) == {"test": {"a", "b"}}
    assert "named like" not in caplog.text


# Layouts


@pytest.mark.parametrize("place", ["Train", "MUSDB18/train", "Test", "."])
def test_musdb18_is_known_wherever_it_lies(tmp_path, place: str):
    folder = tmp_path / place
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("A - B.stem.mp4", "._A - B.stem.mp4"):  # the second is a Mac's note, no song
        (folder / name).touch()
    os.mkfifo(folder / "pipe.stem.mp4")
    assert detect_layout(tmp_path).name == "musdb18"
    (song,) = LAYOUTS["musdb18"].find(tmp_path, [])
    assert song.name.removeprefix("MUSDB18/").removeprefix("train/") == "A - B"
    assert song.split == {"Test": "test"}.get(place)


@pytest.mark.parametrize(
    "places",
    [
        ["vocals/a", "instrumentals/b", *(f"album {k}/x" for k in range(5))],
        ["mixtures/a", "instrumentals/a", *(f"album {k}/x" for k in range(5))],
        ["song.stem.mp4", *(f"album {k}/x" for k in range(5))],
        ["song/vocals", "song/drums", *(f"song {k}" for k in range(5))],
        ["mixtures/a", "vocals/a"],
    ],
)
def test_a_folder_s_name_among_a_library_is_not_its_layout(tmp_path, places: list[str]):
    touch(tmp_path, *places)
    if (tmp_path / "song.stem.mp4.wav").exists():
        (tmp_path / "song.stem.mp4.wav").rename(tmp_path / "song.stem.mp4")
    assert detect_layout(tmp_path).name == "library"


def test_folders_of_stems_beside_pairs_do_not_make_them_a_library(tmp_path):
    sides = ("mixtures", "instrumentals", "vocals", "drums", "bass", "other")
    touch(tmp_path, *(f"{side}/{name}" for side in sides for name in "ab"))
    assert detect_layout(tmp_path).name == "pairs"


@pytest.mark.parametrize("place", ["{stem}/{song}", "{song}/{stem}/take"])
def test_stems_in_a_layout_that_is_not_known_are_told(tmp_path, caplog, place: str):
    for stem in ("vocals", "drums", "bass", "other"):
        for song in "ab":
            write(tmp_path / f"{place.format(stem=stem, song=song)}.wav")
    assert find_tracks(tmp_path)[0].kind == "library"
    assert "8 of 8 files lie in folders named after stems" in caplog.text


def test_files_outside_a_layout_are_counted(tmp_path, caplog):
    for place in ("instrumentals/a", "instrumentals/b", "vocals/c", "vocals/d", "bonus/e"):
        write(tmp_path / f"{place}.wav")
    assert find_tracks(tmp_path)[0].kind == "pool"
    assert "left out: 1 audio file outside instrumentals/ and vocals/" in caplog.text


def test_a_stem_that_ends_early_is_told(tmp_path, caplog):
    songs(tmp_path, "a")
    write(tmp_path / "a/vocals.wav", wave(0, 4.0))
    write(tmp_path / "a/instrumental.wav", wave(1, 2.5))
    (track,) = find_tracks(tmp_path)
    assert track.seconds == 2.5
    assert "instrumental.wav: lasts 2.5 s, vocals.wav 4.0 s" in caplog.text


def test_an_mp4_of_one_stream_is_no_song_of_musdb18(tmp_path):
    from separator import audio

    with audio.Writer(tmp_path / "a.m4a", 44100, 2) as writer:
        writer.write(torch.zeros(2, 44100) + 0.1)
    (tmp_path / "a.m4a").rename(tmp_path / "a.stem.mp4")
    with pytest.raises(SeparatorError, match="has 1 of the 5 audio streams"):
        find_tracks(tmp_path)


# Messages about roots


def test_one_song_is_told_what_helps(tmp_path):
    from separator.data.config import DataConfig
    from separator.data.tracks import training_tracks

    songs(tmp_path, "only")
    with pytest.raises(SeparatorError, match="there is 1 song, but training needs one"):
        training_tracks(DataConfig([str(tmp_path)]))
    songs(tmp_path, "second")
    with pytest.raises(SeparatorError, match=r"set data\.valid_share between 0 and 1"):
        training_tracks(DataConfig([str(tmp_path)], valid_share=0))


def test_a_name_that_yaml_cut_is_to_be_quoted(tmp_path):
    (tmp_path / "h #1").mkdir()
    with pytest.raises(SeparatorError) as raised:
        find_tracks(tmp_path / "h")
    assert str(raised.value) == (
        f"{tmp_path}/h: no such folder; 'h #1' is there, and YAML ends a value at \" #\"; quote "
        'it: data.roots=["h #1"]'
    )
    write(tmp_path / "song.wav")
    with pytest.raises(
        SeparatorError, match=r"song\.wav: is a file, not a folder; give the folder"
    ):
        find_tracks(tmp_path / "song.wav")


# Nothing outside the folders


def test_odd_names_stay_names(tmp_path, monkeypatch):
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    odd = ["..x", "a..b", "..\\up", "a\nforged: line", "\x1b[2J", "%2e%2e%2fup"]
    names = [name for name in odd if not name.startswith(".")]
    root = tmp_path / "m"
    songs(root, *names)
    before = sorted(tmp_path.rglob("*"))
    found = splits(root)
    assert set().union(*found.values()) == set(names)
    assert sorted(tmp_path.rglob("*")) == before


# The registry

FLAT = """
from pathlib import Path

from separator.data.layouts.layout import Layout, SongFiles
from separator.data.stem_files import StemFile


class Flat(Layout):
    name, order = "flat", 5

    def detect(self, root, files):
        return bool(files) and all("_" in path.stem for path in files)

    def find(self, root, skipped):
        songs = sorted({path.stem.split("_")[0] for path in root.iterdir()})
        return [
            SongFiles(song, "train", {
                "accompaniment": (StemFile(root / f"{song}_music.wav"),),
                "vocals": (StemFile(root / f"{song}_voice.wav"),),
            })
            for song in songs
        ]


LAYOUTS = (Flat(),)
"""


def test_a_new_layout_is_one_module(tmp_path, monkeypatch):
    (tmp_path / "package").mkdir()
    (tmp_path / "package/flat_files.py").write_text(FLAT)
    monkeypatch.setattr(layouts, "__path__", [*layouts.__path__, str(tmp_path / "package")])
    monkeypatch.setattr(layouts, "LAYOUTS", layouts._registered())
    for name in ("a_music", "a_voice", "b_music", "b_voice"):
        write(tmp_path / "songs" / f"{name}.wav")
    tracks = find_tracks(tmp_path / "songs")
    assert [(t.name, t.kind, t.split, t.names) for t in tracks] == [
        (name, "flat", "train", ("accompaniment", "vocals")) for name in "ab"
    ]
    voice = soundfile.read(tmp_path / "songs/b_voice.wav", dtype="float32")[0]
    assert np.array_equal(load_stems(tracks[1], RATE)["vocals"].numpy().T, voice)


def test_the_guide_lists_every_layout():
    guide = (Path(__file__).parents[1] / "docs/guide/data.md").read_text(encoding="utf-8")
    assert [name for name in LAYOUTS if f"`{name}`" not in guide] == []

"""Songs that a library holds with and without vocals: found by names, judged by sound."""

from pathlib import Path

import pytest
import torch
from mutagen.flac import FLAC
from torch import Tensor

from separator import audio, cli
from separator.data.alignment import align, first_sings
from separator.data.corpus import song
from separator.data.pairs import Pair, suggested_pairs, write_pairs
from separator.data.reader import load_stems
from separator.data.tracks import find_tracks
from separator.errors import SeparatorError

RATE = 44100


@pytest.fixture(scope="module")
def stems() -> tuple[Tensor, Tensor]:
    """Music and voice of a song of twelve seconds."""
    parts = {name: torch.from_numpy(wave).float() for name, wave in song(12.0, 7).items()}
    return parts["drums"] + parts["bass"] + parts["other"], parts["vocals"]


def write(path: Path, wave: Tensor, rate: int = RATE, **tags: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with audio.Writer(path, rate, wave.shape[0]) as writer:
        writer.write(wave)
    if tags:
        file = FLAC(path)
        file.update(tags)
        file.save()
    return path


def no_voice(wave: Tensor, rate: int) -> Tensor:
    return torch.zeros_like(wave)


def pairs_of(*paths: Path) -> list[tuple[str, str, str]]:
    found = suggested_pairs([audio.probe(path) for path in paths])
    return [(p.original.path.name, p.instrumental.path.name, p.name) for p in found]


@pytest.mark.parametrize(
    ("original", "instrumental"),
    [
        ("01 Sky.flac", "07 Sky (Instrumental).flac"),
        ("Sky.flac", "Sky [Karaoke Version].flac"),
        ("Sky.flac", "Sky - instrumental.flac"),
        ("Sky.flac", "Sky ～off vocal ver～.flac"),  # noqa: RUF001
        ("空.flac", "空(カラオケ).flac"),
        ("Sky (Live).flac", "sky (live) (inst.).flac"),
    ],
)
def test_names_suggest_pairs(tmp_path: Path, original: str, instrumental: str):
    wave = torch.rand(2, 4000) * 0.1
    paths = [write(tmp_path / name, wave) for name in (original, instrumental)]
    if "ver" in instrumental:  # what is beside the mark and in no brackets stays in the title
        assert pairs_of(*paths) == []
        return
    assert pairs_of(*paths) == [(original, instrumental, Path(original).stem)]


def test_tags_suggest_pairs_in_any_folder_and_other_artists_do_not(tmp_path: Path):
    wave = torch.rand(2, 4000) * 0.1
    paths = [
        write(tmp_path / "a" / "1.flac", wave, title="Sky", artist="Ann"),
        write(tmp_path / "b" / "2.flac", wave, title="Sky (Instrumental)", artist="Ann"),
        write(tmp_path / "c" / "3.flac", wave, title="Sky", artist="Ann", album="Instrumentals"),
        write(tmp_path / "d" / "4.flac", wave, title="Sky (Instrumental)", artist="Bob"),
        write(tmp_path / "d" / "5.flac", wave, title="Instrumental", artist="Bob"),
    ]
    assert pairs_of(*paths) == [("1.flac", "2.flac", "1"), ("1.flac", "3.flac", "1 2")]


def test_the_original_nearest_in_length_is_taken_and_names_differ(tmp_path: Path):
    paths = [
        write(tmp_path / "x" / "Sky.flac", torch.rand(1, 8000), artist="Ann", title="Sky"),
        write(tmp_path / "y" / "Sky.flac", torch.rand(1, 4000), artist="Ann", title="Sky"),
        write(tmp_path / "z.flac", torch.rand(1, 4100), artist="Ann", title="Sky (inst)"),
    ]
    found = suggested_pairs([audio.probe(path) for path in paths])
    assert [pair.original.path.parent.name for pair in found] == ["y"]


@pytest.mark.parametrize("shift", [0, 1, 777, -30000])
def test_shift_and_gain_are_found(stems: tuple[Tensor, Tensor], shift: int):
    music, voice = stems
    late, early = max(0, shift), max(0, -shift)
    first = torch.nn.functional.pad(music + voice, (late, 0))
    second = 0.6 * torch.nn.functional.pad(music, (early, 0))
    found = align(first, second, RATE)
    assert found.shift == shift
    assert found.gain == pytest.approx(1 / 0.6, rel=0.03)
    assert found.best_db < -15


def test_the_drift_that_is_allowed_is_a_time(
    stems: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
):
    music, voice = stems[0], 0.1 * stems[1]
    monkeypatch.setattr("separator.data.alignment.POSITION_SECONDS", 2.0)
    second = torch.cat([music[:, : 6 * RATE], music[:, 6 * RATE - 3 :]], dim=1)
    align(music + voice, second[:, : music.shape[1]], 2 * RATE)
    with pytest.raises(SeparatorError, match="do not align"):
        align(music + voice, second[:, : music.shape[1]], RATE)


def test_what_is_no_pair_is_refused(stems: tuple[Tensor, Tensor]):
    music, voice = stems
    other = torch.from_numpy(song(12.0, 8)["other"]).float()
    cases = {
        "another recording": (music + voice, other),
        "both are the same": (music, 0.5 * music),
        "another": (music + voice, audio.resample(music, 44100, 44000)),
        "nearly silent": (music * 1e-4, music * 1e-4),
        "too short": (music[:, :40000] + voice[:, :40000], music[:, :40000]),
        "hardly any": (torch.zeros(1, 5 * RATE), torch.zeros(1, 15 * RATE)),
    }
    for told, (first, second) in cases.items():
        with pytest.raises(SeparatorError, match=told):
            align(first, second, RATE)


def test_a_scan_writes_pairs_that_train_reads(
    tmp_path: Path, stems: tuple[Tensor, Tensor], capsys: pytest.CaptureFixture
):
    music, voice = stems
    library = tmp_path / "music"
    late = torch.nn.functional.pad(music + voice, (5000, 0))
    write(library / "Sky.mp3", late)  # lossy, with the encoder's delay
    write(library / "Sky (Instrumental).flac", audio.resample(music, RATE, 48000), 48000)
    write(library / "Sea.flac", torch.from_numpy(song(12.0, 8)["bass"]).float() + voice)
    write(library / "Sea (Karaoke).flac", torch.from_numpy(song(12.0, 9)["other"]).float())
    folder = tmp_path / "pairs"
    words = ["scan", str(library), "--pairs", str(folder), "--index", str(tmp_path / "index")]
    assert cli.main(["scan", str(library), "--pairs", str(library / "Sky.mp3")]) == 2
    assert "Sky.mp3 is a file; give a folder" in capsys.readouterr().err
    assert cli.main([*words, "--jobs", "1"]) == 0
    said = capsys.readouterr().out
    assert f"Sea (Karaoke).flac and {library / 'Sea.flac'}: another recording" in said
    assert "pairs        1 of 2 that names or sound suggest" in said
    first = {path: path.stat().st_mtime_ns for path in folder.rglob("*.flac")}
    assert sorted(path.name for path in first) == ["Sky.flac", "Sky.flac"]
    track = find_tracks(folder, "pairs")[0]
    found = load_stems(track, RATE)
    length = found["vocals"].shape[-1]
    error = (found["vocals"] - voice[:, :length]).square().sum() / voice.square().sum()
    assert 10 * error.log10() < -10
    assert cli.main([*words, "--jobs", "1"]) == 0  # again: nothing is written
    assert first == {path: path.stat().st_mtime_ns for path in folder.rglob("*.flac")}


def test_long_and_unreadable_songs_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    wave = torch.rand(2, 60000) * 0.1
    paths = [write(tmp_path / f"Sky{mark}.flac", wave) for mark in ("", " (Instrumental)")]
    pairs = suggested_pairs(list(map(audio.probe, paths)))
    monkeypatch.setattr("separator.data.pairs.MAX_SECONDS", 1.0)
    assert [reason for _, reason in write_pairs(pairs, tmp_path / "p", no_voice)] == [
        "longer than 0 minutes"
    ]
    monkeypatch.undo()
    paths[1].unlink()
    ((_, reason),) = write_pairs(pairs, tmp_path / "p", no_voice)
    assert "Sky (Instrumental).flac" in reason and not (tmp_path / "p").exists()


def test_a_song_that_goes_while_pairs_are_written_ends_nothing(
    tmp_path: Path, stems: tuple[Tensor, Tensor]
):
    music, voice = stems
    paths = [write(tmp_path / f"{n}.flac", w) for n, w in enumerate([music + voice, music])]
    original, instrumental = map(audio.probe, paths)

    def removing(wave: Tensor, rate: int) -> Tensor:
        paths[0].unlink(missing_ok=True)
        return wave - music[:, : wave.shape[1]]

    ((_, reason),) = write_pairs([Pair(original, instrumental, "a", "b")], tmp_path / "p", removing)
    assert "0.flac" in reason


def test_the_order_of_two_songs_does_not_decide(
    tmp_path: Path, stems: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
):
    music, voice = stems
    waves = [music + voice, music]
    fits = [align(*pair, RATE).best_db for pair in (waves, waves[::-1])]
    assert fits[0] != pytest.approx(fits[1], abs=0.02)
    monkeypatch.setattr("separator.data.alignment.MAX_RESIDUAL_DB", sum(fits) / 2)
    songs = [audio.probe(write(tmp_path / f"{n}.flac", w)) for n, w in enumerate(waves)]
    reasons = []
    for number, (first, second) in enumerate([songs, songs[::-1]]):
        names = ("a", "b")[:: 1 - 2 * number]
        results = write_pairs(
            [Pair(first, second, *names)], tmp_path / str(number), lambda wave, rate: wave - music
        )
        reasons += [reason for _, reason in results]
    assert bool(reasons[0]) == bool(reasons[1]) == (fits[0] > fits[1])


def test_a_pair_by_sound_keeps_its_names_where_the_library_moves(tmp_path: Path):
    wave = torch.rand(2, 4000) * 0.1
    paths = [write(tmp_path / "old" / name, wave) for name in ("a.flac", "b.flac")]
    names = []
    for folder in ("old", "new"):
        songs = [audio.probe(tmp_path / folder / path.name) for path in paths]
        (pair,) = suggested_pairs(songs, [(0, 1, 30)], ["one", "other"])
        names.append((pair.name, pair.turned))
        if folder == "old":
            (tmp_path / "old").rename(tmp_path / "new")
    assert names[0] == names[1] and names[0][0][2:] != names[0][1][2:]


def test_long_titles_make_names_that_fit(tmp_path: Path):
    wave = torch.rand(2, 4000) * 0.1
    paths = [
        write(tmp_path / f"{letter}.flac", wave).rename(tmp_path / f"{letter * 80}.flac")
        for letter in "空海"
    ]
    pairs = suggested_pairs(list(map(audio.probe, paths)), [(0, 1, 30)], ["one", "other"])
    ((_, reason),) = write_pairs(pairs, tmp_path / "p", no_voice)
    assert "too short" in reason
    assert pairs[0].name.startswith("空" * 60 + " ") and pairs[0].turned.startswith("海" * 60)


def test_the_one_that_sings_is_told_by_the_voice(stems: tuple[Tensor, Tensor]):
    music, voice = stems
    lead, choir = voice, 0.5 * voice.roll(RATE, dims=-1)

    def tells(first: Tensor, second: Tensor, heard: list[Tensor]) -> bool:
        """What is said of two waves in which a model hears these voices."""
        left = iter(heard)
        return first_sings(first, second, RATE, lambda wave, rate: next(left)[:, -wave.shape[1] :])

    voice = voice[:, : 12 * RATE]
    silence = torch.zeros_like(voice)
    assert tells(music + voice, music, [voice, silence])
    assert not tells(music, music + voice, [silence, voice])
    with pytest.raises(SeparatorError, match="the same recording"):
        tells(music, 0.97 * music, [silence, silence])
    with pytest.raises(SeparatorError, match="not clear"):  # two songs over one accompaniment
        tells(music + lead, music + choir, [lead, choir])


def test_versions_of_one_song_make_one_pair_for_each_instrumental(
    tmp_path: Path, stems: tuple[Tensor, Tensor]
):
    music, voice = stems
    noise = 0.003 * torch.randn(music.shape, generator=torch.Generator().manual_seed(1))
    versions = {
        "clean": music + voice,
        "noisy": music + voice + 3 * noise,
        "backing": music + 0.3 * voice,
        "none": 0.8 * music + noise,
    }
    songs = {
        name: audio.probe(write(tmp_path / f"{name}.flac", wave)) for name, wave in versions.items()
    }
    pairs = [
        Pair(songs[first], songs[second], f"{first} {second}")
        for first, second in [
            ("noisy", "none"),
            ("clean", "none"),
            ("backing", "none"),
            ("clean", "backing"),
        ]
    ]
    results = {pair.name: reason for pair, reason in write_pairs(pairs, tmp_path / "p", no_voice)}
    written = [name for name, reason in results.items() if not reason]
    assert len(results) == 4 and written == ["clean none"]
    assert "not all vocals are removed" in results["clean backing"]
    assert results["noisy none"] == "another original fits better"


def encoded(path: Path, wave: Tensor, late: int) -> Path:
    return write(path, torch.nn.functional.pad(wave, (late, 0)))


def test_pairs_without_names_are_found_by_their_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    parts = {name: torch.from_numpy(wave).float() for name, wave in song(24.0, 7).items()}
    voice = parts.pop("vocals")
    music = sum(parts.values())
    library, folder = tmp_path / "music", tmp_path / "pairs"
    encoded(library / "a" / "1.m4a", 0.6 * music, 40000)
    encoded(library / "b" / "2.mp3", music + voice, 0)
    encoded(library / "c" / "3.ogg", music + voice, 0)  # once more, in another format
    encoded(library / "4.flac", torch.from_numpy(song(24.0, 8)["other"]).float(), 0)
    words = ["scan", str(library), "--pairs", str(folder), "--index", str(tmp_path / "index")]
    assert cli.main([*words, "--jobs", "1"]) == 0
    said = capsys.readouterr().out
    assert "pairs        1 of 3 that names or sound suggest" in said
    assert "the same recording" in said and "another original fits better" in said
    (track,) = find_tracks(folder, "pairs")
    waves = load_stems(track, RATE)
    estimate, truth = waves["vocals"][:, : RATE * 22], voice[:, : RATE * 22]
    error = (estimate - truth).square().sum() / truth.square().sum()
    assert 10 * error.log10() < -8

    def forbidden(path: Path) -> None:
        raise AssertionError("a fingerprint is made again")

    monkeypatch.setattr("separator.data.library.fingerprints.fingerprint", forbidden)
    written = sorted(folder.rglob("*.flac"))
    words[1] = str(library.rename(tmp_path / "moved"))
    assert cli.main([*words, "--jobs", "1"]) == 0
    assert sorted(folder.rglob("*.flac")) == written
    assert "pairs        1 of 3" in capsys.readouterr().out

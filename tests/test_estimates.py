"""Stems of other programs: found by name in each program's folders, and scored as a model's are."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from separator import cli
from separator.data.corpus import RATE
from separator.data.corpus import song as compose
from separator.dsp.config import STFTConfig
from separator.errors import SeparatorError
from separator.inference import evaluate as command
from separator.inference import evaluate_command
from separator.inference.estimates import find_estimates
from separator.stems import TWO_STEMS
from tests.songs import export_model

SONGS = ("Some Artist - First Song", "second_song")
SECONDS = 2.0
REST = ("drums", "bass", "other", "piano", "residual")
FOUR = ("vocals", *REST[:3])
Waves = dict[str, np.ndarray]  # (t c) for each stem


@dataclass(frozen=True)
class Shape:
    """How a program names its files below its folder."""

    path: str
    stems: tuple[str, ...]
    level: str = ""  # the folder that is given, below the program's


SHAPES = {
    "demucs": Shape("htdemucs/{song}/{stem}.wav", FOUR),
    "demucs, model's folder": Shape("htdemucs/{song}/{stem}.wav", FOUR, "htdemucs"),
    "demucs, two stems": Shape("htdemucs/{song}/{stem}.wav", ("vocals", "no_vocals")),
    "demucs, of mixture.wav": Shape("{song}/htdemucs/mixture/{stem}.wav", FOUR),
    "demucs, of MUSDB18": Shape("htdemucs/{song}.stem/{stem}.wav", FOUR),
    "spleeter, 2 stems": Shape("{song}/{stem}.wav", ("vocals", "accompaniment")),
    "spleeter, 5 stems": Shape("{song}/{stem}.wav", ("vocals", *REST[:4])),
    "open-unmix": Shape("{song}/{stem}.wav", FOUR),
    "open-unmix, no outdir": Shape("{song}_umxhq/{stem}.wav", ("vocals", *REST)),
    "open-unmix, of MUSDB18": Shape("{song}.stem_umx/{stem}.wav", ("vocals", "residual")),
    "MUSDB18's layout": Shape("valid/{song}/{stem}.wav", FOUR),
    "separator": Shape("album/{song} ({stem}).wav", ("Vocals", "Instrumental")),
    "separator, of mixture.wav": Shape("{song}/mixture ({stem}).wav", ("Vocals", "Instrumental")),
    "all stems": Shape("{song}/{stem}.wav", (*FOUR, "instrumental")),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two composed songs for validation and one for training."""
    root = tmp_path_factory.mktemp("data")
    for index, name in enumerate((*SONGS, "for training")):
        folder = root / ("valid" if name in SONGS else "train") / name
        for stem, wave in compose(SECONDS, index=index).items():
            save(folder / f"{stem}.wav", wave.T)
    return root


def save(path: Path, wave: np.ndarray, rate: int = RATE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, rate, subtype="FLOAT")


def truth(data: Path, song: str) -> Waves:
    """Read both stems of a song without the code that is tested."""
    waves = {path.stem: soundfile.read(path)[0] for path in (data / "valid" / song).iterdir()}
    vocals = waves.pop("vocals")
    return {"accompaniment": sum(waves.values()), "vocals": vocals}


def guesses(data: Path, song: str) -> Waves:
    """Return estimates that are wrong in a known way: each stem leaks into the other, with hiss."""
    accompaniment, vocals = truth(data, song).values()
    hiss = 0.01 * np.random.default_rng(len(song)).standard_normal((2, *vocals.shape))
    return {
        "accompaniment": 0.9 * accompaniment + 0.2 * vocals + hiss[0],
        "vocals": 0.8 * vocals + 0.1 * accompaniment + hiss[1],
    }


def split(waves: Waves, stems: tuple[str, ...]) -> Waves:
    """Cut estimates into a program's stems.

    Those that are not vocals add up to the accompaniment, or to half of it where it has a file of
    its own, so that the sum and the file can be told apart.
    """
    rest = [stem for stem in stems if stem in REST]
    share = 0.5 if len(rest) + 1 < len(stems) else 1.0
    weights = {stem: share * (at + 1) for at, stem in enumerate(rest)}
    total = len(rest) * (len(rest) + 1) / 2
    return {
        stem: waves["vocals"]
        if stem.lower() == "vocals"
        else waves["accompaniment"] * (weights[stem] / total if stem in rest else 1)
        for stem in stems
    }


def write(data: Path, root: Path, shape: Shape) -> Path:
    """Write the estimates of both songs as a program does; the folder to give."""
    for song in SONGS:
        for stem, wave in split(guesses(data, song), shape.stems).items():
            save(root / shape.path.format(song=song, stem=stem), wave)
    return root / shape.level


def sdr(reference: np.ndarray, estimate: np.ndarray) -> float:
    return 10 * np.log10((reference**2).sum() / ((reference - estimate) ** 2).sum())


def report_of(data: Path, file: Path, *words: str) -> dict:
    words = ("--data", str(data), "--jobs", "1", "--json", str(file), "--device", "cpu", *words)
    assert evaluate_command.main([*words]) == 0
    return json.loads(file.read_text())


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_each_programs_folders_are_scored(shape: Shape, data: Path, tmp_path: Path) -> None:
    folder = write(data, tmp_path / "out", shape)
    report = report_of(data, tmp_path / "report.json", "--estimates", str(folder))
    assert report["model"]["path"] == str(folder) and report["rate"] == RATE
    assert [track["name"] for track in report["tracks"]] == list(SONGS)
    for track in report["tracks"]:
        reference, estimate = truth(data, track["name"]), guesses(data, track["name"])
        mixture = sum(reference.values())
        for stem in TWO_STEMS.names:
            rows = {name: row[stem] for name, row in track["scores"].items()}
            expected = sdr(reference[stem], estimate[stem])
            assert rows["ours"]["sdr_global"] == pytest.approx(expected, abs=1e-4)
            expected = sdr(reference[stem], mixture)
            assert rows["mixture"]["sdr_global"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("stem", "other"), [("vocals", 0), ("no_vocals", 1)])
def test_a_stem_without_a_file_is_the_mixture_minus_the_other(
    stem: str, other: int, data: Path, tmp_path: Path
) -> None:
    folder = write(data, tmp_path / "out", Shape("{song}/{stem}.wav", (stem,)))
    for song in SONGS:  # a copy of the mixture does not count as a stem
        save(folder / song / "mixture.wav", sum(truth(data, song).values()))
    report = report_of(data, tmp_path / "report.json", "--estimates", str(folder))
    for track in report["tracks"]:
        reference, estimate = truth(data, track["name"]), guesses(data, track["name"])
        estimate[TWO_STEMS.names[other]] = (
            sum(reference.values()) - estimate[TWO_STEMS.names[1 - other]]
        )
        for name in TWO_STEMS.names:
            found = track["scores"]["ours"][name]["sdr_global"]
            assert found == pytest.approx(sdr(reference[name], estimate[name]), abs=1e-4)


class Known:
    """A separator that gives the estimates of one song."""

    rate, stft, stems = RATE, STFTConfig(), TWO_STEMS

    def __init__(self, waves: Waves) -> None:
        waves = {name: torch.from_numpy(wave.T).float() for name, wave in waves.items()}
        self.waves = {"instrumental": waves["accompaniment"], "vocals": waves["vocals"]}

    def separate_wave(self, mixture: Tensor, rate: int) -> dict[str, Tensor]:
        return self.waves


@pytest.mark.parametrize("full", [False, True])
def test_the_same_waves_score_as_from_a_model(full: bool, data: Path, tmp_path: Path) -> None:
    if full:
        try:
            pytest.importorskip("museval", reason="museval is not installed")
        except RuntimeError as error:  # stempeg, below museval, wants ffmpeg when it is imported
            pytest.skip(f"museval does not import: {error}")
    folder = write(data, tmp_path, SHAPES["spleeter, 2 stems"])
    tracks = command.tracks_of(data, "valid")[: 1 if full else 2]
    estimates = find_estimates(str(folder), tracks, RATE)
    for track in tracks:
        model = Known(guesses(data, track.name))
        assert command.score_track(estimates, track, full) == command.score_track(
            model, track, full
        )


def test_a_model_and_its_own_results_agree_in_one_table(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    model, out = export_model(tmp_path / "model.safetensors"), tmp_path / "results"
    for song in SONGS:
        save(tmp_path / "songs" / f"{song}.wav", sum(truth(data, song).values()))
    words = ["--stems", "--format", "wav", "--bits", "32", "--device", "cpu"]
    songs = str(tmp_path / "songs")
    assert cli.main(["separate", songs, "-o", str(out), "-m", str(model), *words]) == 0
    spleeter = write(data, tmp_path / "spleeter", SHAPES["spleeter, 2 stems"])
    capsys.readouterr()
    file = tmp_path / "report.json"
    words = [str(model), "--estimates", str(out), f"--estimates={spleeter}"]
    ours, written, other = report_of(data, file, *words)["reports"]
    for stem in TWO_STEMS.names:
        for score, value in ours["summary"]["ours"][stem].items():
            assert written["summary"]["ours"][stem][score] == pytest.approx(value, abs=1e-3)
        assert other["summary"]["mixture"] == written["summary"]["mixture"]
    lines = capsys.readouterr().out.splitlines()
    for name in ("mixture", "ideal mask"):  # the same for all
        assert sum(line.startswith(name) for line in lines) == 1
    value = other["summary"]["ours"]["vocals"]["sdr_global_mean"]
    (row,) = [line for line in lines if f"{spleeter}"[-20:] in line and " on " not in line]
    assert row.split()[-1] == f"{value:.2f}"


def test_names_match_without_case_spaces_and_punctuation(data: Path, tmp_path: Path) -> None:
    folder = write(data, tmp_path / "out", SHAPES["demucs"])
    (folder / "htdemucs" / SONGS[0]).rename(folder / "htdemucs" / "some artist_-_first song")
    (folder / "htdemucs" / SONGS[1]).rename(folder / "htdemucs" / "Second Song")
    save(folder / "htdemucs" / "not in the data" / "vocals.wav", np.zeros((100, 2)))
    tracks = command.tracks_of(data, "valid")
    songs = find_estimates(str(folder), tracks, RATE).songs
    for track, name in zip(tracks, ("some artist_-_first song", "Second Song"), strict=True):
        paths = {source.path for _, group in songs[track.identity].stems for source in group}
        assert {path.parent.name for path in paths} == {name} and len(paths) == 4


def test_other_rates_and_mono_are_converted_and_told(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for song in SONGS:
        for stem, wave in guesses(data, song).items():
            save(tmp_path / song / f"{stem}.wav", wave[::2].mean(axis=1), RATE // 2)
    tracks = command.tracks_of(data, "valid")
    estimates = find_estimates(str(tmp_path), tracks, RATE)
    assert f"{tmp_path}: 4 of 4 files are resampled to {RATE} Hz" in caplog.text
    assert "4 of 4 files are mono and count as both channels" in caplog.text
    assert "accompaniment = accompaniment (2); vocals = vocals (2)" in caplog.text
    mixture = torch.zeros(2, tracks[0].samples)
    stems = torch.stack(estimates.read(tracks[0], mixture))
    assert stems.shape == (2, *mixture.shape) and torch.equal(stems[:, 0], stems[:, 1])
    expected = torch.from_numpy(guesses(data, tracks[0].name)["vocals"].mean(axis=1)).float()
    assert torch.nn.functional.mse_loss(stems[1, 0, ::2], expected[::2]) < 1e-4


def test_a_small_difference_in_length_is_filled_or_cut(data: Path, tmp_path: Path) -> None:
    folder = write(data, tmp_path, SHAPES["spleeter, 2 stems"])
    tracks = command.tracks_of(data, "valid")
    for song, change in zip(SONGS, (-1000, 1000), strict=True):
        for stem, wave in guesses(data, song).items():
            longer = np.concatenate([wave, np.ones((1000, 2))])
            save(folder / song / f"{stem}.wav", longer[: len(wave) + change])
    estimates = find_estimates(str(folder), tracks, RATE)
    for track in tracks:
        stems = torch.stack(estimates.read(track, torch.zeros(2, track.samples))).numpy()
        expected = guesses(data, track.name)["vocals"].T
        if track.name == SONGS[0]:
            expected[:, -1000:] = 0
        np.testing.assert_allclose(stems[1], expected, atol=1e-6)


def test_hostile_names_are_scored_and_escaped(tmp_path: Path) -> None:
    for folder in ("data/valid", "out"):
        for stem in ("vocals", "drums"):
            save(tmp_path / folder / "a\nb" / f"{stem}.wav", np.ones((100, 2)))
    report = report_of(
        tmp_path / "data", tmp_path / "report.json", f"--estimates={tmp_path / 'out'}"
    )
    (track,) = report["tracks"]
    assert track["name"] == "a\\nb"
    assert track["scores"]["ours"]["vocals"]["sdr_global"] == "inf"


def refused(data: Path, folder: Path) -> str:
    """Return the one line with which a folder is refused."""
    with pytest.raises(SeparatorError) as caught:
        evaluate_command.main(["--data", str(data), "--estimates", str(folder)])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_song_is_named(data: Path, tmp_path: Path) -> None:
    folder = write(data, tmp_path / "out", SHAPES["demucs"])
    (folder / "htdemucs" / SONGS[1]).rename(tmp_path / "elsewhere")
    assert refused(data, folder) == (
        f"{folder}: has no stems of 1 of 2 songs: second_song; separate these too, into folders "
        "of their names"
    )
    (folder / "htdemucs" / SONGS[1]).mkdir()
    save(folder / "htdemucs" / SONGS[1] / "drums.wav", np.zeros((100, 2)))
    save(folder / SONGS[1] / "another song" / "vocals.wav", np.zeros((100, 2)))
    assert "has no stems of 1 of 2 songs: second_song;" in refused(data, folder)
    assert "no such folder; give --estimates a folder" in refused(data, tmp_path / "nowhere")


def test_a_song_of_the_same_last_name_is_another_one(tmp_path: Path) -> None:
    for folder in ("rock", "pop"):
        for stem in ("vocals", "drums"):
            save(tmp_path / "data" / "valid" / folder / "Intro" / f"{stem}.wav", np.ones((100, 2)))
    save(tmp_path / "out" / "pop" / "Intro" / "vocals.wav", np.ones((100, 2)))
    message = refused(tmp_path / "data", tmp_path / "out")
    assert "has no stems of 1 of 2 songs: rock/Intro;" in message


def test_a_song_with_fewer_files_than_the_others_is_named(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write(data, tmp_path / "out", SHAPES["demucs"])
    report_of(data, tmp_path / "r.json", "--estimates", str(folder))
    assert "fewer files" not in caplog.text
    third = "A third"
    for stem in ("vocals", "drums"):
        save(tmp_path / "data" / "valid" / third / f"{stem}.wav", truth(data, SONGS[0])["vocals"])
    for song in SONGS:
        (tmp_path / "data" / "valid" / song).symlink_to(data / "valid" / song)
    save(folder / "htdemucs" / third / "vocals.wav", truth(data, SONGS[0])["vocals"])
    report_of(tmp_path / "data", tmp_path / "r.json", "--estimates", str(folder))
    assert (
        "1 of 3 songs have fewer files than most, A third first: vocals instead of" in caplog.text
    )


def test_a_wrong_length_is_an_error(data: Path, tmp_path: Path) -> None:
    folder = write(data, tmp_path, SHAPES["spleeter, 2 stems"])
    path = folder / SONGS[1] / "vocals.wav"
    save(path, guesses(data, SONGS[1])["vocals"][: -RATE // 4])
    assert refused(data, folder) == (
        f"{path}: lasts 1.75 s, its song 2.00 s; separate the whole song again"
    )
    path.write_bytes(b"no music")
    assert refused(data, folder).startswith(f"{path}: ")


def test_what_matches_twice_is_an_error(data: Path, tmp_path: Path) -> None:
    folder = write(data, tmp_path / "out", SHAPES["demucs"])
    write(data, folder / "mdx", SHAPES["spleeter, 2 stems"])
    assert "both match the song" in refused(data, folder)
    one = tmp_path / "data" / "valid"
    for name in ("a song", "A_Song"):
        for stem in ("vocals", "drums"):
            save(one / name / f"{stem}.wav", np.ones((100, 2)))
    save(tmp_path / "one" / "A Song" / "vocals.wav", np.ones((100, 2)))
    message = refused(one.parent, tmp_path / "one")
    assert "A Song matches the songs A_Song and a song; give each song a folder" in message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "model: give a model file, or a folder of stems with --estimates"),
        (["--estimates", "a", "--estimates", "a"], "estimates: a is given twice; give each once"),
        (["--estimate", "a"], "did you mean '--estimates'"),
    ],
)
def test_bad_words(words: list[str], message: str) -> None:
    with pytest.raises(SeparatorError, match=message):
        evaluate_command.main(["--data", "songs", *words])


def test_processes_agree_with_one(data: Path, tmp_path: Path) -> None:
    folder = write(data, tmp_path / "out", SHAPES["spleeter, 2 stems"])
    words = (data, tmp_path / "report.json", "--estimates", str(folder))
    one, two = report_of(*words), report_of(*words, "--jobs", "2")
    assert two["failures"] == []
    for alone, beside in zip(one["tracks"], two["tracks"], strict=True):
        for stem in TWO_STEMS.names:
            expected = pytest.approx(alone["scores"]["ours"][stem], abs=1e-4)
            assert beside["scores"]["ours"][stem] == expected

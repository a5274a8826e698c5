"""The command on songs whose scores are known in closed form, and on what can go wrong."""

import json
import math
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import soundfile
import torch
from torch import Tensor

from separator.cli import main
from separator.dsp.config import STFTConfig
from separator.engine.model_file import export
from separator.errors import SeparatorError
from separator.inference import evaluate as command
from separator.inference import evaluate_command
from separator.inference import report as reports
from separator.metrics import frame_sdr, global_sdr, ideal_mask
from separator.models.build import describe
from separator.models.config import ModelConfig
from separator.models.frame_transformer import FrameTransformer
from separator.stems import TWO_STEMS, StemSet

RATE = 8000


@dataclass(frozen=True)
class Song:
    """A track whose stems are noise: `vocals` is its vocals' amplitude."""

    name: str
    split: str = "valid"
    vocals: float = 0.5
    seconds: float = 3.3
    channels: int = 2
    names: tuple[str, ...] = TWO_STEMS.names
    kind: str = "stems"
    estimated: bool = False


def song_stems(
    song: Song, rate: int, names: tuple[str, ...] = TWO_STEMS.names
) -> dict[str, Tensor]:
    if song.name == "broken":
        raise SeparatorError("broken/vocals.wav: not audio; replace it")
    generator = torch.Generator().manual_seed(len(song.name))
    noise = torch.randn(2, song.channels, int(song.seconds * rate), generator=generator)
    if song.name == "not finite":
        noise[0, 0, 5] = torch.nan
    return {"accompaniment": noise[0], "vocals": song.vocals * noise[1]}


@dataclass
class Halver:
    """Separator that calls `share` of the mixture instrumental, the rest vocals."""

    share: float = 0.75
    rate: int = RATE
    stft: STFTConfig = field(default_factory=lambda: STFTConfig(512, 256))
    description: dict = field(default_factory=lambda: {"stage": "train"})
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    stems: StemSet = TWO_STEMS

    def separate_wave(self, mixture: Tensor, rate: int) -> dict[str, Tensor]:
        assert rate == self.rate
        return {"instrumental": self.share * mixture, "vocals": (1 - self.share) * mixture}


@pytest.fixture(autouse=True)
def songs(monkeypatch: pytest.MonkeyPatch) -> list[Song]:
    """Put three songs, one of training, where the command looks for them."""
    there = [Song("one"), Song("second"), Song("other", "train")]
    monkeypatch.setattr(command, "find_tracks", lambda *arguments: list(there))
    monkeypatch.setattr(command, "load_stems", song_stems)
    monkeypatch.setattr(command.Separator, "load", lambda path, device: Halver())
    return there


def test_scores_are_those_of_the_metrics() -> None:
    song = Song("one")
    scores = command.score_track(Halver(), song)["scores"]
    reference = torch.stack(list(song_stems(song, RATE).values()))
    mixture = reference.sum(dim=0)
    expected = {
        "ours": torch.stack([0.75 * mixture, 0.25 * mixture]),
        "mixture": torch.stack([mixture, mixture]),
        "ideal_mask": torch.stack(
            [ideal_mask(s, mixture, STFTConfig(512, 256)) for s in reference]
        ),
    }
    for name, estimate in expected.items():
        frames = frame_sdr(reference, estimate, RATE)
        for s, stem in enumerate(("accompaniment", "vocals")):
            row = scores[name][stem]
            assert row["frames"] == 3
            assert row["sdr_frames"] == pytest.approx(float(frames[s].sort().values[1]))
            assert row["sdr_global"] == pytest.approx(float(global_sdr(reference, estimate)[s]))
    assert scores["ideal_mask"]["vocals"]["sdr_global"] > scores["mixture"]["vocals"]["sdr_global"]


def test_summary_is_over_tracks() -> None:
    tracks = [Song("a", vocals=0.2), Song("bb", vocals=0.3), Song("ccc", vocals=0.9)]
    report = command.evaluate(Halver(), tracks)
    rows = [track["scores"]["ours"]["accompaniment"] for track in report["tracks"]]
    summary = report["summary"]["ours"]["accompaniment"]
    assert summary["n_tracks"] == 3
    assert summary["sdr_frames_median"] == sorted(row["sdr_frames"] for row in rows)[1]
    values = [row["sdr_global"] for row in rows]
    assert summary["sdr_global_median"] == sorted(values)[1]
    assert summary["sdr_global_mean"] == pytest.approx(sum(values) / 3)
    assert report["model"] == {"path": None, "description": {"stage": "train"}}


def test_a_silent_reference_is_reported_and_left_out_of_the_summary(tmp_path: Path) -> None:
    report = command.evaluate(Halver(), [Song("one"), Song("no voice", vocals=0)])
    voiced, silent = report["tracks"]
    assert silent["silent"] == ["vocals"]
    scores = silent["scores"]
    assert math.isnan(scores["ours"]["vocals"]["sdr_global"])
    assert math.isnan(scores["ours"]["accompaniment"]["sdr_frames"])  # museval's rule
    assert scores["ours"]["accompaniment"]["sdr_global"] == pytest.approx(20 * math.log10(4))
    assert scores["mixture"]["accompaniment"]["sdr_global"] == math.inf
    assert scores["ours"]["vocals"]["frames"] == 0
    ours, summary = voiced["scores"]["ours"]["vocals"], report["summary"]["ours"]["vocals"]
    assert summary["sdr_global_mean"] == ours["sdr_global"] and summary["n_tracks"] == 1
    reports.write(report, tmp_path / "report.json")
    written = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    scores = written["tracks"][1]["scores"]
    assert scores["ours"]["vocals"]["sdr_frames"] is None
    assert scores["mixture"]["accompaniment"]["sdr_global"] == "inf"
    table = reports.table(report)
    assert "silent" in table and "over 1 track (1 with a silent stem left out)" in table


def test_only_silent_references_still_make_a_report() -> None:
    report = command.evaluate(Halver(), [Song("no voice", vocals=0), Song("x", seconds=0)])
    assert report["n_tracks"] == 2 and report["failures"] == []
    assert "over 0 tracks" in reports.table(report)


def test_command_writes_table_and_json(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = tmp_path / "new" / "report.json"
    words = ["model.safetensors", "--data", "songs", "--jobs", "1", "--json", str(file)]
    assert evaluate_command.main(words) == 0
    report = json.loads(file.read_text())
    keys = "schema definitions model data split rate stems n_tracks tracks summary failures"
    assert list(report) == keys.split()
    assert report["model"]["path"] == "model.safetensors" and report["schema"] == 1
    assert (report["data"], report["split"], report["rate"]) == ("songs", "valid", RATE)
    assert [track["name"] for track in report["tracks"]] == ["one", "second"]
    assert [path.name for path in file.parent.iterdir()] == ["report.json"]
    out = capsys.readouterr().out
    assert "BSSEval v4, median over 1 s frames" in out and "one ratio for the whole track" in out
    row = report["tracks"][1]["scores"]["ours"]["vocals"]
    line = next(line for line in out.splitlines() if line.startswith("second"))
    assert line.split()[1] == "model.safetensors"
    assert line.split()[-2:] == [f"{row['sdr_frames']:.2f}", f"{row['sdr_global']:.2f}"]


def test_several_models_share_a_table(
    songs: list[Song], tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch
) -> None:
    shares = {"a.safetensors": 0.75, "b.safetensors": 0.5}
    monkeypatch.setattr(command.Separator, "load", lambda path, device: Halver(shares[path]))
    file = tmp_path / "report.json"
    assert evaluate_command.main([*shares, "--data=songs", "--jobs=1", f"--json={file}"]) == 0
    together = json.loads(file.read_text())
    assert list(together) == ["schema", "data", "split", "reports"]
    lines = capsys.readouterr().out.splitlines()
    for path, report in zip(shares, together["reports"], strict=True):
        alone = command.evaluate(Halver(shares[path]), songs[:2])
        assert report["model"]["path"] == path
        assert report["summary"]["ours"] == alone["summary"]["ours"]
        (row,) = [
            line.split() for line in lines if line.startswith(f"{path} ") and "on" not in line
        ]
        assert row[2] == f"{report['summary']['ours']['accompaniment']['sdr_global_median']:.2f}"
    for name in ("mixture", "ideal mask"):  # the same for both
        assert sum(line.startswith(name) for line in lines) == 1


def test_the_report_is_written_before_the_table(songs: list[Song], tmp_path: Path) -> None:
    class Gone:
        def write(self, text: str) -> int:
            raise BrokenPipeError

    file = tmp_path / "report.json"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(BrokenPipeError):
        patch.setattr(sys, "stdout", Gone())
        evaluate_command.main(["model.safetensors", "--data=songs", "--jobs=1", f"--json={file}"])
    assert json.loads(file.read_text())["n_tracks"] == 2


def test_without_standard_error_it_scores_in_silence(songs: list[Song], monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", None)
        assert command.evaluate(Halver(), songs[:1])["n_tracks"] == 1


def test_bad_tracks_are_failures_after_the_rest_is_done(
    songs: list[Song], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    songs[:0] = [Song("broken"), Song("not finite")]
    file = tmp_path / "report.json"
    words = ["model.safetensors", "--data=songs", "--jobs=1", f"--json={file}"]
    assert evaluate_command.main(words) == 1
    report = json.loads(file.read_text())
    assert report["n_tracks"] == 2 and report["summary"]["ours"]["vocals"]["n_tracks"] == 2
    assert [entry["name"] for entry in report["failures"]] == ["broken", "not finite"]
    assert report["failures"][0]["error"] == "broken/vocals.wav: not audio; replace it"
    assert "NaN" in report["failures"][1]["error"]
    assert "failed: broken: broken/vocals.wav" in capsys.readouterr().out


def test_diverged_models_and_unexpected_errors_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    report = command.evaluate(Halver(share=math.nan), [Song("one")])
    assert "the model's estimate holds NaN" in report["failures"][0]["error"]
    assert "failed: one" in reports.table(report)
    monkeypatch.setattr(command, "load_stems", lambda song, rate, names: {})
    (failure,) = command.evaluate(Halver(), [Song("one")])["failures"]
    assert failure == {"name": "one", "error": "KeyError: 'accompaniment'"}


def test_names_that_are_no_text_are_escaped(
    songs: list[Song], tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch
) -> None:
    songs[:] = [Song(os.fsdecode(b"caf\xe9")), Song("broken")]

    def broken(song: Song, rate: int, names: tuple[str, ...]) -> dict[str, Tensor]:
        if song.name == "broken":
            raise SeparatorError(os.fsdecode(b"caf\xe9.wav: not audio"))
        return song_stems(song, rate, names)

    monkeypatch.setattr(command, "load_stems", broken)
    file, root = tmp_path / "report.json", os.fsdecode(b"m\xe9")
    words = ["model.safetensors", f"--data={root}", "--jobs=1", f"--json={file}"]
    assert evaluate_command.main(words) == 1
    report = json.loads(file.read_text())
    assert report["data"] == r"m\udce9" and report["tracks"][0]["name"] == r"caf\udce9"
    assert report["failures"] == [{"name": "broken", "error": r"caf\udce9.wav: not audio"}]
    assert r"caf\udce9 " in capsys.readouterr().out.encode().decode()


def test_the_split_is_that_of_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from separator.data.config import DataConfig
    from separator.data.tracks import training_tracks

    asked = []
    monkeypatch.setattr(command, "find_tracks", lambda *a: asked.append(a) or [Song("one")])
    words = ["model.safetensors", "--data=stems:songs@2", "--jobs=1"]
    assert (
        evaluate_command.main(words) == evaluate_command.main([*words, "--valid_share=0.02"]) == 0
    )
    assert asked == [("songs", "stems", 2.0, 0.1), ("songs", "stems", 2.0, 0.02)]
    monkeypatch.undo()
    for song in range(20):
        for stem in ("vocals", "drums"):
            (tmp_path / str(song)).mkdir(exist_ok=True)
            soundfile.write(tmp_path / str(song) / f"{stem}.wav", [0.1] * 100, RATE)
    root = f"stems:{tmp_path}"
    for share in (0.02, 0.5):
        _, valid = training_tracks(DataConfig([root], valid_share=share))
        assert command.tracks_of(root, "valid", share) == valid


def test_stems_that_a_model_estimated_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.undo()
    wave = torch.randn(2, RATE, generator=torch.Generator().manual_seed(0)).T / 10
    for name in ("mixed.wav", "songs/true/vocals.flac", "songs/true/other.flac"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / name, wave.numpy(), RATE)
    made = ["separate", str(tmp_path / "mixed.wav"), "-o", str(tmp_path / "songs"), "--stems"]
    assert main([*made, "--name", "made/{stem}{name}.{format}"]) == 0
    for path in (tmp_path / "songs" / "made").iterdir():
        path.rename(path.with_name(path.name.replace("mixed", "").lower()))
    words = ["evaluate", "tiny-vocals", f"--data=stems:{tmp_path / 'songs'}", "--valid-share=0.9"]
    main([*words, "--jobs=1", "--device=cpu"])
    warned = [one.getMessage() for one in caplog.records if "estimates of" in one.getMessage()]
    assert warned == ["made: its stems are estimates of `separator separate`"]


def test_an_empty_split_names_those_there_are(songs: list[Song]) -> None:
    with pytest.raises(
        SeparatorError,
        match=r"^music: no songs with vocals and accompaniment in the split 'test'; .*train \(1\)",
    ):
        evaluate_command.main(["model.safetensors", "--data", "music", "--split", "test"])
    songs.clear()
    with pytest.raises(SeparatorError, match=r"^music: .* none in any split"):
        evaluate_command.main(["model.safetensors", "--data", "music"])
    songs.append(Song("mixed", names=("mixture",)))
    with pytest.raises(SeparatorError, match=r"^music: .* none in any split"):
        evaluate_command.main(["model.safetensors", "--data", "music"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a", "b", "a", "--data", "x"], "model: a is given twice"),
        (
            ["a", "--data", "x", "--split", "dev"],
            "--split: expected one of 'train', 'valid', ",
        ),
        (["a", "--data", "x", "--jobs", "-1"], "jobs: -1"),
        (["a", "--data", "x", "--spilt", "test"], "did you mean '--split'"),
        (["a", "--data", "x", "--valid_share", "1"], r"--valid-share: 1.0 is not in \[0, 1\)"),
        (["a", "--data", "x", "--json", "/"], "json: / is a folder; give the name of a file"),
        (["a", "--data", "x", "--json", sys.executable], "json: .* is no report that can be"),
        (["a", "--data", "x", "--json", f"{__file__}/b.json"], "give --json a path that can be"),
        (["a"], "data"),
    ],
)
def test_bad_words(words: list[str], message: str) -> None:
    with pytest.raises(SeparatorError, match=message):
        evaluate_command.main(words)


def test_a_report_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SeparatorError, match="give --json"):
        reports.write({}, tmp_path / "file" / "report.json")


def score_with_halver(path: str, device: str, full: bool, song: Song) -> dict:
    """Stand in for the command's own in processes that a test's patches do not reach."""
    assert (path, device) == ("model.safetensors", "cpu")
    if song.name == "deadly":
        time.sleep(0.5)  # the others are done by then
        os._exit(9)
    command.load_stems = song_stems
    return command._attempt(Halver(), song, full) | {"threads": torch.get_num_threads()}


def test_processes_agree_with_one_share_threads_and_survive_a_death(
    songs: list[Song], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    songs += [Song("broken"), Song("deadly")]
    monkeypatch.setattr(command, "_score_in_process", score_with_halver)
    file = tmp_path / "report.json"
    words = ["--data=songs", "--device=cpu", "--jobs=2", f"--json={file}"]
    assert evaluate_command.main(["model.safetensors", *words]) == 1
    report = json.loads(file.read_text())
    broken, deadly = report["failures"]
    assert broken["name"] == "broken" and "not audio" in broken["error"]
    assert deadly["name"] == "deadly" and "memory" in deadly["error"]
    alone = command.evaluate(Halver(), songs[:2])
    for one, two in zip(alone["tracks"], report["tracks"], strict=True):
        assert two["threads"] == max(1, torch.get_num_threads() // 2)
        for name in reports.ESTIMATES:
            for stem in TWO_STEMS.names:
                expected = pytest.approx(one["scores"][name][stem], abs=1e-4)
                assert two["scores"][name][stem] == expected


def tiny_model(path: Path) -> Path:
    stft = STFTConfig(256, 128)
    config = ModelConfig(
        channels=(4, 8), encoder_blocks=(0, 1), decoder_blocks=(0, 1), ffn_dim=(32, 32), heads=2
    )
    description = {**describe(config, stft, RATE), "stage": "train"}
    export(path, FrameTransformer(config, stft.bins).state_dict(), description)
    return path


def test_a_real_model_on_folders_of_stems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # nothing stands in for anything here
    for song in ("one", "two"):
        (tmp_path / "songs" / song).mkdir(parents=True)
        for stem in ("vocals", "drums", "bass"):
            noise = 0.1 * torch.randn(2 * RATE + 100, 2)
            soundfile.write(tmp_path / "songs" / song / f"{stem}.wav", noise.numpy(), RATE)
    model, file = str(tiny_model(tmp_path / "model.safetensors")), tmp_path / "report.json"
    words = [model, "--data", str(tmp_path / "songs"), "--device", "cpu", "--json", str(file)]
    assert evaluate_command.main(words) == 0
    report = json.loads(file.read_text())
    (track,) = report["tracks"]
    assert report["failures"] == [] and report["model"]["path"] == model
    assert report["model"]["description"]["stage"] == "train"
    mixture, ideal = (track["scores"][name]["vocals"] for name in ("mixture", "ideal_mask"))
    assert mixture["sdr_global"] == pytest.approx(-3, abs=0.5)  # two others, each as loud
    assert ideal["sdr_global"] > mixture["sdr_global"] + 3
    (song,) = command.tracks_of(tmp_path / "songs", "valid")
    assert command._score_in_process(model, "cpu", False, song) == track


def test_full_adds_what_museval_says() -> None:
    try:
        museval = pytest.importorskip("museval", reason="museval is not installed")
    except RuntimeError as error:  # stempeg, below museval, wants ffmpeg when it is imported
        pytest.skip(f"museval does not import: {error}")
    song = Song("one", seconds=2.2, channels=1)
    report = command.evaluate(Halver(), [song, Song("no voice", vocals=0)], full=True)
    reference = torch.stack(list(song_stems(song, RATE).values()))
    mixture = reference.sum(dim=0)
    waves = (reference, torch.stack([0.75 * mixture, 0.25 * mixture]))
    expected = museval.evaluate(*(w.transpose(1, 2).numpy() for w in waves), win=RATE, hop=RATE)
    ours = report["tracks"][0]["scores"]["ours"]
    for name, values in zip(("sdr_frames", "isr", "sir", "sar"), expected, strict=True):
        for s, stem in enumerate(("accompaniment", "vocals")):
            assert ours[stem][name] == pytest.approx(values[s].mean(), abs=1e-6)  # of two frames
    assert "sir" not in report["tracks"][0]["scores"]["mixture"]["vocals"]
    assert math.isnan(report["tracks"][1]["scores"]["ours"]["vocals"]["sir"])
    assert report["summary"]["ours"]["vocals"]["sir_median"] == ours["vocals"]["sir"]
    assert "model, vocals, museval" in reports.summary_table(report)


def test_full_without_museval_says_so_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "museval", None)
    with pytest.raises(SeparatorError, match="--full needs museval"):
        evaluate_command.main(["model.safetensors", "--data", "songs", "--full"])

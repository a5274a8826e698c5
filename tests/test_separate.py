"""`separator separate` end to end with a small random model."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

from separator import api, audio, cli
from separator.engine.model_file import export
from separator.inference import plan as planning
from separator.models import FrameTransformer, describe
from tests.toys import STFT, TINY

LOSSY = {"mp3": 1152, "ogg": 0, "opus": 0, "m4a": 2048}  # samples of padding that may stay


def export_model(path: Path, mask: float | None = None) -> Path:
    """Write a random model, or one whose mask is the same everywhere."""
    torch.manual_seed(0)
    model = FrameTransformer(TINY, STFT.bins)
    if mask is not None:
        model.head.weight.data.zero_()
        model.head.bias.data.fill_(torch.tensor(mask).logit())
    export(path, model.state_dict(), {"stage": "train", **describe(TINY, STFT, 44100)})
    return path


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_model(tmp_path_factory.mktemp("model") / "model.safetensors")


@pytest.fixture(autouse=True)
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEPARATOR_MODEL", str(model))


def song(path: str | Path, seconds: float = 0.7, rate: int = 44100, channels: int = 2) -> Tensor:
    """Write a song of tones and noise; its samples."""
    generator = torch.Generator().manual_seed(2)
    path, times = Path(path), torch.arange(round(seconds * rate)) / rate
    wave = torch.randn(channels, len(times), generator=generator) * 0.05
    wave += torch.sin(2765 * times) * 0.3
    path.parent.mkdir(parents=True, exist_ok=True)
    with audio.Writer(path, rate, channels) as writer:
        writer.write(wave)
    return wave


def run(*argv: str) -> int:
    kept = [] if "--format" in argv else ["--format", "input"]
    return cli.main(["separate", *argv, *kept])


def files(folder: str = ".") -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in Path(folder).rglob("*") if p.is_file())


def test_flac_is_the_default() -> None:
    song("song.mp3")
    assert cli.main(["separate", "song.mp3"]) == 0
    assert files("stems") == ["song (Instrumental).flac"]


def test_a_file_into_both_stems() -> None:
    wave = song("song.wav", rate=48000)
    before = hashlib.sha256(Path("song.wav").read_bytes()).digest()
    assert run("song.wav", "--stems", "-o", "out") == 0
    assert files("out") == ["song (Instrumental).wav", "song (Vocals).wav"]
    instrumental = audio.read("out/song (Instrumental).wav")
    vocals = audio.read("out/song (Vocals).wav")
    assert audio.probe("out/song (Vocals).wav").rate == 48000
    torch.testing.assert_close(instrumental + vocals, wave, atol=1e-7, rtol=1e-6)
    assert torch.equal(api.separate("song.wav")["vocals"], vocals)
    assert hashlib.sha256(Path("song.wav").read_bytes()).digest() == before


@pytest.mark.parametrize("name", ["wav", "flac", "mp3", "ogg", "opus", "m4a", "aiff"])
def test_each_format_in_and_out(name: str) -> None:
    """As input and as output, with the song's length."""
    rate = 48000 if name == "opus" else 44100
    song(f"song.{name}", rate=rate)
    samples = audio.probe(f"song.{name}").samples
    assert run(f"song.{name}") == 0
    info = audio.probe(f"stems/song (Instrumental).{name}")
    assert 0 <= info.samples - samples <= LOSSY.get(name, 0)
    assert (info.format, info.rate, info.channels) == (name, rate, 2)
    assert run(f"song.{name}", "--format", "wav") == 0
    assert audio.probe("stems/song (Instrumental).wav").samples == samples


@pytest.mark.parametrize(("channels", "rate"), [(1, 8000), (6, 44100), (2, 192000)])
def test_rates_and_layouts(channels: int, rate: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    wave = song("song.flac", rate=rate, channels=channels)
    assert run("song.flac", "--stems", "--format", "wav") == 0
    stems = [audio.read(f"stems/song ({stem}).wav") for stem in planning.TITLES]
    folded = audio.to_channels(wave, min(channels, 2))
    torch.testing.assert_close(sum(stems), folded, atol=1e-6, rtol=0)
    assert ("6 channels are folded to stereo" in caplog.text) == (channels == 6)


@pytest.mark.parametrize("samples", [1, 441])
def test_silence_of_a_moment(samples: int) -> None:
    with audio.Writer("short.wav", 44100, 2) as writer:
        writer.write(torch.zeros(2, samples))
    assert run("short.wav") == 0
    assert torch.equal(audio.read("stems/short (Instrumental).wav"), torch.zeros(2, samples))


def test_a_tree_is_mirrored_and_done_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    for name in ("music/a/one.wav", "music/b/c/one.wav", "music/two.flac", "music/.hidden.wav"):
        song(name, 0.1)
    Path("music/notes.txt").write_text("no song")
    assert run("music", "music/two.flac", "-o", "out") == 0  # the second is in the first
    expected = ["a/one (Instrumental).wav", "b/c/one (Instrumental).wav"]
    assert files("out") == [*expected, "two (Instrumental).flac"]
    times = {name: Path("out", name).stat().st_mtime_ns for name in files("out")}
    Path("out/two (Instrumental).flac").unlink()
    assert run("music", "-o", "out") == 0
    assert "does them again): 2" in caplog.text
    changed = [n for n in files("out") if times[n] != Path("out", n).stat().st_mtime_ns]
    assert changed == ["two (Instrumental).flac"]
    assert run("music", "-o", "out", "--overwrite") == 0
    assert all(times[name] != Path("out", name).stat().st_mtime_ns for name in files("out"))


def test_results_inside_the_input_folder_are_not_songs() -> None:
    song("music/one.wav", 0.1)
    for _ in range(2):
        assert run("music", "-o", "music", "--stems", "--overwrite") == 0
        assert files("music") == ["one (Instrumental).wav", "one (Vocals).wav", "one.wav"]


def test_broken_files_among_good_ones(capsys: pytest.CaptureFixture) -> None:
    song("music/a.wav", 0.1)
    song("music/z.flac", 0.1)
    Path("music/text.mp3").write_text("this is no song\n" * 100)
    Path("music/empty.wav").write_bytes(b"")
    whole = Path("music/z.flac").read_bytes()
    Path("music/cut.flac").write_bytes(whole[: len(whole) // 2])
    with audio.Writer("music/nan.wav", 44100, 2) as writer:
        writer.write(torch.full((2, 1000), float("nan")))
    assert run("music", "nowhere.mp3", "-o", "out") == 1
    assert files("out") == ["a (Instrumental).wav", "z (Instrumental).flac"]
    lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("separator: ")]
    assert len(lines) == 5
    for name in ("text.mp3", "empty.wav", "cut.flac", "nan.wav", "nowhere.mp3"):
        assert sum(name in line for line in lines) == 1


def test_names_that_collide() -> None:
    for name in ("song.mp3", "song.flac", "other.wav", "more/other.wav"):
        song(name, 0.1)
    inputs = ("song.mp3", "song.flac", "other.wav", "more/other.wav")
    for _ in range(2):
        assert run(*inputs, "--format", "wav") == 0
        assert files("stems") == [
            "other.wav (Instrumental).wav",
            "other.wav 2 (Instrumental).wav",
            "song.flac (Instrumental).wav",
            "song.mp3 (Instrumental).wav",
        ]


def test_a_name_taken_by_another_song_is_told(capsys: pytest.CaptureFixture) -> None:
    song("a/01 Intro.wav", 1)
    song("b/01 Intro.wav", 3)
    assert run("a", "-o", "out") == 0
    assert run("b", "-o", "out") == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert "b/01 Intro.wav: out/01 Intro (Instrumental).wav exists and is 1.0 s long" in line
    assert run("b", "-o", "out", "--overwrite") == 0
    assert audio.probe("out/01 Intro (Instrumental).wav").seconds == 3


def test_results_of_another_format_are_not_songs() -> None:
    song("music/one.wav", 0.1)
    assert run("music", "-o", "music") == 0
    assert run("music", "-o", "music", "--format", "mp3") == 0
    expected = ["one (Instrumental).mp3", "one (Instrumental).wav", "one.wav"]
    assert files("music") == expected


def test_linked_folders_and_names_that_are_no_text() -> None:
    song("elsewhere/linked.wav", 0.1)
    song("music/plain.wav", 0.1)
    Path("music/artist").symlink_to(Path("elsewhere").absolute())
    shutil.copy("music/plain.wav", os.fsdecode(b"music/caf\xe9.wav"))
    assert run("music", "-o", "out") == 0
    expected = ["artist/linked (Instrumental).wav", "caf (Instrumental).wav"]
    assert files("out") == [*expected, "plain (Instrumental).wav"]


@pytest.mark.parametrize("where", ["probe", "blocks"])
def test_no_decoders_surprise_costs_the_other_songs(
    where: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    song("music/a.wav", 0.1)
    song("music/b.wav", 0.1)
    usual = getattr(audio, where)

    def surprising(path: Path, *rest: object) -> object:
        if Path(path).name == "a.wav":
            raise TypeError("unsupported\noperand")
        return usual(path, *rest)

    monkeypatch.setattr(audio, where, surprising)
    assert run("music", "-o", "out") == 1
    assert files("out") == ["b (Instrumental).wav"]
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == "separator: music/a.wav: TypeError: unsupported operand"


def test_very_long_names() -> None:
    song("song.wav", 0.1)
    Path("song.wav").rename("歌" * 80 + ".wav")
    assert run("歌" * 80 + ".wav") == 0
    assert files("stems") == ["歌" * 60 + " (Instrumental).wav"]


@pytest.mark.parametrize("suffix", ["flac", "aiff"])
def test_what_integers_cannot_hold_is_lowered(
    suffix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A mask of 1 gives an instrumental that equals the song, whose peak is 2."""
    caplog.set_level("INFO")
    model = export_model(tmp_path / "one.safetensors", mask=0.9)
    wave = song("song.wav")
    wave *= 2 / wave.abs().max()
    with audio.Writer("song.wav", 44100, 2) as writer:
        writer.write(wave)
    stems = api.separate("song.wav", model=model)
    peak = max(stem.abs().max() for stem in stems.values())
    assert run("song.wav", "--stems", "--format", suffix, "-m", str(model)) == 0
    assert caplog.text.count("all stems are lowered by") == 1
    for name, stem in stems.items():
        written = audio.read(f"stems/song ({name.title()}).{suffix}")
        torch.testing.assert_close(written, stem / peak, atol=1e-6, rtol=0)


def test_quiet_songs_keep_their_level() -> None:
    wave = song("song.flac")
    assert run("song.flac", "--stems") == 0
    stems = [audio.read(f"stems/song ({stem}).flac") for stem in planning.TITLES]
    torch.testing.assert_close(sum(stems), wave, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["song.wav", "-o", "file"], "file: cannot be written to"),
        (["song.wav", "-m", "absent.safetensors"], "absent.safetensors: no such file"),
        (["song.wav", "--device", "tpu"], "'tpu' is not on this machine"),
        (["song.wav", "--batch", "0"], "batch: 0"),
        (["song.wav", "--bitrate", "9"], "bitrate: 9"),
        (["song.wav", "--format", "wma"], "format"),
        (["song.wav", "--formt", "wav"], "did you mean 'format'"),
        (["folder"], "no songs found"),
    ],
)
def test_mistakes_are_one_line(argv: list[str], line: str, capsys: pytest.CaptureFixture) -> None:
    song("song.wav", 0.1)
    Path("file").write_text("")
    Path("folder").mkdir()
    wrong_usage = {"--batch", "--bitrate", "--format", "--formt"} & set(argv)
    assert run(*argv) == (2 if wrong_usage else 1)
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert line in errors[0]
    assert not Path("stems").exists() or not files("stems")


def test_killed_in_the_middle(tmp_path: Path) -> None:
    """No file under a final name; the next run removes what the killed one left."""
    song("song.wav", 120)
    command = [sys.executable, "-m", "separator", "separate", "song.wav", "--stems"]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not _some_bytes(tmp_path / "stems"):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    left = files("stems")
    assert left
    assert all(Path(name).name.startswith(".") for name in left)
    song("song.wav", 0.1)
    assert run("song.wav", "--stems") == 0
    assert files("stems") == ["song (Instrumental).wav", "song (Vocals).wav"]


def _some_bytes(folder: Path) -> bool:
    return folder.is_dir() and any(p.stat().st_size > 100_000 for p in folder.iterdir())


MEASURE = """
import resource, sys
from separator.cli import main
status = main(["separate", sys.argv[1], "--overwrite", "--format", sys.argv[2]])
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
sys.exit(status)
"""


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_memory_does_not_grow_with_length(suffix: str) -> None:
    peaks = []
    for minutes in (1, 6):
        path = Path(f"{minutes}.flac")
        part = song("part.wav", 60)
        with audio.Writer(path, 44100, 2) as writer:
            for _ in range(minutes):
                writer.write(part)
        command = [sys.executable, "-c", MEASURE, str(path), suffix]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout.split()[-1]))
    assert peaks[1] < 1.1 * peaks[0]

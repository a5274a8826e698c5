"""`separator separate` end to end with a small random model."""

import dataclasses
import errno
import hashlib
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile
import torch

from separator import api, atomic, audio, cli
from separator.errors import SeparatorError
from separator.inference import files as files_of
from separator.inference import separate, stopping
from separator.signals import STOP_SIGNALS
from separator.stems import TWO_STEMS, title
from tests.songs import export_model, files, in_tmp, model, run, song  # noqa: F401

LOSSY = {"mp3": 1152, "ogg": 0, "opus": 0, "m4a": 2048}  # samples of padding that may stay


pytestmark = pytest.mark.usefixtures("in_tmp")


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
    generator = torch.Generator().manual_seed(2)
    wave = 0.05 * torch.randn(channels, round(0.7 * rate), generator=generator)
    soundfile.write("song.flac", wave.T.numpy(), rate, "PCM_24")
    assert run("song.flac", "--stems", "--format", "wav") == 0
    stems = [audio.read(f"stems/song ({stem}).wav") for stem in map(title, TWO_STEMS.names)]
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
    assert "2 songs: separated already" in caplog.text
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
            "other (Instrumental).wav",
            "other 2 (Instrumental).wav",
            "song.flac (Instrumental).wav",
            "song.mp3 (Instrumental).wav",
        ]


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
    expected = ["artist/linked", os.fsdecode(b"caf\xe9"), "plain"]
    assert sorted(files("out")) == sorted(f"{name} (Instrumental).wav" for name in expected)


@pytest.mark.parametrize("where", ["probe", "blocks"])
def test_no_decoders_surprise_costs_the_other_songs(
    where: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    song("music/a.wav", 0.1)
    song("music/b.wav", 0.1)
    usual = getattr(audio, where)

    def surprising(path: Path, **options: object) -> object:
        if Path(path).name == "a.wav":
            raise TypeError("unsupported\noperand")
        return usual(path, **options)

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
    loud = export_model(tmp_path / "one.safetensors", mask=0.9)
    wave = song("song.wav")
    wave *= 2 / wave.abs().max()
    with audio.Writer("song.wav", 44100, 2) as writer:
        writer.write(wave)
    stems = api.separate("song.wav", model=loud)
    peak = max(stem.abs().max() for stem in stems.values())
    assert run("song.wav", "--stems", "--format", suffix, "-m", str(loud)) == 0
    assert caplog.text.count("dB softer, so that none clips in") == 1
    for name, stem in stems.items():
        written = audio.read(f"stems/song ({name.title()}).{suffix}")
        torch.testing.assert_close(written, stem / peak, atol=1e-6, rtol=0)


def test_quiet_songs_keep_their_level() -> None:
    wave = song("song.flac")
    assert run("song.flac", "--stems") == 0
    stems = [audio.read(f"stems/song ({stem}).flac") for stem in map(title, TWO_STEMS.names)]
    torch.testing.assert_close(sum(stems), wave, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("words", "status", "line"),
    [
        ("song.wav -o file", 1, "file: cannot be written to"),
        ("song.wav -m nope", 2, "nope: no such file; give a model file, or a name that `separator "
         "models` lists (tiny-vocals)"),
        ("song.wav -m nope --backend onnx", 2, "lists (tiny-vocals)"),
        ("song.wav -m folder", 2, "is a folder; give the model file in it, such as "
         "folder/model.safetensors"),
        ("song.wav -m nope --report folder", 2, "report: folder is a folder; give the name of"),
        ("song.wav ''", 2, "inputs: a word is empty; give a value, or leave it out"),
        ("folder", 1, "no songs found"),
        (f"song.wav -o {'x' * 256}", 2, "xxx: File name too long"),
        (f"song.wav --report {'x' * 256}", 2, "xxx: File name too long"),
        ("song.wav https://host/song.mp3", 2, "inputs: https://host/song.mp3: give a file on this "
         "machine; download it first"),
        ("song.wav -m hf:one", 2, "hf:one: give hf:OWNER/NAME"),
        ("song.wav --device tpu", 2, "separator: --device: 'tpu' is not on this machine"),
        ("song.wav --backend onnx --device cuda", 2, "separator: --device: the backend onnx"),
        ("song.wav --stems drums", 2, "stems: this model has no drums"),
        ("song.wav --two-stems bass", 2, "separator: --two-stems: this model has no bass"),
        ("song.wav --overlap 7", 2, "separator: --overlap: 7.0 is not in [0, 6.0]"),
        ("song.wav --weights 1,2", 2, "separator: --weights: 2 for 1 model;"),
        ("song.wav --report folder", 2, "report: folder is a folder"),
        ("song.wav --report song.wav", 2, "report: song.wav is no report that can be replaced"),
        ("song.wav --report zeros", 2, "report: zeros is no report that can be replaced"),
        ("song.wav --report binary", 2, "report: binary is no report that can be replaced"),
        ("song.wav --mix vocals=off,instrumental=off", 2, "--mix: all stems are off; leave one"),
        ("song.wav --name a/../{title}.{format}", 2, "--name: '..' leads out of the output folder"),
        ("", 2, "separator: songs or folders of songs are not given; --help has examples"),
        ("song.wav -o stems/all --report stems", 2, "report: stems would be the folder of the"),
        ("song.wav --stems --name {title}.{format}", 2, "name: has no {stem}"),
        ("song.wav --batch 0", 2, "batch: 0"),
        ("song.wav --bitrate 9", 2, "bitrate: 9"),
        ("song.wav --format wma", 2, "format"),
        ("song.wav --formt wav", 2, "did you mean '--format'"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(
    words: str, status: int, line: str, capsys: pytest.CaptureFixture
) -> None:
    song("song.wav", 0.1)
    Path("file").write_text("")
    Path("zeros").write_bytes(b"ID3\0\0")
    Path("binary").write_bytes(b"\xff\xfb")
    Path("folder").mkdir()
    assert run(*shlex.split(words)) == status
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert line in errors[0]
    assert not Path("stems").exists() or not files("stems")


def test_songs_are_looked_for_before_a_model_is_loaded(capsys, caplog, monkeypatch) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(api, "load", lambda *_, **__: pytest.fail("loads"))
    Path("text.mp3").write_text("no music")
    assert run("gone.mp3", "text.mp3", "--report", "report.json") == 1
    assert capsys.readouterr().err.splitlines() == [
        "separator: gone.mp3: No such file or directory; check the name",
        "separator: text.mp3: is no audio file, or is too damaged to be read; check that it plays",
    ]
    assert json.loads(Path("report.json").read_text())["summary"]["failed"] == 2
    assert "2 songs: 2 failed" in caplog.text
    for source in ("gone.mp3", ["gone.mp3"]):
        with pytest.raises(SeparatorError, match=r"gone\.mp3: No such file"):
            api.separate(source)


@pytest.mark.parametrize(
    ("removed", "line"),
    [
        ("song.wav", "song.wav: removed while it was separated"),
        ("out", "song.wav: out was removed meanwhile"),
    ],
)
def test_what_is_removed_meanwhile_is_named(removed: str, line: str, monkeypatch, capsys) -> None:
    song("song.wav")

    def remove(*_: object) -> None:
        Path(removed).unlink() if removed == "song.wav" else shutil.rmtree(removed)

    monkeypatch.setattr(files_of, "copy_tags", remove)
    assert run("song.wav", "-o", "out") == 1
    assert capsys.readouterr().err == f"separator: {line}; run the command again\n"
    assert not Path("out").exists() or not files("out")


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_leave_what_is_finished_and_nothing_else(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    song("music/a.wav", 0.1)
    song("music/b.wav", 0.1)
    usual = audio.blocks

    def interrupted(path: Path, **options: object) -> Iterator[torch.Tensor]:
        for block in usual(path, **options):
            if Path(path).name == "b.wav":
                assert any(".part" in name for name in files("out"))
                os.kill(os.getpid(), number)
            yield block

    before = [signal.getsignal(one) for one in STOP_SIGNALS]
    with monkeypatch.context() as patch:
        patch.setattr(audio, "blocks", interrupted)
        assert run("music", "-o", "out", "--jobs", "1") == 128 + number
    assert [signal.getsignal(one) for one in STOP_SIGNALS] == before
    assert files("out") == ["a (Instrumental).wav"]
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("separator: stopped by ") and line.endswith(
        "goes on with the songs left"
    )
    assert run("music", "-o", "out") == 0
    assert files("out") == ["a (Instrumental).wav", "b (Instrumental).wav"]


TWICE = """
import os, signal, sys
from separator.inference.stopping import stoppable
with stoppable() as stop:
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except KeyboardInterrupt:
        os.kill(os.getpid(), signal.SIGHUP)  # a terminal that closes sends several
        print("cleaning up", flush=True)
        os.kill(os.getpid(), signal.SIGINT)
        print("not reached", flush=True)
"""


def test_a_second_ctrl_c_ends_at_once() -> None:
    done = subprocess.run([sys.executable, "-c", TWICE], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "cleaning up\n", "")


def test_ignored_signals_stay_ignored() -> None:
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopping.stoppable() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
        assert stop.number == 0 and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_temporary_files_of_dead_processes_go_whatever_their_song(tmp_path: Path) -> None:
    song("song.wav", 0.1)
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    dead = Path(f"stems/.other (Vocals).{process.pid}-{atomic._machine()}.part.flac")
    dead.parent.mkdir()
    living = dead.with_name(f".other (Vocals).{os.getppid()}.part.flac")
    for path in (dead, living):
        path.touch()
    assert run("song.wav") == 0
    assert not dead.exists() and living.exists()


class Gone(io.StringIO):
    """A stream whose reader has gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


@pytest.mark.parametrize("stream", [None, Gone()])
@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_without_a_reader_it_works_in_silence(
    name: str, stream: io.StringIO | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    song("song.wav", 0.1)
    with monkeypatch.context() as patch:
        patch.setattr(sys, name, stream)
        assert separate.main(["song.wav"]) == 0
        assert separate.main(["absent.wav"]) == 1
    assert files("stems") == ["song (Instrumental).flac"]


def test_sound_files_of_other_kinds_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    song("music/song.wav", 0.1)
    for name in ("a.mid", "b.mid", "c.xm", "cover.jpg"):
        Path("music", name).write_bytes(b"some")
    assert run("music") == 0
    assert "music: 3 files of other kinds left out: .mid 2, .xm 1" in caplog.text


def test_a_pipe_is_refused_at_once(capsys: pytest.CaptureFixture) -> None:
    os.mkfifo("x.wav")
    assert run("x.wav") == 1
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("separator: ")]
    assert "x.wav" in line


@pytest.mark.parametrize("strict", [False, True])
def test_strict_reaches_the_decoder(strict: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    song("song.wav", 0.1)
    asked, usual = [], audio.blocks

    def blocks(path: Path, **options: object) -> Iterator[torch.Tensor]:
        asked.append(options)
        return usual(path, **options)

    monkeypatch.setattr(audio, "blocks", blocks)
    assert run("song.wav", *["--strict"][:strict]) == 0
    assert asked == [{"strict": strict}]


def test_what_a_header_said_wrongly_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    song("song.wav", 0.1)
    info = dataclasses.replace(audio.probe("song.wav"), notices=("its header counts wrongly",))
    monkeypatch.setattr(audio, "probe", lambda path: info)
    assert run("song.wav") == 0
    assert "song.wav: its header counts wrongly" in caplog.text


@pytest.mark.parametrize(
    ("number", "fix"),
    [
        (errno.ENOSPC, "; free some space on the disk of stems, or choose another with -o"),
        (errno.EACCES, "; stems does not let files be written, choose another with -o"),
        (errno.EINVAL, ""),
        (errno.EIO, ""),
    ],
)
def test_only_true_reasons_are_given(
    number: int, fix: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    song("song.wav", 0.1)

    def failing(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files_of.Publication, "commit", lambda *_: failing(0))
    assert run("song.wav") == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == f"separator: song.wav: {os.strerror(number)}{fix}"
    assert files("stems") == []


MEASURE = """
import resource, sys
from separator.cli import main
for song in sys.argv[1:]:
    for kind in ("wav", "flac"):
        main(["separate", song, "--overwrite", "--format", kind])
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_length() -> None:
    part = song("part.wav", 30)
    for parts in (1, 6):
        with audio.Writer(f"{parts}.flac", 44100, 2) as writer:
            for _ in range(parts):
                writer.write(part)
    command = [sys.executable, "-c", MEASURE, "1.flac", "6.flac"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    peaks = [int(line.split()[1]) for line in done.stdout.splitlines() if line[:4] == "peak"]
    assert len(list(Path("stems").iterdir())) >= 4
    assert peaks[1] < 1.1 * peaks[0]

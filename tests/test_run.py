"""A run of `separator separate` over a library: report, summary, dry run, names, watching."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import mutagen
import numpy as np
import pytest

from separator import Separator, audio
from separator.inference import watch
from separator.inference.run_report import RunReport
from tests.songs import export_model, files, in_tmp, model, run, song  # noqa: F401

pytestmark = pytest.mark.usefixtures("in_tmp")


def test_report_and_summary(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    song("music/a.flac", 0.5)
    song("music/b.wav", 1.5)
    Path("music/text.mp3").write_text("no song\n" * 100)
    assert run("music", "--format", "flac", "--report", "out/all.json") == 1
    report = json.loads(Path("out/all.json").read_text())
    assert sorted(row["song"] for row in report["songs"]) == ["music/a.flac", "music/b.wav"]
    assert sum(row["seconds"] for row in report["songs"]) == pytest.approx(2)
    assert {row["gain_db"] for row in report["songs"]} == {0}
    assert all(Path(path).is_file() for row in report["songs"] for path in row["outputs"])
    (failure,) = report["failures"]
    assert failure["song"] == "music/text.mp3" and failure["error"].startswith("is no audio file")
    summary = report["summary"]
    assert (summary["separated"], summary["already_there"], summary["failed"]) == (2, 0, 1)
    assert summary["speed"] == pytest.approx(2 / summary["elapsed"])
    assert 0 <= summary["model_idle_share"] < 1
    assert "3 songs: 2 separated, 1 failed; 2.0 s of music in " in caplog.text
    caplog.clear()
    assert run("music", "--format", "flac") == 1
    assert "3 songs: 2 already there, 1 failed\n" in caplog.text
    assert run("music", "--format", "flac", "--report", "out/all.md") == 1
    assert "\n| music/text.mp3 | is no audio file" in Path("out/all.md").read_text()
    assert run("music/a.flac", "--format", "wav", "--report", "out/all.md") == 0
    lines = Path("out/all.md").read_text().splitlines()
    assert lines[0].startswith("1 song: 1 separated; 0.5 s of music in ")
    assert lines[-1].startswith("| music/a.flac | separated | 0.5 | ")


def test_a_report_lists_songs_that_were_there_without_decoding_them(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    song("music/a.flac", 0.5)
    song("music/b.flac", 0.25, seed=3)
    assert run("music", "--report", "all.json") == 0
    before = {row["song"]: row for row in json.loads(Path("all.json").read_text())["songs"]}
    song("music/c.flac", 1.0, seed=4)
    song("music/d.flac", 1.0, seed=5)
    decode, decoded = audio.blocks, []

    def blocks(path: Path, **options: object) -> Iterator:
        decoded.append(str(path))
        return decode(path, **options)

    monkeypatch.setattr(audio, "blocks", blocks)
    assert run("music", "--report", "all.json") == 0
    assert sorted(decoded) == ["music/c.flac", "music/d.flac"]
    report = json.loads(Path("all.json").read_text())
    rows = {row["song"]: row for row in report["songs"]}
    there, done = "already there", "separated"
    assert {name: row["status"] for name, row in rows.items()} == {
        **{"music/a.flac": there, "music/b.flac": there},
        **{"music/c.flac": done, "music/d.flac": done},
    }
    for name, row in before.items():
        nothing = {"status": there, "model_seconds": None, "speed": None, "gain_db": None}
        assert rows[name] == row | nothing  # the same results and seconds of sound
    summary = report["summary"]
    assert (summary["separated"], summary["already_there"], summary["failed"]) == (2, 2, 0)
    assert (summary["seconds"], summary["seconds_already_there"]) == (2, 0.75)
    assert summary["speed"] == pytest.approx(2 / summary["elapsed"])
    assert "4 songs: 2 separated, 2 already there; 2.0 s of music in " in caplog.text
    assert run("music", "--report", "all.md") == 0
    assert "| music/a.flac | already there | 0.5 | - | - |" in Path("all.md").read_text()


def test_the_report_of_a_watched_song_that_is_done_again_and_then_fails() -> None:
    report = RunReport({})
    assert report.sentence() == "0 songs"
    song = audio.AudioInfo(Path("a.wav"), "wav", "pcm", 100 * 8000, 8000, 2)
    for _ in range(2):
        report.add(song, [], spent=9.0)
        report.elapsed += 10
    sums = report.summary()
    assert (sums["separated"], sums["seconds"], sums["speed"]) == (1, 200, 10)
    report.fail("a.wav", "a.wav: is damaged")
    report.elapsed += 20
    sums = report.summary()
    assert (sums["separated"], sums["failed"], sums["speed"]) == (0, 1, 5)
    report.add(song, [])  # as it was before
    sums = report.summary()
    assert (sums["already_there"], sums["failed"], sums["seconds"]) == (1, 0, 200)
    report.seconds, report.elapsed = 36_000, 600
    assert report.sentence() == (
        "1 song: 1 already there; 10.0 h of music in 10.0 min, 60.0 times real time"
    )


def test_one_model_works_on_one_song_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many jobs there are, a GPU holds one batch, and torch has one set of threads."""
    calls, busy, masked = [], threading.Lock(), Separator._masked

    def watched(self: Separator, mixtures: np.ndarray) -> np.ndarray:
        assert busy.acquire(blocking=False)
        try:
            calls.append((threading.get_ident(), len(mixtures)))
            time.sleep(0.01)
            return masked(self, mixtures)
        finally:
            busy.release()

    monkeypatch.setattr(Separator, "_masked", watched)
    for number in range(8):
        song(f"music/{number}.flac", 2.5, seed=number)
    words = ("--stems", "--chunk", "1", "--overlap", "0", "--batch", "2")
    assert run("music", "--jobs", "8", *words) == 0
    assert len(files("stems")) == 16
    assert {thread for thread, _ in calls} == {threading.get_ident()}
    assert [size for _, size in calls].count(2) == 8 and max(size for _, size in calls) == 2


def test_a_dry_run_tells_and_writes_nothing(capsys: pytest.CaptureFixture) -> None:
    song("music/a.flac", 0.1)
    song("music/deep/b.wav", 0.1)
    assert run("music", "--stems", "--format", "mp3", "--dry-run", "--report", "all.json") == 0
    names = capsys.readouterr().out.splitlines()
    assert not Path("stems").exists() and not Path("all.json").exists()
    assert run("music", "--stems", "--format", "mp3") == 0
    assert sorted(names) == [f"stems/{name}" for name in files("stems")]


def tag(path: str, **tags: str) -> None:
    file = mutagen.File(path, easy=True)
    if file.tags is None:
        file.add_tags()
    for key, value in tags.items():
        file[key] = value
    file.save()


def test_names_from_tags_are_safe_and_collisions_are_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    words = ("--format", "flac", "--stems", "--name")
    template = "{artist}/{album}/{track} {title} ({stem}).{format}"
    for name in ("a.flac", "b.mp3", "c.ogg"):
        song(name, 0.1)
    song("plain.wav", 0.1, seed=7)
    for name, seed in (("a.flac", 1), ("b.mp3", 2)):
        song(name, 0.1, seed=seed)
        tag(name, artist="AC/DC: Live?", album="...Nul. ", title="Jack*", tracknumber="3/12")
    tag("c.ogg", albumartist="CON", title="../x")
    for again in (False, True):
        assert run("a.flac", "b.mp3", "c.ogg", "plain.wav", *words, template) == 0
        assert files("stems") == [
            *(f"AC-DC_ Live_/Nul_/03 Jack_{number} ({stem}).flac"
              for number in ("", " 2") for stem in ("Instrumental", "Vocals")),
            *(f"CON_/Unknown album/00 ..-x ({stem}).flac" for stem in ("Instrumental", "Vocals")),
            *(f"Unknown artist/Unknown album/00 plain ({stem}).flac"
              for stem in ("Instrumental", "Vocals")),
        ]  # fmt: skip
        taken = "03 Jack_ (Instrumental).flac is another song's result; this song's is stems/AC-DC_"
        assert (taken in caplog.text) == (not again)
        assert ("4 songs: separated already" in caplog.text) == again
        caplog.clear()
    assert run("a.flac", *words, "{stem}/{title}.{format}", "-o", "apart") == 0
    assert run("a.flac", *words, "{stem}/{title}.{format}", "-o", "apart") == 0
    assert files("apart") == ["Instrumental/Jack_.flac", "Vocals/Jack_.flac"]


def test_songs_are_never_replaced_by_results(capsys: pytest.CaptureFixture) -> None:
    for name, title in (("Foo", "Foo"), ("Bar", "Baz"), ("Baz", "")):
        song(f"music/{name}.flac", 0.1, seed=len(title) + ord(name[2]))
        tag(f"music/{name}.flac", title=title or "Other")
    before = {path: path.read_bytes() for path in Path("music").iterdir()}
    words = ("-o", "music", "--name", "{title}.{format}", "--overwrite")
    assert run("music", *words) == 0
    assert files("music") == [
        *("Bar.flac", "Baz 2.flac", "Baz.flac", "Foo 2.flac", "Foo.flac", "Other.flac")
    ]
    assert all(path.read_bytes() == content for path, content in before.items())
    Path("music/Baz 2.flac").unlink()
    assert run("music/Bar.flac", *words) == 1  # Baz is not among the songs now
    assert "exists and may be a song; add {stem} to --name" in capsys.readouterr().err
    assert all(path.read_bytes() == content for path, content in before.items())


def test_a_watched_folder_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = watch.Watch()
    assert [seen.passes(Path("nowhere")) for _ in range(3)] == [False, True, False]


def test_a_report_that_is_a_folder_is_refused_before_the_work(
    capsys: pytest.CaptureFixture,
) -> None:
    song("song.wav", 0.1)
    Path("folder").mkdir()
    assert run("song.wav", "--report", "folder") == 2
    assert "report: folder is a folder" in capsys.readouterr().err
    assert not Path("stems").exists()


@pytest.mark.parametrize(
    ("template", "line"),
    [
        ("{titel} ({stem}).{format}", "--name: {titel} is not one of artist"),
        ("{title} ({stem}).flac", "--name: does not end in .{format}"),
        ("{stem}.{format}", "--name: has no field of the song"),
        ("{title.{format}", "--name: "),
        ("{title}.{format}", "--name: has no {stem}, but 2 stems"),
    ],
)
def test_mistakes_in_names_are_one_line(
    template: str, line: str, capsys: pytest.CaptureFixture
) -> None:
    song("song.wav", 0.1)
    assert run("song.wav", "--stems", "--name", template) in (1, 2)
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"separator: {line}")
    assert not Path("stems").exists()


def test_watching_waits_for_whole_files(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(watch, "WATCH_SECONDS", 0.1)
    song("music/old.wav", 0.1)
    song("elsewhere.wav", 0.3)
    whole = Path("elsewhere.wav").read_bytes()

    def listener() -> None:
        with open("music/new.wav", "wb") as file:
            for at in range(0, len(whole), 10_000):
                file.write(whole[at : at + 10_000])
                file.flush()
                time.sleep(0.02)
        deadline = time.monotonic() + 30
        report = Path("all.json")
        while time.monotonic() < deadline:
            if report.exists() and report.read_text().count('"outputs"') == 2:
                break
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=listener)
    thread.start()
    assert run("music", "--watch", "--report", "all.json") == 130
    thread.join()
    assert files("stems") == ["new (Instrumental).wav", "old (Instrumental).wav"]
    report = json.loads(Path("all.json").read_text())
    assert [row["song"] for row in report["songs"]] == ["music/new.wav", "music/old.wav"]
    assert not report["failures"]
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("separator: ")]
    assert line.startswith("separator: stopped by Ctrl-C")


def test_a_file_as_the_output_is_refused(capsys: pytest.CaptureFixture):
    song("music/one.wav", 0.5)
    assert run("music/one.wav", "-o", "instrumental.mp3") == 2
    assert (
        "output: instrumental.mp3 is the name of a file; give a folder" in capsys.readouterr().err
    )
    assert not Path("instrumental.mp3").exists()
    Path("album.mp3").mkdir()
    assert run("music/one.wav", "-o", "album.mp3", "--dry-run") == 0


@pytest.mark.parametrize("words", ["Vocals", "vocals,Instrumental", "vocal"])
def test_words_behind_stems_are_stems(words: str, capsys: pytest.CaptureFixture):
    """Capitals and commas are read; a misspelt stem is no song."""
    song("music/one.wav", 0.5)
    known = words != "vocal"
    for order in (["music/one.wav", "--stems", words], ["--stems", words, "music/one.wav"]):
        assert run(*order, "-o", "out", "--overwrite") == (0 if known else 2)
        assert known or "has no vocal, only" in capsys.readouterr().err
    written = {path.name for path in Path("out").glob("*")} - {".separator.jsonl"}
    stems = [name.capitalize() for name in words.split(",")] if known else []
    assert written == {f"one ({stem}).wav" for stem in stems}

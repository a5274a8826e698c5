"""The library scan against real files of every format, damage of every kind, and crashes."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mutagen
import numpy as np
import pytest
import soundfile
import torch

from separator import audio
from separator.cli import scan_command
from separator.data.library import examination, scan_report
from separator.data.library import scan as library
from separator.data.library.index import Content, Finding, Index, Stamp
from separator.errors import SeparatorError

RATE = 44100
SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".opus", ".m4a", ".aiff")


def song(seed: int, seconds: float = 1.0) -> np.ndarray:
    """Return (t c): a tone under noise, other than that of any other seed."""
    noise = np.random.default_rng(seed).standard_normal((round(seconds * RATE), 2))
    tone = np.sin(np.arange(len(noise)) * 0.05)[:, None]
    return (0.3 * tone + 0.05 * noise).astype("float32")


def write(path: Path, wave: np.ndarray, rate: int = RATE, subtype: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rate = 48000 if path.suffix == ".opus" else rate
    if path.suffix == ".m4a":
        with audio.Writer(path, rate, wave.shape[1]) as writer:
            writer.write(torch.from_numpy(wave.T.copy()))
    else:
        kinds = {".opus": ("OGG", "OPUS"), ".ogg": ("OGG", "VORBIS"), ".aiff": ("AIFF", None)}
        kind, default = kinds.get(path.suffix, (None, None))
        soundfile.write(path, wave, rate, subtype=subtype or default, format=kind)
    return path


@pytest.fixture
def scan(tmp_path: Path) -> Callable[..., library.Library]:
    """Scan folders into an index of this test alone, in this process."""

    def run(*roots: Path, jobs: int | None = 1) -> library.Library:
        return library.scan(roots, tmp_path / "index" / "i.sqlite", jobs)

    return run


def shape(info: audio.AudioInfo) -> tuple:
    """What the index keeps of a song."""
    fields = ("path", "format", "codec", "samples", "rate", "channels", "streams")
    return tuple(getattr(info, field) for field in fields)


def reasons(found: library.Library) -> dict[str, str]:
    return {path.name: reason for path, reason in found.quarantined}


def forbid(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Make functions of `separator.audio` fail the test when they are called."""

    def refuse(path: Path) -> None:
        pytest.fail(f"{path} was opened")

    for name in names:
        monkeypatch.setattr(audio, name, refuse)


# what is found


def test_every_format_is_described_as_the_decoder_sees_it(tmp_path: Path, scan) -> None:
    paths = [write(tmp_path / f"a/b/{i}{s}", song(i)) for i, s in enumerate(SUFFIXES)]
    write(tmp_path / "a/b/UPPER.WAV", song(9))
    found = scan(tmp_path / "a")
    assert found.quarantined == [] and found.duplicates == []
    assert [info.path for info in found.songs] == [*paths, tmp_path / "a/b/UPPER.WAV"]
    for info in found.songs:
        assert audio.read(info.path).shape == (info.channels, info.samples)
        assert shape(info) == shape(audio.probe(info.path))
    assert found.totals()["formats"]["wav"] == 2
    assert found.totals()["rates"] == {"44100": 7, "48000": 1}
    assert found.totals()["hours"] == pytest.approx(8 / 3600, abs=1e-4)


def test_real_songs(tmp_path: Path, shared_data: Path, scan) -> None:
    for path in sorted((shared_data / "songs").glob("*.mp3"), key=os.path.getsize)[:1]:
        shutil.copyfile(path, tmp_path / path.name)
        (tmp_path / "cut").mkdir(exist_ok=True)
        (tmp_path / "cut" / path.name).write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    found = scan(tmp_path)
    assert len(found.songs) == 1 and found.songs[0].seconds > 60
    assert {path.parent.name for path, _ in found.quarantined} == {"cut"}


def test_a_file_of_several_streams(tmp_path: Path, example_stem: Path, scan) -> None:
    shutil.copyfile(example_stem, tmp_path / "song.stem.mp4")
    first, second = scan(tmp_path).songs, scan(tmp_path).songs
    assert first == second
    assert shape(first[0]) == shape(audio.probe(tmp_path / "song.stem.mp4"))
    assert first[0].streams == 5


def test_hidden_partial_and_foreign_files_are_left_out(tmp_path: Path, scan) -> None:
    kept = write(tmp_path / "m/kept.wav", song(0))
    for name in ("m/.hidden.wav", "m/.folder/a.wav", "m/a.wav.part", "m/a.part.wav", "m/a.txt"):
        shutil.copyfile(kept, (tmp_path / name).parent.mkdir(exist_ok=True) or tmp_path / name)
    found = scan(tmp_path / "m")
    assert [info.path for info in found.songs] == [kept] and found.totals()["files"] == 1


def test_links_in_circles_end(tmp_path: Path, scan) -> None:
    kept = write(tmp_path / "m/z/kept.wav", song(0))
    (tmp_path / "m/a").symlink_to(tmp_path / "m")
    (tmp_path / "m/b").symlink_to(tmp_path / "m/z")
    (tmp_path / "m/z/up").symlink_to(tmp_path / "m")
    (tmp_path / "m/self").symlink_to(tmp_path / "m/self")
    (tmp_path / "m/self.wav").symlink_to(tmp_path / "m/self.wav")
    (tmp_path / "m/gone.mp3").symlink_to(tmp_path / "nowhere.mp3")
    os.mkfifo(tmp_path / "m/pipe.ogg")
    found = scan(tmp_path / "m")
    assert [info.path for info in found.songs] == [kept]
    assert sorted(reasons(found)) == ["gone.mp3", "self.wav"]
    assert found.passed_over == {"pipes, sockets or devices": 1, "files without sound": 1}
    assert all(reason.startswith("unreadable: ") for reason in reasons(found).values())


def test_two_roots_one_inside_the_other(tmp_path: Path, scan) -> None:
    one = write(tmp_path / "x/one.wav", song(1))
    two = write(tmp_path / "y/two.flac", song(2))
    inner = write(tmp_path / "y/deep/inner.wav", song(3))
    found = scan(tmp_path / "y", tmp_path / "x", tmp_path / "y/deep", tmp_path / "x")
    assert [info.path for info in found.songs] == [one, inner, two]
    assert found.duplicates == []
    assert [info.path for info in scan(tmp_path / "x").songs] == [one]


def test_names_that_are_no_text(tmp_path: Path, scan) -> None:
    folder = tmp_path / "m"
    raw = {"a.m4a": b"caf\xe9 \n\t.m4a", "b.mp3": b"\xff\t.mp3"}
    write(folder / "a.m4a", song(1))
    (folder / "b.mp3").touch()
    for name, other in raw.items():
        os.rename(folder / name, os.fsencode(folder / "x")[:-1] + other)
    found = scan(folder)
    assert scan(folder) == found
    assert os.fsencode(found.songs[0].path.name) == raw["a.m4a"]
    for name in ("r.tsv", "r.json"):
        scan_report.write_report(found, tmp_path / name)
    rows = (tmp_path / "r.tsv").read_text("utf-8").splitlines()
    assert rows[-1].split("\t")[0] == "quarantined" and rows[-1].count("\t") == 2
    assert rows[-1].split("\t")[1].endswith(r"ff\t.mp3")
    name = json.loads((tmp_path / "r.json").read_text())["quarantined"][0]["path"]
    assert os.fsencode(name).endswith(raw["b.mp3"])


# what is quarantined


def test_truncated_files_of_every_format(tmp_path: Path, scan) -> None:
    for i, suffix in enumerate(SUFFIXES):
        whole = write(tmp_path / f"whole/{i}{suffix}", song(i, 3.0)).read_bytes()
        for share in (0.02, 0.4, 0.95):
            (tmp_path / "cut").mkdir(exist_ok=True)
            (tmp_path / f"cut/{share}{suffix}").write_bytes(whole[: round(len(whole) * share)])
    found = scan(tmp_path)
    told = {path.name for path, _ in (*found.quarantined, *found.notices)}
    assert told == {f"{share}{suffix}" for share in (0.02, 0.4, 0.95) for suffix in SUFFIXES}
    assert {path.parent.name for path, _ in found.notices} <= {"cut"}
    missing = {path.name for path, _ in found.notices}  # the end alone is, and the rest is used
    assert missing <= {f"0.95{suffix}" for suffix in SUFFIXES}
    assert {path.parent.name for path, _ in found.quarantined} == {"cut"}
    assert {reason.split(":")[0] for _, reason in found.quarantined} == {"truncated", "broken"}
    assert all("\n" not in reason and "/" not in reason for _, reason in found.quarantined)
    assert reasons(found)["0.4.wav"].startswith("truncated: ")


def test_every_kind_of_unfit_file_has_its_reason(tmp_path: Path, scan) -> None:
    bad = song(0)
    bad[100, 0], bad[200, 1] = np.nan, np.inf
    write(tmp_path / "m/nan.wav", bad, subtype="FLOAT")
    write(tmp_path / "m/zeros.flac", np.zeros((RATE, 2)))
    write(tmp_path / "m/hum.wav", np.full((RATE, 1), 0.9e-4), subtype="FLOAT")
    write(tmp_path / "m/no samples.wav", np.zeros((0, 2)))
    (tmp_path / "m/empty.mp3").touch()
    (tmp_path / "m/text.mp3").write_text("<html>404 \u2013 not found</html>\n" * 100)
    (tmp_path / "m/text.m4a").write_text("a")
    (tmp_path / "m/noise.ogg").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "m/zero bytes.flac").write_bytes(bytes(5000))
    found = scan(tmp_path / "m")
    assert found.songs == []
    kinds = {name: reason.split(":")[0] for name, reason in reasons(found).items()}
    assert kinds == {
        **{"nan.wav": "non-finite", "zeros.flac": "silent", "hum.wav": "silent"},
        **{"empty.mp3": "empty", "text.mp3": "not audio", "text.m4a": "not audio"},
        **{"noise.ogg": "broken", "zero bytes.flac": "broken", "no samples.wav": "broken"},
    }
    assert reasons(found)["nan.wav"] == "non-finite: 2 samples are NaN or infinite"
    assert scan(tmp_path / "m") == found


def test_short_quiet_and_loud_songs_are_kept(tmp_path: Path, scan) -> None:
    write(tmp_path / "m/10 ms.wav", song(0, 0.01))
    write(tmp_path / "m/one.wav", np.full((1, 1), 0.5))
    write(tmp_path / "m/quiet.wav", np.full((RATE, 1), 1.1e-4), subtype="FLOAT")
    write(tmp_path / "m/loud.wav", 20 * song(1), subtype="FLOAT")
    write(tmp_path / "m/slow.wav", song(2), rate=8000)
    found = scan(tmp_path / "m")
    assert len(found.songs) == 5 and found.quarantined == []


def test_files_that_cannot_be_opened_are_tried_again(tmp_path: Path, scan, monkeypatch) -> None:
    write(tmp_path / "m/a.wav", song(0))
    write(tmp_path / "m/locked/b.wav", song(1))
    scandir = os.scandir

    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    with monkeypatch.context() as patch:
        patch.setattr(examination, "_not_audio", refuse)
        patch.setattr(
            os, "scandir", lambda p: refuse(p) if str(p).endswith("locked") else scandir(p)
        )
        found = scan(tmp_path / "m")
    assert found.songs == []
    assert reasons(found) == {
        "a.wav": "unreadable: Permission denied",
        "locked": "unreadable: the folder cannot be opened (Permission denied)",
    }
    assert len(scan(tmp_path / "m").songs) == 2


def test_a_decoder_s_surprise_is_that_file_s_flaw_only(tmp_path: Path, scan, monkeypatch) -> None:
    write(tmp_path / "m/a.wav", song(0))
    write(tmp_path / "m/b.wav", song(1))
    verify = audio.verify

    def surprise(path: str) -> audio.Checked:
        if path.endswith("a.wav"):
            raise ValueError("two\nlines")
        return verify(path)

    monkeypatch.setattr(audio, "verify", surprise)
    found = scan(tmp_path / "m")
    assert [info.path.name for info in found.songs] == ["b.wav"]
    assert reasons(found) == {"a.wav": "broken: ValueError: two lines"}


# what is known again


def test_moved_and_retagged_files_are_not_decoded_again(tmp_path: Path, scan, monkeypatch) -> None:
    for i, suffix in enumerate(SUFFIXES):
        write(tmp_path / f"m/{i}{suffix}", song(i))
    before = scan(tmp_path / "m").songs
    for i, suffix in enumerate(SUFFIXES):
        path = tmp_path / f"m/new/{i}{suffix}"
        path.parent.mkdir(exist_ok=True)
        os.rename(tmp_path / f"m/{i}{suffix}", path)
        tags = mutagen.File(path, easy=True)
        if tags.tags is None:
            tags.add_tags()
        if suffix in (".wav", ".aiff"):
            tags["TIT2"] = mutagen.id3.TIT2(encoding=3, text="A title " * 50)
        else:
            tags["title"] = "A title " * 50
        tags.save()
    forbid(monkeypatch, "verify")
    after = scan(tmp_path / "m").songs
    assert [info.path.parent.name for info in after] == ["new"] * len(SUFFIXES)
    assert [(i.samples, i.rate, i.codec) for i in after] == [
        (i.samples, i.rate, i.codec) for i in before
    ]


def test_duplicates_are_named_after_the_first_path(tmp_path: Path, scan, monkeypatch) -> None:
    first = write(tmp_path / "m/b.wav", song(0))
    for name in ("c.wav", "d/a.wav", "e.wav"):
        (tmp_path / "m" / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(first, tmp_path / "m" / name)
    write(tmp_path / "m/other.wav", song(1))
    for name in ("s.wav", "t.wav"):
        write(tmp_path / "m" / name, np.zeros((RATE, 2)))
    decoded = []
    verify = audio.verify
    monkeypatch.setattr(audio, "verify", lambda path: decoded.append(path) or verify(path))
    found = scan(tmp_path / "m")
    assert len(decoded) == 3  # the four copies and the two silences count once each
    assert [info.path.name for info in found.songs] == ["b.wav", "other.wav"]
    folder = tmp_path / "m"
    assert found.duplicates == [(folder / n, first) for n in ("c.wav", "d/a.wav", "e.wav")]
    assert sorted(reasons(found)) == ["s.wav", "t.wav"]


def test_changed_repaired_and_removed_files(tmp_path: Path, scan) -> None:
    path = write(tmp_path / "m/a.flac", song(0, 3.0))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 3])
    gone = write(tmp_path / "m/gone.wav", song(1))
    elsewhere = write(tmp_path / "n/c.wav", song(2))
    assert sorted(reasons(scan(tmp_path / "m", tmp_path / "n"))) == ["a.flac"]
    path.write_bytes(whole)
    gone.unlink()
    found = scan(tmp_path / "m")
    assert [info.path for info in found.songs] == [path] and found.quarantined == []
    with Index(tmp_path / "index/i.sqlite") as store:
        rows = store._db.execute("SELECT path FROM files ORDER BY path").fetchall()
        assert [os.fsdecode(row[0]) for row in rows] == [str(path), str(elsewhere)]
        broken = store._db.execute("SELECT count(*) FROM contents WHERE status <> 'ok'").fetchone()
        assert broken == (0,)  # what was said of the damaged file went with it


def test_an_unmounted_drive_does_not_cost_its_index(tmp_path: Path, scan, monkeypatch) -> None:
    for i in range(2):
        write(tmp_path / f"{i}/a.wav", song(i))
    assert len(scan(tmp_path / "0", tmp_path / "1").songs) == 2
    os.rename(tmp_path / "1", tmp_path / "away")
    (tmp_path / "1").mkdir()
    assert len(scan(tmp_path / "0", tmp_path / "1").songs) == 1
    (tmp_path / "1").rmdir()
    os.rename(tmp_path / "away", tmp_path / "1")
    forbid(monkeypatch, "verify", "content_key", "probe")
    assert len(scan(tmp_path / "0", tmp_path / "1").songs) == 2


def test_ten_thousand_known_files_are_not_opened(tmp_path: Path, scan, monkeypatch) -> None:
    first = write(tmp_path / "first.wav", song(0, 0.01))
    paths = [tmp_path / f"m/{i // 100:02}/{i % 100:02}.wav" for i in range(10_000)]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(first, path)
    status = os.stat(first)
    stamp = Stamp(status.st_size, status.st_mtime_ns)
    content = Content("wav", "pcm_16", 441, RATE, 2, 1)
    with Index(tmp_path / "index/i.sqlite") as store:
        store.record(Finding(str(p), stamp, f"key {i}", content) for i, p in enumerate(paths))
    forbid(monkeypatch, "verify", "content_key", "probe")
    monkeypatch.setattr(examination, "_not_audio", lambda path: pytest.fail(f"{path} opened"))
    found = scan(tmp_path / "m", jobs=None)
    assert [info.path for info in found.songs] == paths


# crashes


def run_script(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    script = folder / "script.py"
    script.write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=120
    )


SCRIPT = """
import os, signal
from separator import audio
from separator.data.library.scan import scan

verify, calls = audio.verify, []

def fatal(path):
    calls.append(path)
    if {condition}:
        os.kill(os.getpid(), signal.SIGKILL)
    return verify(path)

audio.verify = fatal  # in the worker processes too: they import this script
if __name__ == "__main__":
    found = scan([{root!r}], index={index!r}, jobs={jobs})
    print(len(found.songs), *[reason for _, reason in found.quarantined])
"""


def test_a_killed_scan_goes_on_where_it_was(tmp_path: Path, scan, monkeypatch) -> None:
    for i in range(8):
        write(tmp_path / f"m/{i}.wav", song(i, 0.05))
    index = tmp_path / "index/i.sqlite"
    values = {"root": str(tmp_path / "m"), "index": str(index), "jobs": 1}
    done = run_script(tmp_path, SCRIPT.format(condition="len(calls) == 6", **values))
    assert done.returncode == -9
    decoded = []
    verify = audio.verify
    monkeypatch.setattr(audio, "verify", lambda path: decoded.append(path) or verify(path))
    assert len(scan(tmp_path / "m").songs) == 8
    assert [Path(path).name for path in decoded] == ["5.wav", "6.wav", "7.wav"]


def test_processes_and_a_file_that_kills_them(tmp_path: Path) -> None:
    for i in range(5):
        write(tmp_path / f"m/{i}.wav", song(i, 0.05))
    write(tmp_path / "m/z killer.wav", song(9, 0.05))
    values = {"root": str(tmp_path / "m"), "index": str(tmp_path / "i.sqlite"), "jobs": 2}
    done = run_script(tmp_path, SCRIPT.format(condition="'killer' in path", **values))
    assert done.stdout == "5 broken: its decoder crashes or takes all the memory\n", done.stderr


def test_processes_that_do_not_start_condemn_no_file(tmp_path: Path, scan, monkeypatch) -> None:
    write(tmp_path / "m/a.wav", song(0, 0.05))
    write(tmp_path / "m/b.wav", song(1, 0.05))
    with monkeypatch.context() as patch:  # as in a script without `if __name__ == "__main__":`
        patch.setattr(examination, "start_process", sys.exit)
        with pytest.raises(SeparatorError, match="worker processes do not start; use jobs=1, or"):
            scan(tmp_path / "m", jobs=2)
    assert len(scan(tmp_path / "m").songs) == 2


# the command and its errors


def test_the_command_prints_totals_and_writes_reports(tmp_path: Path, capsys) -> None:
    write(tmp_path / "m/a.wav", song(0, 36))
    shutil.copyfile(tmp_path / "m/a.wav", tmp_path / "m/b.wav")
    write(tmp_path / "m/c.ogg", song(1))
    (tmp_path / "m/d.mp3").touch()
    roots, index = [str(tmp_path / "m")], ["--index", str(tmp_path / "i.sqlite"), "--jobs", "1"]
    assert scan_command.main([*roots, *index]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "files        4",
        "songs        2, 0.01 hours",
        "formats      wav 1, ogg 1",
        "rates        44100 Hz 2",
        "quarantined  1: empty 1",
        "duplicates   1",
        f"quarantined  {tmp_path}/m/d.mp3: empty: the file has no bytes",
        f"duplicate    {tmp_path}/m/b.wav, of {tmp_path}/m/a.wav",
    ]
    table, values = tmp_path / "out/r.tsv", tmp_path / "r.json"
    assert scan_command.main([*roots, *index, "--report", str(table)]) == 0
    assert scan_command.main([*roots, *index, "--report", str(values)]) == 0
    rows = [row for row in table.read_text().splitlines() if not row.startswith("#")]
    assert rows == [
        f"quarantined\t{tmp_path}/m/d.mp3\tempty: the file has no bytes",
        f"duplicate\t{tmp_path}/m/b.wav\t{tmp_path}/m/a.wav",
    ]
    report = json.loads(values.read_text())
    assert report["totals"] == {
        **{"files": 4, "songs": 2, "hours": 0.0103, "formats": {"wav": 1, "ogg": 1}},
        **{"rates": {"44100": 2}, "quarantined": {"empty": 1}, "duplicates": 1},
        **{"notices": 0, "passed_over": {}},
    }
    assert report["roots"] == roots
    assert report["quarantined"][0]["reason"] == "empty: the file has no bytes"
    assert report["duplicates"][0]["same_as"] == str(tmp_path / "m/a.wav")


def test_the_command_names_five_files_of_each_kind(tmp_path: Path, capsys) -> None:
    write(tmp_path / "m/song.wav", song(0, 0.05))
    for number in range(7):
        (tmp_path / f"m/{number}\x1b.mp3").touch()
    index = ["--index", str(tmp_path / "i.sqlite"), "--jobs", "1"]
    assert scan_command.main([str(tmp_path / "m"), *index]) == 0
    lines = capsys.readouterr().out.splitlines()
    named = [line for line in lines if ".mp3: empty" in line]
    assert [Path(line.split(": ")[0]).name for line in named] == [f"{n}\\x1b.mp3" for n in range(5)]
    assert lines[-1] == "             and 2 more; --report FILE lists all"


def test_errors_are_one_line_and_come_first(tmp_path: Path, scan, monkeypatch) -> None:
    write(tmp_path / "m/a.wav", song(0, 0.05))
    (tmp_path / "none").mkdir()
    (tmp_path / "other.sqlite").write_bytes(b"no database, but long enough" * 100)
    forbid(monkeypatch, "verify", "content_key", "probe")
    good = [str(tmp_path / "m")]
    cases = {
        f"{tmp_path}/gone: no such folder; give folders": [*good, str(tmp_path / "gone")],
        f"{tmp_path}/m/a.wav: is a file, not a folder": [*good, str(tmp_path / "m/a.wav")],
        f"{tmp_path}/none: no audio files; give": [str(tmp_path / "none")],
        "jobs: 0 is less than 1": [*good, "--jobs", "0"],
        f"report: {tmp_path} is a folder": [*good, "--report", str(tmp_path)],
        "unknown option '--job'; did you mean '--jobs'?": [*good, "--job", "1"],
        "other.sqlite: the index is damaged": [*good, "--index", str(tmp_path / "other.sqlite")],
        f"{tmp_path}/m: the index cannot be used": [*good, "--index", str(tmp_path / "m")],
    }
    for message, argv in cases.items():
        with pytest.raises(SeparatorError) as raised:
            scan_command.main(argv)
        assert message in str(raised.value) and "\n" not in str(raised.value)
    assert not (tmp_path / "index").exists()


def test_a_foreign_database_is_not_touched(tmp_path: Path) -> None:
    import sqlite3

    path = tmp_path / "theirs.sqlite"
    with sqlite3.connect(path) as theirs:
        theirs.execute("CREATE TABLE bookmarks (url TEXT)")
    theirs.close()
    before = path.read_bytes()
    with pytest.raises(SeparatorError, match="not a library index of version 5"):
        Index(path)
    assert path.read_bytes() == before


def test_a_report_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SeparatorError, match="give another path with --report"):
        scan_report.write_report(library.Library((), [], [], [], []), tmp_path / "file/r.json")


# what a header claims, and damage


def test_a_length_is_what_decodes_and_what_was_claimed_is_told(
    tmp_path: Path, scan, monkeypatch
) -> None:
    for name in ("longer.wav", "damaged.wav", "whole.wav"):
        write(tmp_path / "m" / name, song(len(name)))
    verify = audio.verify

    def checked(path: str) -> audio.Checked:
        found = verify(path)
        if path.endswith("longer.wav"):
            return dataclasses.replace(found, samples=2 * RATE)
        notices = ("damaged at 0:12, 0.03 s",) if path.endswith("damaged.wav") else ()
        return dataclasses.replace(found, notices=notices)

    monkeypatch.setattr(audio, "verify", checked)
    for found in (scan(tmp_path / "m"), scan(tmp_path / "m")):  # the second from the index
        assert [info.samples for info in found.songs] == [RATE, 2 * RATE, RATE]
        assert {path.name: notice for path, notice in found.notices} == {
            "damaged.wav": "damaged at 0:12, 0.03 s",
            "longer.wav": "2.0 s can be decoded, its header says 1.0 s",
        }
    assert "notices      2, of files that are used all the same" in scan_report.summary(found)
    scan_report.write_report(found, tmp_path / "r.json")
    scan_report.write_report(found, tmp_path / "r.tsv")
    values = json.loads((tmp_path / "r.json").read_text())
    assert values["totals"]["notices"] == 2
    assert values["notices"][0] == {
        "path": str(tmp_path / "m/damaged.wav"),
        "notice": "damaged at 0:12, 0.03 s",
    }
    path = tmp_path / "m/damaged.wav"
    assert f"notice\t{path}\tdamaged at 0:12, 0.03 s\n" in (tmp_path / "r.tsv").read_text()


def test_a_file_without_a_sample_that_decodes_is_broken(tmp_path: Path, scan, monkeypatch) -> None:
    write(tmp_path / "m/a.wav", song(0))
    verify = audio.verify
    monkeypatch.setattr(
        audio, "verify", lambda path: dataclasses.replace(verify(path), samples=0, peak=0.0)
    )
    assert reasons(scan(tmp_path / "m")) == {"a.wav": "broken: no sound can be decoded from it"}


# damage to the index


def test_a_damaged_index_is_one_line_or_does_not_matter(tmp_path: Path, scan) -> None:
    """Flip bits and cut: what cannot have been stored is examined again."""
    for i in range(6):
        write(tmp_path / f"m/{i}.wav", song(i, 0.02))
    (tmp_path / "m/empty.wav").touch()
    whole = scan(tmp_path / "m")
    index = tmp_path / "index/i.sqlite"
    sound, rng = index.read_bytes(), np.random.default_rng(0)
    outcomes = set()
    for trial in range(120):
        damaged = bytearray(sound)
        if trial % 10 == 9:
            del damaged[int(rng.integers(len(damaged))) :]
        else:
            at = rng.integers(len(damaged), size=1 + trial % 3 * 100)
            damaged[int(at[0])] ^= 1 << int(rng.integers(8))
            for place in at[1:]:
                damaged[int(place)] = int(rng.integers(256))
        for rest in index.parent.glob("i.sqlite-*"):
            rest.unlink()
        index.write_bytes(damaged)
        try:
            found = scan(tmp_path / "m")
        except SeparatorError as error:
            assert str(error).startswith(str(index)) and "\n" not in str(error)
            assert "delete" not in str(error) and "remove" not in str(error)
            outcomes.add("refused")
        else:
            assert {info.path for info in found.songs} <= {info.path for info in whole.songs}
            assert all(info.seconds > 0 and info.channels > 0 for info in found.songs)
            scan_report.summary(found)
            outcomes.add("same" if found == whole else "other")
    assert {"refused", "same"} <= outcomes


@pytest.mark.parametrize(
    "change", ["rate = 0", "samples = 'x'", "samples = -5", "status = x'ff'", "channels = NULL"]
)
def test_rows_that_cannot_be_right_are_examined_again(tmp_path: Path, scan, change: str) -> None:
    import sqlite3

    write(tmp_path / "m/a.wav", song(0, 0.02))
    before = scan(tmp_path / "m")
    with sqlite3.connect(tmp_path / "index/i.sqlite") as index:
        index.execute(f"UPDATE contents SET {change}")
    index.close()
    assert scan(tmp_path / "m") == before


def test_results_in_an_index_of_the_version_before_are_no_songs(tmp_path, scan, monkeypatch):
    import sqlite3

    write(tmp_path / "m/a.wav", song(0))
    result = write(tmp_path / "m/b.flac", song(1))
    with monkeypatch.context() as patch:  # as scans of that version were
        patch.setattr(examination, "_marked", lambda path: None)
        tags = mutagen.File(result)
        tags["separator"] = '{"made_by": {}}'
        tags.save()
        assert len(scan(tmp_path / "m").songs) == 2
    with sqlite3.connect(tmp_path / "index/i.sqlite") as index:
        index.execute("PRAGMA user_version = 4")
    index.close()
    forbid(monkeypatch, "verify")
    for _ in range(2):
        found = scan(tmp_path / "m")
        assert [info.path.name for info in found.songs] == ["a.wav"]
        assert found.passed_over == {library.RESULTS: 1}
    monkeypatch.setattr(examination, "examine", None)
    assert scan(tmp_path / "m") == found  # only once


def test_records_of_results_are_read_once_for_each_state(tmp_path: Path, scan, monkeypatch) -> None:
    songs = [write(tmp_path / f"m/{name}.wav", song(seed)) for seed, name in enumerate("abc")]
    records, read, reads = tmp_path / "m/.separator.jsonl", Path.read_bytes, []

    def counted(path: Path) -> bytes:
        reads.extend([path] * (path == records))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", counted)
    for number, result in enumerate(songs[:2], 1):
        with records.open("a") as file:
            file.write(json.dumps({"content": audio.content_key(result)}) + "\n")
        (tmp_path / "index/i.sqlite").unlink(missing_ok=True)
        assert scan(tmp_path / "m").passed_over == {library.RESULTS: number}
        assert len(reads) == number


def test_a_rate_of_1_hz_is_no_song(tmp_path: Path, scan) -> None:
    write(tmp_path / "m/hours.wav", song(0), rate=1)
    found = scan(tmp_path / "m")
    assert found.songs == [] and "1 Hz" in reasons(found)["hours.wav"]

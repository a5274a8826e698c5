"""What is found under folders, what is passed over and counted, and what scan says of it."""

import os
import socket
from pathlib import Path

import pytest

from separator import audio
from separator.data.library import scan as library
from separator.data.library import scan_report
from separator.data.library.walk import SOUND, SPECIAL, UNFINISHED, checked_folders, walk
from separator.errors import SeparatorError


def touch(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def test_kinds_of_sound_that_are_not_taken_are_counted(tmp_path):
    taken = sorted(audio.SUFFIXES)
    assert not SOUND & audio.SUFFIXES
    others = sorted(SOUND)
    touch(tmp_path / "a", *(f"s{suffix.upper()}" for suffix in taken))
    touch(tmp_path / "a", *(f"s{suffix}" for suffix in others), *(f"t{s.upper()}" for s in others))
    touch(tmp_path / "b", "cover.jpg", "notes.txt", ".hidden.wma", "list.m3u", "no suffix", ".wma")
    walked = walk([str(tmp_path)])
    assert len(walked.stamps) == len(taken)
    assert walked.passed_over == dict.fromkeys(others, 2)
    assert walked.without_sound == 4
    assert walked.problems == {}


def test_unfinished_and_special_files_are_counted_and_never_opened(tmp_path):
    touch(tmp_path, "a.wav", "b.wav.part", "c.part.mp3", "d.part", "part.wav")
    os.mkfifo(tmp_path / "pipe.wav")
    os.symlink("/dev/null", tmp_path / "device.flac")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(tmp_path / "socket.ogg"))
        walked = walk([str(tmp_path)])
    assert sorted(Path(path).name for path in walked.stamps) == ["a.wav", "part.wav"]
    assert walked.passed_over == {UNFINISHED: 2, SPECIAL: 3}
    assert walked.left_out() == "pipes, sockets or devices 3, .part 2"
    assert walk([str(tmp_path / "nothing")]).left_out() == ""


def test_scan_names_them_and_does_not_wait_for_a_pipe(tmp_path, monkeypatch):
    kind = min(SOUND - audio.SUFFIXES)
    touch(tmp_path / "m", f"a{kind}", f"b{kind}", "cover.jpg")
    os.mkfifo(tmp_path / "m/pipe.wav")
    (tmp_path / "m/empty.wav").touch()
    found = library.scan([tmp_path / "m"], tmp_path / "i.sqlite", 1)
    assert found.totals()["passed_over"] == {kind: 2, SPECIAL: 1, library.WITHOUT_SOUND: 1}
    last = scan_report.summary(found).splitlines()[-1]
    assert last == f"passed over  {kind} 2, pipes, sockets or devices 1, files without sound 1"
    (tmp_path / "m/empty.wav").unlink()
    with pytest.raises(SeparatorError, match=f"no audio files that can be read \\({kind} 2, pipes"):
        library.scan([tmp_path / "m"], tmp_path / "i.sqlite", 1)


def test_roots_are_absolute_and_each_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert checked_folders([".", tmp_path, "~"], "") == [str(tmp_path)]
    with pytest.raises(SeparatorError, match="gone: no such folder; give one"):
        checked_folders(["gone"], "give one")

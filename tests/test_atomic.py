"""Files appear whole or not at all, and what killed processes leave is cleared away."""

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from separator import atomic
from separator.atomic import remove_leftovers, replacing, write_text


def test_a_file_appears_only_when_it_is_whole(tmp_path: Path):
    path = tmp_path / "new" / "a.json"
    with replacing(path) as temporary:
        temporary.write_text("half")
        assert temporary.parent == path.parent
        assert temporary.suffix == ".json"
        assert temporary.name.startswith(".")
        assert not path.exists()
        temporary.write_text("whole")
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_error_leaves_what_was_there(tmp_path: Path, error: type[BaseException]):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(error), replacing(path) as temporary:
        temporary.write_text("new")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_text_is_utf8_and_may_hold_names_that_are_none(tmp_path: Path):
    name = os.fsdecode(b"Bj\xf6rk \xe2\x99\xaa")
    write_text(tmp_path / "names", name, errors="surrogateescape")
    assert (tmp_path / "names").read_bytes() == b"Bj\xf6rk \xe2\x99\xaa"


def test_leftovers_of_the_dead_are_deleted_and_nothing_else(tmp_path: Path):
    code = (
        "import os, signal, sys; from separator.atomic import replacing\n"
        "with replacing(sys.argv[1]) as temporary:\n"
        "    temporary.touch(); print(os.getpid(), flush=True); os.kill(0, signal.SIGKILL)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "song a.flac")], start_new_session=True
    )
    process.wait()
    dead, living = process.pid, os.getppid()
    left = tmp_path / f".song a.{dead}-{atomic._machine()}.part.flac"
    assert list(tmp_path.iterdir()) == [left]
    here = atomic._machine()
    kept = [
        *(f".song a.{living}-{here}.part.flac", f".song a.b.{dead}-{here}.part.flac"),
        *(f".song a.{dead}-{here}.part", f".song a.{dead}-{here}.party.flac", "song a.flac"),
        *(f"song a.{dead}-{here}.part.flac", ".holiday.2019.part.mp4", ".backup.400001.part"),
    ]
    # who writes a temporary file has one of its own
    nested = f"..song a.{dead}-{atomic._machine()}.part.{dead}-{atomic._machine()}.part.flac"
    for name in [*kept, nested]:
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert not left.exists()
    remaining = {path.name for path in tmp_path.iterdir()}
    gone = {f".song a.{dead}-{here}.part", f".song a.b.{dead}-{here}.part.flac"}
    assert remaining == set(kept) - gone
    (tmp_path / f".song a.{dead}-{here}.part").mkdir()  # no file of ours
    (tmp_path / f".song a.{10**20}-{here}.part.flac").touch()  # no process has such a number
    before = set(tmp_path.iterdir())
    remove_leftovers(tmp_path)
    assert set(tmp_path.iterdir()) == before
    remove_leftovers(tmp_path, shared=False)  # nobody else writes here
    assert tmp_path / f".song a.{living}-{here}.part.flac" in before - set(tmp_path.iterdir())
    assert (tmp_path / "song a.flac").exists()
    remove_leftovers(tmp_path / "absent")


def test_other_machines_files_stay_until_they_are_old(tmp_path: Path):
    """A disk that machines or containers share: their processes cannot be looked for here."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    elsewhere = f"{process.pid}-{'000000' if atomic._machine() != '000000' else '111111'}"
    fresh, old = (tmp_path / f".{name}.{elsewhere}.part.flac" for name in ("fresh", "old"))
    for path in (fresh, old):
        path.touch()
    os.utime(old, (0, 0))
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [fresh]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EACCES])
def test_folders_that_cannot_be_flushed(tmp_path: Path, number: int, monkeypatch):
    """As on SMB, VirtualBox, WSL and FUSE; and folders that cannot be opened for reading."""
    usual = os.fsync

    def refusing(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(number, os.strerror(number))
        usual(handle)

    monkeypatch.setattr(os, "fsync", refusing)
    write_text(tmp_path / "a.txt", "text")
    assert (tmp_path / "a.txt").read_text() == "text"


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_flush_that_fails_is_told(tmp_path: Path, number: int, monkeypatch):
    def failing(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    write_text(tmp_path / "a.txt", "old")
    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match=os.strerror(number)):
        write_text(tmp_path / "a.txt", "new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.txt", "old")]


def test_a_folder_that_takes_no_file_says_the_systems_reason(tmp_path: Path, monkeypatch):
    atomic.check_folder(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("nothing")
    for name, code in (("file", errno.ENOTDIR), ("link", errno.ENOENT)):
        with pytest.raises(OSError, match=os.strerror(code)):
            atomic.check_folder(tmp_path / name)

    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(atomic.tempfile, "TemporaryFile", read_only)
    with pytest.raises(OSError, match="Read-only"):
        atomic.check_folder(tmp_path)

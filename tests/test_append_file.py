"""Logs on a disk that is full for a while: nothing half, nothing twice, and it is said."""

import errno
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from separator.engine import append_file
from separator.engine.append_file import AppendFile
from separator.engine.event_file import EventFile
from separator.engine.log import Log
from separator.engine.run_config import RunConfig
from separator.engine.task import Validation
from tests.test_loop import Toy, assert_same, history, run, toy_config, weights

pytestmark = pytest.mark.usefixtures("one_thread")


class Disk:
    """A disk with room for so many bytes, which then answers with an error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int = errno.ENOSPC) -> None:
        self.room, self.number, self._write = 10**9, number, os.write
        monkeypatch.setattr(append_file.os, "write", self.write)

    def write(self, handle: int, data: bytes) -> int:
        part = min(len(data), self.room)
        if not part:
            raise OSError(self.number, os.strerror(self.number))
        self.room -= part
        return self._write(handle, data[:part])


@pytest.fixture(params=[errno.ENOSPC, errno.EIO])
def disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch, request.param)


def test_records_are_whole_and_wait(tmp_path: Path, disk: Disk):
    path = tmp_path / "file"
    path.write_bytes(b"old\n")
    file = AppendFile(path)
    file.write(b"one\n", 1)
    disk.room = 2
    file.write(b"two\n", 2)
    assert file.error == os.strerror(disk.number)
    file.write(b"three\n", 3)
    assert path.read_bytes() == b"old\none\n"
    disk.room = 10**9
    file.write(b"four\n", 4)
    assert not file.error
    assert path.read_bytes() == b"old\none\ntwo\nthree\nfour\n"
    assert file.close() == []


def test_what_is_never_written_is_counted(tmp_path: Path, disk: Disk, monkeypatch):
    monkeypatch.setattr(append_file, "MAX_WAITING", 10)
    file = AppendFile(tmp_path / "file")
    disk.room = 3
    for step in (5, 6, 7):
        file.write(b"12345", step)
    assert file.dropped == [7]
    assert file.close() == [5, 6, 7]
    assert (tmp_path / "file").read_bytes() == b""


def test_a_file_that_cannot_be_made_is_made_later(tmp_path: Path, monkeypatch):
    refuse = monkeypatch.context()
    with refuse as patch:
        patch.setattr(append_file.os, "open", full)
        file = AppendFile(tmp_path / "file")
        file.write(b"one\n", 1)
        assert file.error == "No space left on device"
    file.write(b"two\n", 2)
    assert file.close() == []
    assert (tmp_path / "file").read_bytes() == b"one\ntwo\n"


def full(*_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_sync_that_fails_is_no_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = AppendFile(tmp_path / "file")
    file.write(b"one\n", 1)
    monkeypatch.setattr(append_file.os, "fsync", full)
    file.sync()
    assert file.error == "No space left on device"
    assert file.close() == []


def test_an_event_file_stays_readable(tmp_path: Path, disk: Disk):
    board = EventFile(tmp_path, 0)
    board.add_scalars({"a": 1.0}, 1)
    disk.room = 5
    board.add_scalars({"a": 2.0}, 2)
    disk.room = 10**9
    board.add_scalars({"a": 3.0}, 3)
    board.file.close()
    events = EventFileLoader(str(board.file.path)).Load()
    assert [event.step for event in events if event.HasField("summary")] == [1, 2, 3]


def interfere(disk: Disk, full_at: int, again_at: int) -> Callable[[int], None]:
    """Fill the disk with a step, and make room before another."""

    def before_step(step: int) -> None:
        if step == full_at:
            disk.room = 100
        elif step == again_at:
            disk.room = 10**9

    return before_step


def train(folder: Path, before_step: Callable[[int], None]) -> None:
    from separator.engine.loop import fit

    config = toy_config(folder, checkpoint_every=0, validate_every=0)
    fit(Toy(config, before_step=before_step), config)


def test_training_goes_on_and_nothing_is_lost(tmp_path: Path, disk: Disk, caplog):
    run(tmp_path / "whole", checkpoint_every=0, validate_every=0)
    with caplog.at_level(logging.INFO):
        train(tmp_path / "full", interfere(disk, 4, 9))
    assert history(tmp_path / "full") == history(tmp_path / "whole")
    assert_same(weights(tmp_path / "full"), weights(tmp_path / "whole"))
    said = [r.getMessage() for r in caplog.records if "cannot be written" in r.getMessage()]
    assert len(said) == 1
    assert f"({os.strerror(disk.number)}); training goes on" in said[0]
    assert f"{tmp_path / 'full'}: the log is written again" in caplog.text
    assert "lost" not in caplog.text


def test_training_goes_on_and_what_is_lost_is_said(tmp_path: Path, disk: Disk, caplog):
    train(tmp_path, interfere(disk, 4, 99))
    rows = [json.loads(row) for row in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    said = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(said) == 3  # one when it happens, one for each log at the end
    assert said[1] == (
        f"{tmp_path / 'metrics.jsonl'}: 9 records of steps 5 to 12 could not be written and are "
        "lost; the checkpoints are not affected"
    )
    assert "events.out.tfevents" in said[2]


def test_rows_are_rewritten_only_to_drop_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A full disk is no reason not to resume."""
    with Log(tmp_path, 0, RunConfig(steps=4)) as log:
        log.train(1, {"loss": 1.0})
        log.validation(1, Validation({}, 0.0))
    monkeypatch.setattr("separator.engine.log.write_text", full)
    with Log(tmp_path, 1, RunConfig(steps=4)) as log:
        log.train(2, {"loss": 1.0})
    assert [row["step"] for row in history(tmp_path)] == [1, 1, 2]

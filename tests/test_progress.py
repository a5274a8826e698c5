"""The bar and the messages of a run."""

import contextlib
import io
import logging
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from separator.engine import progress
from separator.engine.log import Log
from separator.engine.progress import Progress, duration
from separator.engine.run_config import RunConfig
from separator.engine.task import Validation
from separator.pretrain import validate as pretrain_validate
from separator.stems import StemSet
from separator.supervised import validation as train_validation


class Terminal(io.StringIO):
    """Takes a bar."""

    def isatty(self) -> bool:
        return True


class Clock:
    """Stands for the time module."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(progress, "time", found)
    return found


@contextlib.contextmanager
def terminal() -> Iterator[Terminal]:
    """A terminal on stderr, to which the root logger writes as the command line's does.

    Not a fixture: pytest puts its own stderr back before a test begins.
    """
    found = Terminal()
    handler, level = logging.StreamHandler(found), logging.root.level
    logging.root.addHandler(handler)
    logging.root.setLevel(logging.INFO)
    try:
        with contextlib.redirect_stderr(found):
            yield found
    finally:
        logging.root.setLevel(level)
        logging.root.removeHandler(handler)


def lines(text: str) -> list[str]:
    """What is read on the terminal: what a carriage return goes back over is overwritten."""
    return [line.split("\r")[-1] for line in text.split("\n")]


def test_messages_stand_on_lines_of_their_own_and_the_units_are_explained():
    with terminal() as screen:
        bar = Progress(0, 10, 5)
        bar.advance()
        bar.show(0.5, 1234.0)
        bar.advance()
        logging.getLogger("separator.toy").info("a message")
        bar.close()
        logging.getLogger("separator.toy").info("another")
    said = lines(screen.getvalue())
    assert said[-2:] == ["another", ""]
    assert "a message" in said
    (explained,) = [line for line in said if "seconds of audio trained on per second" in line]
    assert explained.startswith("the bar shows")  # and not behind the bar


def test_the_bar_tells_the_time_to_the_next_validation(clock: Clock):
    with terminal() as screen:
        bar = Progress(0, 1000, 500)
        bar.show(0.5, 1234.4)
        for _ in range(101):
            clock.now += 2.0
            bar.advance()
        bar.pause()
        clock.now += 1000.0  # a validation is no step
        bar.advance()
        bar.close()
    assert "102/1000" in lines(screen.getvalue())[-2]
    assert "loss 0.5, 1234 audio-s/s, validation in 13 min]" in lines(screen.getvalue())[-2]


@pytest.mark.parametrize(("seconds", "said"), [(30.0, True), (0.1, False)])
def test_a_validation_that_is_far_away_is_announced_once(
    clock: Clock, caplog: pytest.LogCaptureFixture, seconds: float, said: bool
):
    with caplog.at_level(logging.INFO):
        bar = Progress(0, 1000, "auto")
        for _ in range(99 if seconds < 1 else 4):
            clock.now += seconds
            bar.advance()
        bar.close()
    expected = ["next validation after step 10, in about 4 min"] if said else []
    assert [r.getMessage() for r in caplog.records if "validation" in r.getMessage()] == expected


def test_times_as_they_are_said():
    assert [duration(s) for s in (0.4, 89, 150, 5000, 9000)] == [
        "0 s", "89 s", "2 min", "83 min", "2.5 h",
    ]  # fmt: skip


@pytest.mark.parametrize("stream", [None, "closed"])
def test_without_stderr_it_works_in_silence(tmp_path: Path, monkeypatch, capfd, stream):
    if stream:
        stream = Terminal()
        stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    with Log(tmp_path, 0, RunConfig(steps=2)) as log:
        log.advance(1.0)
        log.train(1, {"loss": 1.0})
        log.validation(1, Validation({}, 0.5))
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2
    assert capfd.readouterr() == ("", "")


def test_a_process_whose_stderr_is_closed_logs(tmp_path: Path):
    """Its first files get the number of stderr, which is none of the bar's business."""
    code = (
        "import sys; from pathlib import Path; from separator.engine.log import Log;"
        "from separator.engine.run_config import RunConfig\n"
        "with Log(Path(sys.argv[1]), 0, RunConfig(steps=1)) as log:\n"
        "    log.advance(1.0); log.train(1, {'loss': 1.0})"
    )
    command = ["sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-c", code, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE)
    assert (done.returncode, done.stdout) == (0, b"")
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1


def said(result: Validation, best: bool, folder: Path, caplog) -> str:
    with caplog.at_level(logging.INFO), Log(folder, 0, RunConfig(steps=9)) as log:
        log.validation(3, result, best)
    return next(r.getMessage() for r in caplog.records if r.getMessage().startswith("step 3"))


def test_training_says_decibels(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    result = Validation({}, 0.0)
    nan = math.nan  # a song without vocals
    songs = [[[7.0, 2.0], [3.5, -3.5]], [[7.28, nan], [3.88, nan]]]
    train_validation._summarise(result, torch.tensor(songs), StemSet(("accompaniment", "vocals")))
    assert result.score == pytest.approx(7.14)
    assert result.quality == {
        "accompaniment_db": pytest.approx({"model": 7.14, "mixture": 3.69}),
        "vocals_db": {"model": 2.0},
    }
    expected = "step 3: accompaniment 7.14 dB (mixture 3.69, best so far)"
    assert said(result, True, tmp_path, caplog) == expected


@pytest.mark.parametrize(
    ("gain", "best", "words"),
    [
        (0.0248, True, "2.5 % better than the best trivial answer (best so far)"),
        (0.0248, False, "2.5 % better than the best trivial answer"),
        (-0.5, True, "50.0 % worse than the best trivial answer (best so far)"),
    ],
)
def test_pretraining_says_how_much_better(tmp_path: Path, caplog, gain, best, words):
    result = Validation({}, 0.0)
    crops = object.__new__(pretrain_validate.ValidationCrops)
    crops.objectives = ()
    errors = {"model": 2 * (1 - gain), "trivial": 2.0, "worse": 3.0, "patches": 2}
    crops._collect(result, [pretrain_validate._Score(errors, errors, {}, {})])
    assert result.score == result.scalars["valid/improvement"] == pytest.approx(gain)
    assert result.quality == {"gain_over_trivial": {"model": result.score}}
    assert said(result, best, tmp_path, caplog) == f"step 3: restores masked frames {words}"


def test_any_task_has_its_score(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    assert said(Validation({}, 0.25), False, tmp_path, caplog) == "step 3: validation score 0.25"

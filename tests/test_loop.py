"""The loop on a toy task; a child process runs this file too, to be killed or to be a rank."""

import dataclasses
import errno
import itertools
import json
import logging
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pytest
import torch
import yaml
from torch import Tensor, nn

from separator.cli import training
from separator.config import parse, to_dict
from separator.engine import checkpoint, distributed, loop, resume
from separator.engine.lock import RunLock
from separator.engine.loop import fit
from separator.engine.run_config import OptimConfig, RunConfig
from separator.engine.stop import Stop
from separator.engine.task import Task, Validation, check_config
from separator.errors import SeparatorError
from tests.toys import read_model_file

pytestmark = pytest.mark.usefixtures("one_thread")

FAST = OptimConfig(lr=0.01, warmup_steps=3)
CONSTANT = OptimConfig(lr=0.01, warmup_steps=3, schedule="constant")


@dataclass(frozen=True)
class ToyConfig(RunConfig):
    """A toy run.

    Attributes:
        dropout: share of units dropped.
    """

    dropout: float = 0.2


class Toy(Task):
    """Learns the sum of eight numbers; `before_step` lets a test interfere."""

    def __init__(
        self,
        config: ToyConfig,
        before_step: Callable[[int], None] = lambda step: None,
        poison: Callable[[int], float] = lambda step: 1.0,
        score: Callable[[int], float] = lambda step: step,
    ) -> None:
        torch.manual_seed(config.seed)
        self.config, self.before_step, self.poison, self.score = config, before_step, poison, score
        self.model = nn.Sequential(
            nn.Linear(8, 32), nn.LayerNorm(32), nn.Dropout(config.dropout), nn.Linear(32, 1)
        )

    def batches(self, start: int, stride: int = 1) -> Iterator[Tensor]:
        for number in itertools.count(start, stride):
            generator = torch.Generator().manual_seed(1000 * self.config.seed + number)
            yield torch.randn(4, 8, generator=generator)

    def step(
        self, model: nn.Module, batch: Tensor, step: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        self.before_step(step)
        noise = 0.01 * torch.randn(batch.shape, generator=generator) * self.config.dropout
        error = model(batch + noise)[:, 0] - batch.sum(1)
        return {"loss": error.square().mean() * self.poison(step), "toy/bias": error.mean()}

    def seconds(self, batch: Tensor) -> float:
        return float(len(batch))

    def validate(self, model: nn.Module, step: int) -> Validation:
        assert not model.training
        assert not torch.is_grad_enabled()
        error = (model(torch.eye(8))[:, 0] - 1).square().mean().item()
        images, audio = {"toy/image": torch.rand(3, 4, 5)}, {"toy/tone": (torch.rand(2, 99), 8000)}
        return Validation({"toy/error": error}, self.score(step), images, audio)

    def describe(self) -> dict:
        return {"config": to_dict(self.config)}


def toy_config(folder: Path, **changes: object) -> ToyConfig:
    base = ToyConfig(
        run=str(folder), steps=12, checkpoint_every=4, validate_every=8, log_every=1, accumulate=2,
        device="cpu", optim=FAST,
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


def run(folder: Path, **changes: object) -> Path:
    config = toy_config(folder, **changes)
    fit(Toy(config), config)
    return folder


def history(folder: Path) -> list[dict]:
    """Rows of metrics.jsonl without the numbers that a clock made."""
    rows = [json.loads(row) for row in (folder / "metrics.jsonl").read_text().splitlines()]
    rows = [{k: v for k, v in row.items() if not k.startswith("speed/")} for row in rows]
    return rows


def weights(folder: Path) -> dict[str, Tensor]:
    return checkpoint.load(folder / "last.pt")["model"]


def assert_same(left: dict[str, Tensor], right: dict[str, Tensor], **tolerance: float) -> None:
    tolerance = tolerance or {"rtol": 0, "atol": 0}
    torch.testing.assert_close(left, right, **tolerance)


def interrupt(step: int, number: int = signal.SIGINT) -> Callable[[int], None]:
    return lambda now: os.kill(os.getpid(), number) if now == step else None


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """An uninterrupted run."""
    return run(tmp_path_factory.mktemp("whole") / "run")


def test_a_task_says_how_fast_its_weights_learn(tmp_path: Path) -> None:
    class Frozen(Toy):
        def parameter_groups(self) -> list[dict]:
            first, *rest = self.model
            return [
                {"params": list(first.parameters()), "lr_scale": 0.0},
                {"params": [w for part in rest for w in part.parameters()], "lr_scale": 1.0},
            ]

    config = toy_config(tmp_path / "run")
    task = Frozen(config)
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    assert fit(task, config) == 0
    after = weights(tmp_path / "run")
    assert {name for name in before if torch.equal(before[name], after[name])} == {
        "0.weight",
        "0.bias",
    }


def test_a_run_leaves_everything_behind(whole: Path):
    events, others = set(), set()
    for path in whole.iterdir():
        (events if path.name.startswith("events.out.tfevents.") else others).add(path.name)
    assert others == {
        *("last.pt", "best-8.pt", "best-12.pt", "model.safetensors"),
        *("metrics.jsonl", "config.yaml"),
    }
    assert len(events) == 1
    config = toy_config(whole)
    assert yaml.safe_load((whole / "config.yaml").read_text()) == to_dict(config)
    assert parse(ToyConfig, [str(whole / "config.yaml")], "toy") == config
    rows = history(whole)
    assert [row["step"] for row in rows if row["kind"] == "train"] == list(range(1, 13))
    assert [row["step"] for row in rows if row["kind"] == "validation"] == [8, 12]
    assert {"loss", "toy/bias", "optim/lr", "optim/norm", "guard/skipped"} < rows[0].keys()
    assert rows[-2]["loss"] < rows[0]["loss"]


def test_the_model_file_is_the_average_of_the_best_validation(tmp_path: Path):
    config = toy_config(tmp_path, validate_every=4)
    scores = {4: 1.0, 8: 3.0, 12: 2.0}
    fit(Toy(config, score=scores.__getitem__), config)
    exported, description = read_model_file(tmp_path / "model.safetensors")
    assert_same(exported, checkpoint.load(tmp_path / "best-8.pt")["ema"])
    assert description["config"] == to_dict(config)
    assert description["trained"]["step"] == 8
    assert description["trained"]["score"] == 3.0
    assert {path.name for path in tmp_path.glob("best-*.pt")} == {"best-8.pt", "best-12.pt"}


def test_an_undefined_score_never_wins(tmp_path: Path):
    config = toy_config(tmp_path, validate_every=6)
    fit(Toy(config, score={6: 1.0, 12: math.nan}.__getitem__), config)
    assert read_model_file(tmp_path / "model.safetensors")[1]["trained"]["step"] == 6
    assert history(tmp_path)[-1]["score"] is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("step", [1, 6])
def test_a_stopped_run_resumes_exactly(whole: Path, tmp_path: Path, number: int, step: int, caplog):
    before = signal.getsignal(number)
    config = toy_config(tmp_path)
    with caplog.at_level(logging.INFO):
        status = fit(Toy(config, before_step=interrupt_once(step, number)), config)
    assert status == 128 + number
    assert f"stopped at step {step + 1}; the same command resumes" in caplog.text
    assert signal.getsignal(number) is before
    assert checkpoint.load(tmp_path / "last.pt")["step"] == step + 1
    assert (tmp_path / "model.safetensors").exists()
    run(tmp_path)
    assert history(tmp_path) == history(whole)
    assert_same(weights(tmp_path), weights(whole))
    assert_same(
        read_model_file(tmp_path / "model.safetensors")[0],
        read_model_file(whole / "model.safetensors")[0],
    )


def test_a_run_never_validated_exports_its_latest_average(tmp_path: Path):
    config = toy_config(tmp_path, validate_every=0)
    for step in (1, 4):
        fit(Toy(config, before_step=interrupt_once(step, signal.SIGTERM)), config)
        exported, description = read_model_file(tmp_path / "model.safetensors")
        assert (description["trained"]["step"], description["trained"]["score"]) == (step + 1, None)
        assert_same(exported, checkpoint.load(tmp_path / "last.pt")["ema"])


def interrupt_once(step: int, number: int) -> Callable[[int], None]:
    """Send a signal before the first micro-batch of a step only."""
    left = [True]

    def send(now: int) -> None:
        if now == step and left:
            left.clear()
            os.kill(os.getpid(), number)

    return send


@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_the_second_signal_stops_at_once(
    tmp_path: Path, whole: Path, number: int, raised: type[BaseException]
):
    config = toy_config(tmp_path)  # two micro-batches a step: two signals in one step
    with pytest.raises(raised) as caught:
        fit(Toy(config, before_step=interrupt(6, number)), config)
    assert raised is KeyboardInterrupt or caught.value.code == 143
    assert checkpoint.load(tmp_path / "last.pt")["step"] == 4
    run(tmp_path)
    assert history(tmp_path) == history(whole)


def test_a_hangup_that_is_ignored_stops_nothing(tmp_path: Path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        config = toy_config(tmp_path, steps=3)
        assert fit(Toy(config, before_step=interrupt(1, signal.SIGHUP)), config) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_after_the_last_step_is_heard_too(tmp_path: Path):
    def signal_once(step: int) -> float:
        os.kill(os.getpid(), signal.SIGTERM)
        return 1.0

    config = toy_config(tmp_path, steps=2)
    assert fit(Toy(config, score=signal_once), config) == 143
    assert checkpoint.load(tmp_path / "last.pt")["step"] == 2
    assert fit(Toy(config), config) == 0


def test_a_second_trainer_in_the_folder_is_refused(tmp_path: Path, whole: Path):
    config = toy_config(tmp_path)
    another, refused = Toy(config), []

    def begin_another(step: int) -> None:
        if step == 5 and not refused:
            with pytest.raises(SeparatorError) as caught:
                fit(another, config)
            refused.append(str(caught.value))

    fit(Toy(config, before_step=begin_another), config)
    owner = rf"process {os.getpid()} on \S+ since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d"
    assert re.fullmatch(rf"{re.escape(str(tmp_path))}: in use by {owner}; wait .*run=", refused[0])
    assert history(tmp_path) == history(whole)
    assert not (tmp_path / ".lock").exists()


def test_the_lock_of_a_dead_process_holds_nobody_up(tmp_path: Path):
    (tmp_path / ".lock").write_text("process 1 on elsewhere since yesterday\n")
    run(tmp_path, steps=1)
    assert not (tmp_path / ".lock").exists()


def test_a_file_system_without_locks_is_said(tmp_path: Path, monkeypatch, caplog):
    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with caplog.at_level(logging.WARNING):
        run(tmp_path, steps=1)
    assert f"{tmp_path}: its file system has no locks" in caplog.text


@pytest.mark.parametrize("moved", [False, True])
def test_a_run_folder_that_goes_away_is_one_line(tmp_path: Path, moved: bool):
    def take_away(step: int) -> None:
        if step == 5 and (tmp_path / "run").exists():
            (tmp_path / "run").rename(tmp_path / "elsewhere")
            if not moved:
                shutil.rmtree(tmp_path / "elsewhere")

    config = toy_config(tmp_path / "run", log_every=100)
    with pytest.raises(SeparatorError, match=r"run: was removed or moved while the run used it"):
        fit(Toy(config, before_step=take_away), config)
    assert not (tmp_path / "run").exists()
    if moved:
        (tmp_path / "elsewhere").rename(tmp_path / "run")
        assert checkpoint.load(tmp_path / "run" / "last.pt")["step"] == 4
        run(tmp_path / "run", log_every=100)


class Fails:
    """Raises in a step, once, after its first micro-batch."""

    def __init__(self, step: int, error: Exception) -> None:
        self.step, self.error, self.calls = step, error, 0

    def __call__(self, step: int) -> None:
        if step == self.step:
            self.calls += 1
            if self.calls == 2:
                raise self.error


@pytest.mark.parametrize(
    "error",
    [
        SeparatorError("x.flac: cannot be read"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate "
                     "memory: you tried to allocate 9 bytes. Error code 12"),
    ],
)  # fmt: skip
def test_no_finished_step_is_lost_by_an_error(tmp_path: Path, whole: Path, error: Exception):
    config = toy_config(tmp_path)
    with pytest.raises(SeparatorError) as caught:
        fit(Toy(config, before_step=Fails(6, error)), config)
    if not isinstance(error, SeparatorError):
        assert "out of memory" in str(caught.value)
        assert str(caught.value).endswith("the run is saved after step 6")
    assert "\n" not in str(caught.value)
    assert checkpoint.load(tmp_path / "last.pt")["step"] == 6
    run(tmp_path)
    assert history(tmp_path) == history(whole)
    assert_same(weights(tmp_path), weights(whole))


def test_an_error_in_the_first_step_leaves_nothing(tmp_path: Path):
    config = toy_config(tmp_path / "runs" / "run")
    with pytest.raises(SeparatorError, match=r"out of memory .*; the run is not begun$"):
        fit(Toy(config, before_step=Fails(0, MemoryError())), config)
    assert not list(tmp_path.iterdir())


def test_a_log_that_cannot_be_had_leaves_nothing(tmp_path: Path, monkeypatch):
    def refuse(*arguments: object) -> None:
        (tmp_path / "wandb" / "run-1").mkdir(parents=True)
        raise SeparatorError("log.wandb: no key")

    monkeypatch.setattr(loop, "Log", refuse)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").touch()
    config = toy_config(tmp_path)
    with pytest.raises(SeparatorError, match="no key"):
        fit(Toy(config), config)
    assert {*tmp_path.rglob("*")} == {tmp_path / "notes", tmp_path / "notes" / "mine.txt"}


@pytest.mark.parametrize("made", [False, True])
def test_files_of_others_stay_in_the_folder_of_a_refused_run(tmp_path: Path, made: bool):
    """The lock must not touch what another program writes meanwhile, such as a run below it."""
    folder = tmp_path / "runs"
    others = {folder / "song.txt", folder / "other" / "last.pt", folder / "other" / "config.yaml"}

    def write_and_fail(step: int) -> None:
        for path in others:
            path.parent.mkdir(exist_ok=True)
            path.touch()
        raise MemoryError

    if not made:
        folder.mkdir()
    config = toy_config(folder)
    with pytest.raises(SeparatorError, match="out of memory"):
        fit(Toy(config, before_step=write_and_fail), config)
    assert {path for path in folder.rglob("*") if path.is_file()} == others


def test_another_error_stays_what_it_is(tmp_path: Path):
    config = toy_config(tmp_path)
    with pytest.raises(ZeroDivisionError):
        fit(Toy(config, before_step=Fails(6, ZeroDivisionError())), config)
    assert checkpoint.load(tmp_path / "last.pt")["step"] == 6


def test_killed_in_the_middle_of_a_save(tmp_path: Path, whole: Path):
    with start_child("killed", tmp_path) as child:
        assert child.stdout.readline() == "half written\n"
        child.kill()
    assert list(tmp_path.glob(".*.part.*"))
    assert checkpoint.load(tmp_path / "last.pt")["step"] == 4
    run(tmp_path)
    assert not list(tmp_path.glob(".*.part.*"))
    assert history(tmp_path) == history(whole)
    assert_same(weights(tmp_path), weights(whole))


def test_two_ranks_equal_two_micro_batches(tmp_path: Path, two_ranks: list[dict[str, str]]):
    """With dropout, and going on as one rank: each step has what one alone would give it."""
    folder = tmp_path / "ranks"
    with (
        start_child("rank", folder, two_ranks[0]) as first,
        start_child("rank", folder, two_ranks[1]) as second,
    ):
        said = [child.communicate(timeout=200) for child in (first, second)]
    assert [first.returncode, second.returncode] == [143, 143]
    assert "stopped at step 5" in said[0][1]
    assert said[1] == ("", "")  # other ranks are silent
    saved = checkpoint.load(folder / "last.pt")
    assert (saved["step"], saved["micro_batches"]) == (5, 2)  # only rank 1 got the signal
    run(folder, accumulate=1, steps=9, optim=CONSTANT)
    run(tmp_path / "one", steps=9, optim=CONSTANT)
    assert_same(weights(folder), weights(tmp_path / "one"), rtol=1e-5, atol=1e-6)
    two, one = history(folder), history(tmp_path / "one")
    losses = [[row["loss"] for row in rows if row["kind"] == "train"] for rows in (two, one)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_ranks_that_go_on_draw_what_comes_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config, drawn = toy_config(tmp_path), []
    task = Toy(config)
    task.batches = lambda start, stride: drawn.append((start, stride)) or iter(())
    going_on = loop._Run(task, config, torch.device("cpu"), RunLock(tmp_path))
    going_on.state.step = 3
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(StopIteration):  # there are no batches
            going_on.train(Stop(0, going_on.device))
    assert drawn == [(12, 2), (13, 2)]  # three steps of two ranks had two micro-batches each


def test_a_dead_rank_ends_all_with_one_line(tmp_path: Path, two_ranks: list[dict[str, str]]):
    with (
        start_child("dies", tmp_path, two_ranks[0]) as first,
        start_child("dies", tmp_path, two_ranks[1]) as second,
    ):
        said = [child.communicate(timeout=200) for child in (first, second)]
    assert [first.returncode, second.returncode] == [1, -signal.SIGKILL]
    line = said[0][1].splitlines()[-1]
    assert "another rank of the run ended" in line
    assert "saved after step 6: the same command on all ranks resumes" in line
    assert "Traceback" not in said[0][1]
    assert checkpoint.load(tmp_path / "last.pt")["step"] == 6


def test_what_one_rank_refuses_all_refuse(tmp_path: Path, two_ranks: list[dict[str, str]]):
    with (
        start_child("refuses", tmp_path, two_ranks[0]) as first,
        start_child("refuses", tmp_path, two_ranks[1]) as second,
    ):
        said = [child.communicate(timeout=200) for child in (first, second)]
    assert [first.returncode, second.returncode] == [1, 1]
    assert said[0][1].splitlines()[-1] == "rank 1: data.roots: not mounted here"
    assert said[1] == ("", "")


RESUMED = {"accumulate": 2, "data": {"batch": 4, "roots": ["a"]}, "optim": {"lr": 0.01}}


def resumed(monkeypatch, ranks: int = 1, songs=(1, 2), old: dict | None = None, **new: object):
    """Micro-batches of each rank, for a run of 2 ranks x 2 micro-batches of 4 samples."""
    changed = {**RESUMED["data"], **{k: v for k, v in new.items() if k in ("batch", "roots")}}
    config = {**RESUMED, "data": changed, "accumulate": new.get("accumulate", 2)}
    monkeypatch.setattr(resume, "to_dict", lambda _: config)
    monkeypatch.setenv("WORLD_SIZE", str(ranks))
    payload = {"config": RESUMED, "step": 5, "micro_batches": 4, "songs": torch.tensor([1, 2])}
    asked = RunConfig(accumulate=config["accumulate"])
    payload = {key: value for key, value in (payload | (old or {})).items() if value is not None}
    return resume.check_resumable(payload, asked, torch.tensor(songs), Path("run/last.pt"))


def test_a_step_keeps_its_samples_on_other_ranks_and_with_other_batches(monkeypatch, caplog):
    assert resumed(monkeypatch, ranks=2) == 2
    assert resumed(monkeypatch, ranks=2, accumulate=2) == 2
    with caplog.at_level(logging.INFO):
        assert resumed(monkeypatch, ranks=1) == 4
    assert "1 rank(s): accumulate=4 keeps the samples of a step" in caplog.text
    assert resumed(monkeypatch, ranks=4) == 1
    assert resumed(monkeypatch, ranks=4, accumulate=1) == 1
    assert resumed(monkeypatch, ranks=2, batch=2, accumulate=4) == 4
    assert resumed(monkeypatch, ranks=1, batch=16, accumulate=1) == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ranks": 2, "accumulate": 3}, "give accumulate=2 for data.batch=4 on 2 rank"),
        ({"ranks": 2, "batch": 2}, "give accumulate=4 for data.batch=2 on 2 rank"),
        ({"ranks": 3}, "which 3 ranks cannot share equally; start a number that divides 16"),
        ({"ranks": 2, "batch": 3}, "give data.batch=2 accumulate=4"),
        ({"ranks": 8}, "give data.batch=2 accumulate=1"),
    ],
)
def test_other_numbers_of_samples_are_refused_with_the_right_ones(monkeypatch, changes, said):
    with pytest.raises(SeparatorError, match=r"^accumulate: a step of run/last\.pt") as caught:
        resumed(monkeypatch, **changes)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_roots_may_change_where_the_songs_stay(monkeypatch, caplog):
    assert resumed(monkeypatch, ranks=2, roots=["/mnt/a"]) == 2
    with pytest.raises(SeparatorError, match=r"^data\.roots: .*of which 1 are in this command's 2"):
        resumed(monkeypatch, ranks=2, roots=["b"], songs=(1, 3))
    with pytest.raises(SeparatorError, match="same songs in another order"):
        resumed(monkeypatch, ranks=2, roots=["b"], songs=(2, 1))
    with caplog.at_level(logging.WARNING):
        resumed(monkeypatch, ranks=2, songs=(1, 2, 3))
    assert "2 were, 3 are" in caplog.text


def test_a_run_whose_last_checkpoint_is_gone_is_not_begun_anew(tmp_path: Path):
    run(tmp_path, steps=4, keep_best=2, validate_every=2)
    (tmp_path / "last.pt").rename(tmp_path / "damaged")
    before = {path: path.read_bytes() for path in tmp_path.glob("*.*") if path.is_file()}
    with pytest.raises(
        SeparatorError, match=r"last\.pt is missing, but best-\d\.pt is there; copy"
    ):
        run(tmp_path, steps=4, keep_best=2, validate_every=2)
    assert all(path.read_bytes() == data for path, data in before.items())


def test_another_number_of_steps_says_what_it_does(tmp_path: Path, caplog):
    run(tmp_path, steps=4)
    with caplog.at_level(logging.INFO):
        run(tmp_path, steps=8)
    assert "steps: 8 instead of 4: from step 4 on the cosine schedule is that of 8 steps" in (
        caplog.text
    )
    assert "the next step's learning rate is 0.00855, not 0.0001" in caplog.text


def test_a_step_that_is_not_finite_is_skipped_and_counted(tmp_path: Path):
    seen = []
    config = toy_config(tmp_path, steps=4)
    task = Toy(config, poison=lambda step: math.nan if step == 2 else 1.0)
    task.before_step = lambda step: seen.append(task.model[0].weight.clone())
    fit(task, config)
    first, second, third, fourth = seen[::2]
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)
    assert torch.equal(third, fourth)
    rows = [row for row in history(tmp_path) if row["kind"] == "train"]
    assert [row["guard/skipped"] for row in rows] == [0, 0, 1, 1]
    assert rows[2]["loss"] is None


def test_a_gradient_that_is_not_finite_is_skipped(tmp_path: Path):
    config = toy_config(tmp_path, steps=2, accumulate=1)

    class Cusp(Toy):
        def step(self, model, batch, step, generator):
            return {"loss": (0 * model(batch)).sqrt().sum()}  # 0, with an infinite slope

    fit(Cusp(config), config)
    assert checkpoint.load(tmp_path / "last.pt")["skipped"] == 2


def test_many_in_a_row_roll_back_once(tmp_path: Path):
    config = toy_config(tmp_path, nonfinite_limit=3)
    seen = {}
    task = Toy(config, poison=lambda step: math.inf if 6 <= step < 9 else 1.0)
    task.before_step = lambda step: seen.setdefault(step, task.model[0].weight.clone())
    fit(task, config)
    assert torch.equal(seen[9], seen[4])  # the checkpoint after four steps
    assert not torch.equal(seen[8], seen[4])
    payload = checkpoint.load(tmp_path / "last.pt")
    assert (payload["step"], payload["skipped"], payload["rollbacks"]) == (12, 3, 1)


def test_divergence_again_stops_with_the_fix(tmp_path: Path):
    config = toy_config(tmp_path, nonfinite_limit=2)
    with pytest.raises(SeparatorError, match=r"again after.*lower optim\.lr.*run=") as caught:
        fit(Toy(config, poison=lambda step: math.nan if step >= 5 else 1.0), config)
    assert "\n" not in str(caught.value)
    assert checkpoint.load(tmp_path / "last.pt")["step"] == 4


def test_another_configuration_does_not_resume(tmp_path: Path):
    run(tmp_path, steps=2)
    with pytest.raises(SeparatorError, match=r"^optim\.lr: .*last\.pt.*0\.01.*0\.5.*another run="):
        run(tmp_path, steps=2, optim=dataclasses.replace(FAST, lr=0.5))
    run(tmp_path, steps=3, log_every=2, checkpoint_every=3, keep_best=1)
    check_config({"data": {"cache_gb": 60.0}}, {"data": {"cache_gb": 99.0}}, tmp_path / "last.pt")
    assert checkpoint.load(tmp_path / "last.pt")["step"] == 3


def test_a_complete_run_is_left_alone(whole: Path, caplog):
    before = {path: path.stat().st_mtime_ns for path in whole.glob("*.pt")}
    with caplog.at_level(logging.INFO):
        run(whole)
    assert "is complete" in caplog.text
    assert before == {path: path.stat().st_mtime_ns for path in whole.glob("*.pt")}


def test_a_damaged_checkpoint_is_named(tmp_path: Path):
    run(tmp_path, steps=2)
    last = tmp_path / "last.pt"
    data = last.read_bytes()
    last.unlink()  # a second name of best-2.pt
    last.write_bytes(data[: len(data) // 2])
    with pytest.raises(SeparatorError, match=r"last\.pt: truncated or damaged"):
        run(tmp_path, steps=4)


def test_out_of_time(tmp_path: Path, whole: Path):
    config = toy_config(tmp_path, max_minutes=1e-9)
    assert fit(Toy(config), config) == 3
    assert checkpoint.load(tmp_path / "last.pt")["step"] == 1
    assert [row["kind"] for row in history(tmp_path)] == ["train", "validation"]
    run(tmp_path)
    losses = [[r["loss"] for r in history(f) if r["kind"] == "train"] for f in (tmp_path, whole)]
    assert losses[0] == losses[1]


def test_bf16(tmp_path: Path):
    config = toy_config(tmp_path, steps=1, precision="bf16")
    kinds = []
    task = Toy(config)
    task.model[0].register_forward_hook(lambda module, inputs, out: kinds.append(out.dtype))
    fit(task, config)
    assert kinds[0] == torch.bfloat16
    assert weights(tmp_path)["0.weight"].dtype == torch.float32


def test_bad_settings_name_the_key():
    with pytest.raises(SeparatorError, match=r"^accumulate: 0 "):
        RunConfig(accumulate=0)
    with pytest.raises(SeparatorError, match=r"^ema_decay: 1"):
        RunConfig(ema_decay=1.0)


def start_child(role: str, folder: Path, variables: dict | None = None) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **(variables or {})}
    command = [sys.executable, "-m", "tests.test_loop", role, str(folder)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)


def child_killed(folder: Path) -> int:
    """Train until the save after step 8, then wait inside it to be killed."""
    whole_save = torch.save

    def slow_save(payload: dict, file: BinaryIO) -> None:
        whole_save(payload, file)
        if payload["step"] == 8:
            file.flush()
            file.truncate(5000)
            print("half written", flush=True)
            signal.pause()

    torch.save = slow_save
    run(folder)
    return 0


def child_rank(folder: Path) -> int:
    """Be one of two ranks; the second is asked to stop in its fifth step."""
    config = toy_config(folder, accumulate=1, steps=9, optim=CONSTANT)
    action = interrupt(4, signal.SIGTERM) if distributed.rank() == 1 else lambda step: None
    return training.run(lambda: Toy(config, before_step=action), config)


def child_dies(folder: Path) -> int:
    """Be one of two ranks; the second is killed in its seventh step."""
    config = toy_config(folder, accumulate=1)
    action = interrupt(6, signal.SIGKILL) if distributed.rank() == 1 else lambda step: None
    return training.run(lambda: Toy(config, before_step=action), config)


def child_refuses(folder: Path) -> int:
    """Be one of two ranks, the second of which lacks the data."""

    def make() -> Toy:
        if distributed.rank() == 1:
            raise SeparatorError("data.roots: not mounted here")
        return Toy(config)

    config = toy_config(folder, accumulate=1)
    return training.run(make, config)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    torch.set_num_threads(1)
    roles = {"killed": child_killed, "rank": child_rank, "dies": child_dies}
    try:
        sys.exit((roles | {"refuses": child_refuses})[sys.argv[1]](Path(sys.argv[2])))
    except SeparatorError as error:
        sys.exit(str(error))

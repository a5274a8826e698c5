"""The loop on a toy task; a child process runs this file too, to be killed or to be a rank."""

import dataclasses
import json
import logging
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor, nn

from separator.config import parse, to_dict
from separator.engine import checkpoint, distributed
from separator.engine.loop import fit
from separator.engine.model_file import load_model_file
from separator.engine.optim import OptimConfig
from separator.engine.task import RunConfig, Task, Validation, check_config
from separator.errors import SeparatorError

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

    def batches(self, start: int) -> Iterator[Tensor]:
        number = start
        while True:
            place = number * distributed.world() + distributed.rank()
            generator = torch.Generator().manual_seed(1000 * self.config.seed + place)
            yield torch.randn(4, 8, generator=generator)
            number += 1

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
    return fit(Toy(config), config)


def history(folder: Path) -> list[dict]:
    """Rows of metrics.jsonl without the one number that a clock made."""
    rows = [json.loads(row) for row in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row.pop("speed/audio_seconds_per_second", None)
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
    after = weights(fit(task, config))
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
    exported, description = load_model_file(tmp_path / "model.safetensors")
    assert_same(exported, checkpoint.load(tmp_path / "best-8.pt")["ema"])
    assert description["config"] == to_dict(config)
    assert description["trained"]["step"] == 8
    assert description["trained"]["score"] == 3.0
    assert {path.name for path in tmp_path.glob("best-*.pt")} == {"best-8.pt", "best-12.pt"}


def test_an_undefined_score_never_wins(tmp_path: Path):
    config = toy_config(tmp_path, validate_every=6)
    fit(Toy(config, score={6: 1.0, 12: math.nan}.__getitem__), config)
    assert load_model_file(tmp_path / "model.safetensors")[1]["trained"]["step"] == 6
    assert history(tmp_path)[-1]["score"] is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [1, 6])
def test_a_stopped_run_resumes_exactly(whole: Path, tmp_path: Path, number: int, step: int, caplog):
    before = signal.getsignal(number)
    config = toy_config(tmp_path)
    with caplog.at_level(logging.INFO):
        fit(Toy(config, before_step=interrupt_once(step, number)), config)
    assert f"stopped at step {step + 1}; the same command resumes" in caplog.text
    assert signal.getsignal(number) is before
    assert checkpoint.load(tmp_path / "last.pt")["step"] == step + 1
    assert (tmp_path / "model.safetensors").exists()
    run(tmp_path)
    assert history(tmp_path) == history(whole)
    assert_same(weights(tmp_path), weights(whole))
    assert_same(
        load_model_file(tmp_path / "model.safetensors")[0],
        load_model_file(whole / "model.safetensors")[0],
    )


def test_a_run_never_validated_exports_its_latest_average(tmp_path: Path):
    config = toy_config(tmp_path, validate_every=0)
    for step in (1, 4):
        fit(Toy(config, before_step=interrupt_once(step, signal.SIGTERM)), config)
        exported, description = load_model_file(tmp_path / "model.safetensors")
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


def test_the_second_signal_stops_at_once(tmp_path: Path, whole: Path):
    config = toy_config(tmp_path)  # two micro-batches a step: two signals in one step
    with pytest.raises(KeyboardInterrupt):
        fit(Toy(config, before_step=interrupt(6)), config)
    assert checkpoint.load(tmp_path / "last.pt")["step"] == 4
    run(tmp_path)
    assert history(tmp_path) == history(whole)


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
    folder = tmp_path / "ranks"
    with (
        start_child("rank", folder, two_ranks[0]) as first,
        start_child("rank", folder, two_ranks[1]) as second,
    ):
        assert [first.wait(timeout=60), second.wait(timeout=60)] == [0, 0]
    assert checkpoint.load(folder / "last.pt")["step"] == 5  # only rank 1 got the signal
    run(tmp_path / "one", dropout=0.0, steps=5, optim=CONSTANT)
    assert_same(weights(folder), weights(tmp_path / "one"), rtol=1e-6, atol=1e-6)
    two, one = history(folder), history(tmp_path / "one")
    losses = [[row["loss"] for row in rows if row["kind"] == "train"] for rows in (two, one)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


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
    run(tmp_path, max_minutes=1e-9)
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
    command = [sys.executable, __file__, role, str(folder)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def child_killed(folder: Path) -> None:
    """Train until the save after step 8, then wait inside it to be killed."""
    whole_save = torch.save

    def slow_save(payload: dict, path: Path) -> None:
        whole_save(payload, path)
        if payload["step"] == 8:
            path.write_bytes(path.read_bytes()[:5000])
            print("half written", flush=True)
            signal.pause()

    torch.save = slow_save
    run(folder)


def child_rank(folder: Path) -> None:
    """Be one of two ranks; the second is asked to stop in its fifth step."""
    config = toy_config(folder, accumulate=1, dropout=0.0, steps=9, optim=CONSTANT)
    action = interrupt(4, signal.SIGTERM) if distributed.rank() == 1 else lambda step: None
    fit(Toy(config, before_step=action), config)


if __name__ == "__main__":
    {"killed": child_killed, "rank": child_rank}[sys.argv[1]](Path(sys.argv[2]))

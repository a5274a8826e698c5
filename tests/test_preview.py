"""What a new run shows as step 0, and that the training is the same with it."""

import itertools
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from separator.engine import checkpoint, loop
from separator.engine.loop import fit
from separator.engine.preview import preview
from separator.engine.task import Validation
from tests.test_log import board
from tests.test_loop import Toy, assert_same, history, run, toy_config, weights

pytestmark = pytest.mark.usefixtures("one_thread")

TAGS = {"spectrogram/first/numbers", "audio/first/noise"}


class Shows(Toy):
    """Shows its first micro-batch, and draws from all randomness that there is."""

    def __init__(self, *given: object, **more: object) -> None:
        super().__init__(*given, **more)
        self.calls, self.seeds = 0, []

    def preview(self, model: nn.Module, batch: Tensor, generator: torch.Generator) -> Validation:
        assert not model.training
        assert not torch.is_grad_enabled()
        self.calls += 1
        torch.rand(7)
        self.seeds = [generator.initial_seed()]
        noise = torch.rand(2, 99, generator=generator)
        images = {"first/numbers": batch.clamp(0, 1).expand(3, -1, -1)}
        return Validation({}, 0.0, images, {"first/noise": (noise, 8000)})

    def step(
        self, model: nn.Module, batch: Tensor, step: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        self.seeds.append(generator.initial_seed())
        return super().step(model, batch, step, generator)


def show(folder: Path, **changes: object) -> Shows:
    config = toy_config(folder, **changes)
    task = Shows(config)
    fit(task, config)
    return task


def test_the_first_micro_batch_is_not_kept():
    class Batch:
        """What can be referred to weakly."""

    made = (Batch() for _ in itertools.count())
    task = Shows.__new__(Shows)
    log = SimpleNamespace(preview=lambda result: None)
    task.preview = lambda *_: Validation({}, 0.0)
    going_on = preview(task, nn.Identity(), made, torch.Generator(), log)
    first = weakref.ref(next(going_on))
    next(going_on)
    assert first() is None


def shown(folder: Path) -> dict[tuple[str, int], bytes]:
    """Return what TensorBoard has of the first micro-batch."""
    return {place: data for place, data in board(folder)[1].items() if place[0] in TAGS}


def test_a_new_run_shows_its_first_micro_batch_as_step_0(tmp_path: Path):
    task = show(tmp_path / "run")
    assert task.calls == 1
    assert task.seeds[0] == task.seeds[1] != task.seeds[2]  # as for the first step
    assert set(shown(tmp_path / "run")) == {(tag, 0) for tag in TAGS}
    assert history(tmp_path / "run")[0]["step"] == 1


def test_the_training_is_the_same_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    show(tmp_path / "shown")
    monkeypatch.setattr(loop, "preview", lambda task, model, batches, *rest: batches)
    run(tmp_path / "plain")
    assert not shown(tmp_path / "plain")
    assert history(tmp_path / "shown") == history(tmp_path / "plain")
    assert_same(weights(tmp_path / "shown"), weights(tmp_path / "plain"))


@pytest.mark.parametrize("step", [0, 5])
def test_a_resumed_run_does_not_repeat_it(tmp_path: Path, step: int):
    """Nor does one that was killed before its first step was saved."""
    if step:
        show(tmp_path, steps=step)
    else:
        config = toy_config(tmp_path)
        with pytest.raises(KeyboardInterrupt):
            fit(Shows(config, before_step=kill), config)
        assert checkpoint.load(tmp_path / "last.pt")["step"] == 0
    before = shown(tmp_path)
    assert len(before) == 2
    assert show(tmp_path).calls == 0
    assert shown(tmp_path) == before


def kill(step: int) -> None:
    """End at once, as a kill does: nothing is saved."""
    raise KeyboardInterrupt


def test_only_the_first_rank_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RANK", "1")
    assert show(tmp_path, steps=2).calls == 0

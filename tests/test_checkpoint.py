"""Checkpoints and model files: what comes back, and what each kind of bad file gets."""

import errno
import os
import pickle
import random
import re
import resource
import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn

from separator.engine import checkpoint, ema, model_file, optim
from separator.engine.checkpoint import State
from separator.engine.run_config import OptimConfig
from separator.errors import SeparatorError
from separator.models.weights import load_weights
from tests.toys import read_model_file

ABOUT = {
    **{"config": {"seed": 0}, "description": {"model": {"width": 6}}},
    **{"micro_batches": 1, "songs": torch.tensor([1])},
}


def state(width: int = 6, steps: int = 3) -> State:
    """A small model after a few steps."""
    torch.manual_seed(width)
    model = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Linear(width, 2))
    optimizer = optim.build([{"params": model.parameters()}], OptimConfig())
    made = State(model, ema.averaged(model, 0.9), optimizer)
    for _ in range(steps):
        model(torch.randn(5, 4)).square().mean().backward()
        optimizer.step()
        made.ema.update_parameters(model)
        optimizer.zero_grad()
        made.step += 1
    return made


def payload(**changes: object) -> dict:
    return {**state().payload(), **ABOUT, **changes}


def assert_equal(left: object, right: object) -> None:
    torch.testing.assert_close(left, right, rtol=0, atol=0)


def error_of(path: Path, read: object = model_file.load_model) -> str:
    with pytest.raises(SeparatorError) as caught:
        read(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message


def test_a_state_comes_back_whole(tmp_path: Path):
    old, new = state(), state(steps=0)
    old.scores, old.skipped, old.rollbacks = [(2, 0.5)], 4, 1
    checkpoint.save(tmp_path / "last.pt", {**old.payload(), **ABOUT})
    new.load(checkpoint.load(tmp_path / "last.pt"), tmp_path / "last.pt")
    assert_equal(new.model.state_dict(), old.model.state_dict())
    assert_equal(new.ema.state_dict(), old.ema.state_dict())
    assert_equal(new.optimizer.state_dict(), old.optimizer.state_dict())
    assert (new.step, new.scores, new.skipped, new.rollbacks) == (3, [(2, 0.5)], 4, 1)


def test_best_checkpoints_are_kept_by_score(tmp_path: Path):
    scores = [[1, 0.3], [2, 0.9], [3, 0.1], [4, 0.5]]
    (tmp_path / "best-mine.pt").touch()  # of a user, who wants to keep one
    for count in range(1, 5):
        checkpoint.save_run(tmp_path, payload(step=count, scores=scores[:count]), keep_best=2)
        assert checkpoint.load(tmp_path / "last.pt")["step"] == count
    names = ["best-2.pt", "best-4.pt", "best-mine.pt", "last.pt"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    assert checkpoint.load(tmp_path / "best-2.pt")["step"] == 2
    assert (tmp_path / "best-4.pt").samefile(tmp_path / "last.pt")


def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(source: Path, target: Path) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    checkpoint.save_run(tmp_path, payload(step=1, scores=[[1, 0.0]]), keep_best=1)
    assert (tmp_path / "best-1.pt").read_bytes() == (tmp_path / "last.pt").read_bytes()


def test_a_model_file_comes_back_with_its_description(tmp_path: Path):
    tied = nn.Linear(3, 3)
    weights = {"a": tied.weight, "b": tied.weight, "c": torch.ones(2, dtype=torch.float64).half()}
    weights["d"] = torch.arange(6).reshape(2, 3).T
    about = {"stft": {"n_fft": 2048}, "name": "Ébauche"}
    model_file.export(tmp_path / "model.safetensors", weights, about)
    (tmp_path / "usual").touch()
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1  # others may read it where they may read any other new file
    back, description = read_model_file(tmp_path / "model.safetensors")
    assert description == about | {"digest": description["digest"]}
    assert_equal(back["b"], tied.weight.detach())
    assert_equal(back["d"], weights["d"])
    assert back["c"].dtype == torch.float32


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_truncated(tmp_path: Path, suffix: str, share: float):
    path = tmp_path / f"model{suffix}"
    if suffix == ".pt":
        checkpoint.save(path, payload())
    else:
        model_file.export(path, state().model.state_dict(), {})
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    assert "truncated" in error_of(path) or "not opened" in error_of(path)


def test_no_flipped_bit_goes_unnoticed(tmp_path: Path):
    path, draws = tmp_path / "last.pt", random.Random(1)
    checkpoint.save(path, payload())
    data, whole = path.read_bytes(), checkpoint.load(path)
    refused = 0
    for _ in range(150):
        place = draws.randrange(len(data))
        flipped = bytes([data[place] ^ 1 << draws.randrange(8)])
        path.write_bytes(data[:place] + flipped + data[place + 1 :])
        try:
            assert_equal(checkpoint.load(path), whole)  # what lies between the parts means nothing
        except SeparatorError as error:
            refused += 1
            assert str(error).startswith(str(path)) and "\n" not in str(error)
    assert refused > 50


def test_a_damaged_checkpoint_names_one_that_is_whole(tmp_path: Path):
    for count in range(1, 4):
        rows = [[step, float(step)] for step in range(1, count + 1)]
        checkpoint.save_run(tmp_path, payload(step=count, scores=rows), keep_best=3)
    last = tmp_path / "last.pt"  # a second name of best-3.pt, which is damaged with it
    tensor = payload()["model"]["0.weight"].numpy().tobytes()
    data = last.read_bytes()
    assert tensor in data
    with last.open("r+b") as file:
        file.seek(data.index(tensor))
        file.write(bytes(4))
    message = error_of(last, checkpoint.load)
    assert "damaged (the checksum of" in message
    assert "best-2.pt beside it, of step 2, is whole: copy it to last.pt" in message
    assert "best-2.pt beside it, of step 2, is whole" in error_of(tmp_path / "best-3.pt")
    for path in tmp_path.glob("best-*.pt"):
        path.unlink()
    message = error_of(last, checkpoint.load)
    assert "no other .pt file of its folder is whole" in message
    assert not re.search("remove|delete", message)


@pytest.mark.parametrize(
    "changes",
    [
        {"step": "x"}, {"step": -1}, {"scores": None}, {"scores": [[1, "x"]]}, {"scores": [3]},
        {"config": None}, {"model": None}, {"model": {"0.weight": 1}}, {"ema": [torch.ones(2)]},
        {"averaged": "x"}, {"optimizer": 5}, {"description": "x"}, {"skipped": None},
        {"micro_batches": 0}, {"micro_batches": "x"}, {"songs": [1]}, {"songs": torch.ones(2)},
    ],
)  # fmt: skip
def test_values_of_a_wrong_kind(tmp_path: Path, changes: dict):
    torch.save(payload(**changes), tmp_path / "last.pt")
    message = error_of(tmp_path / "last.pt", checkpoint.load)
    assert next(iter(changes)) in message


@pytest.mark.parametrize(
    "optimizer", [{}, {"state": 5, "param_groups": []}, {"state": {}, "param_groups": 7}]
)
def test_an_optimizer_of_a_wrong_kind(tmp_path: Path, optimizer: dict):
    torch.save(payload(optimizer=optimizer), tmp_path / "last.pt")
    loaded = checkpoint.load(tmp_path / "last.pt")
    message = error_of(tmp_path / "last.pt", lambda path: state().load(loaded, path))
    assert "the optimizer's groups differ" in message


@pytest.mark.parametrize("write", ["torch", "pickle"])
def test_a_pickle_with_code_is_not_executed(tmp_path: Path, write: str):
    class Bomb:
        def __reduce__(self) -> tuple:
            return (os.mkdir, (str(tmp_path / "executed"),))

    path = tmp_path / "bomb.pt"
    if write == "torch":
        torch.save(payload(model=Bomb()), path)
    else:
        path.write_bytes(pickle.dumps({"model": Bomb()}))
    assert "nothing in it was executed" in error_of(path)
    assert not (tmp_path / "executed").exists()


def test_other_files(tmp_path: Path):
    (tmp_path / "text.pt").write_text("not a checkpoint")
    assert "not opened" in error_of(tmp_path / "text.pt")
    (tmp_path / "text.safetensors").write_text("not a checkpoint either, only some words")
    assert "not a safetensors file" in error_of(tmp_path / "text.safetensors")
    (tmp_path / "song.mp3").write_text("la la la")
    assert "not a model file" in error_of(tmp_path / "song.mp3")
    assert "no such file" in error_of(tmp_path / "absent.pt")
    assert "no such file" in error_of(tmp_path / "absent.safetensors")


def test_checkpoints_of_others(tmp_path: Path):
    path = tmp_path / "x.pt"
    torch.save(state().model.state_dict(), path)
    assert "not a checkpoint of separator" in error_of(path)
    torch.save([1, 2], path)
    assert "not a checkpoint of separator" in error_of(path)
    lacking = payload()
    del lacking["optimizer"]
    torch.save(lacking, path)
    assert "has no 'optimizer'" in error_of(path)
    torch.save(payload(format=99), path)
    assert "format 99" in error_of(path)
    from safetensors.torch import save_file

    save_file({"a": torch.ones(2)}, tmp_path / "x.safetensors")
    assert "no model of separator" in error_of(tmp_path / "x.safetensors")


def test_another_architecture(tmp_path: Path):
    path = tmp_path / "last.pt"
    checkpoint.save(path, payload())
    there = checkpoint.load(path)
    message = error_of(path, lambda p: state(width=7).load(there, p))
    assert "another architecture ('0.weight' is [6, 4] there and [7, 4] here)" in message
    model = nn.Sequential(nn.Linear(4, 6))
    message = error_of(path, lambda p: load_weights(model, there["model"], p))
    assert "it has '1.weight', this model does not" in message
    message = error_of(path, lambda p: load_weights(state().model, {}, p))
    assert "it has no '0.weight'" in message
    grouped = state()
    grouped.optimizer = optim.build([{"params": [grouped.model[0].weight]}], OptimConfig())
    message = error_of(path, lambda p: grouped.load(there, p))
    assert "the optimizer's groups differ" in message


@pytest.mark.parametrize("kind", ["pt", "safetensors"])
def test_a_full_disk_leaves_the_previous_file(tmp_path: Path, kind: str):
    path = tmp_path / f"model.{kind}"
    weights = {"a": torch.zeros(100_000)}

    def write(value: float) -> None:
        weights["a"].fill_(value)
        if kind == "pt":
            checkpoint.save(path, weights)
        else:
            model_file.export(path, weights, {})

    write(1.0)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        message = error_of(path, lambda _: write(2.0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "cannot be written" in message
    assert kind == "safetensors" or "File too large); allow larger files" in message
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_checkpoint_is_called_intact_only_where_there_is_one(tmp_path: Path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(torch, "save", full)
    path = tmp_path / "best-2.pt"
    assert "intact" not in error_of(path, lambda p: checkpoint.save(p, {}))
    (tmp_path / "last.pt").write_bytes(b"the checkpoint of step 1")
    message = error_of(path, lambda p: checkpoint.save(p, {}))
    assert message.endswith("again (the previous checkpoint is intact)")


def test_git_id_is_that_of_the_clone_or_nothing(tmp_path: Path):
    clone, inside = tmp_path / "clone", tmp_path / "clone" / "site-packages"
    inside.mkdir(parents=True)
    assert checkpoint.git_id(clone) is None

    def git(*words: str) -> str:
        own = ["-c", "user.name=me", "-c", "user.email=me@example.org"]
        done = subprocess.run(
            ["git", "-C", str(clone), *own, *words], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    git("init", "--quiet")
    (clone / "code.py").write_text("a = 1\n")
    git("add", "code.py")
    git("commit", "--quiet", "--message", "first")
    head = git("rev-parse", "HEAD")
    assert checkpoint.git_id(clone) == head[:12]
    (clone / "code.py").write_text("a = 2\n")
    assert checkpoint.git_id(clone) == f"{head[:12]}-dirty"
    assert checkpoint.git_id(inside) is None  # installed there: that repository is not ours


def test_a_run_of_another_version_is_told_so():
    """A key that one of them lacks has no value to compare: its default may mean something new."""
    from separator.engine.task import check_config

    for old, new in (({}, {"mask": {"noise_level": "local"}}), ({"mask": {"level": 1}}, {})):
        with pytest.raises(SeparatorError, match=r"^mask\.\w+: r/last\.pt was made by another ver"):
            check_config(old, new, Path("r/last.pt"))
    check_config({}, {"data": {"workers": 2}, "max_minutes": 1}, Path("r/last.pt"))
    with pytest.raises(SeparatorError, match="made with x, this command says ''; set it back"):
        check_config({"pretrained": "x"}, {"pretrained": ""}, Path("r/last.pt"))


def test_a_run_folder_without_its_last_checkpoint_keeps_its_best(tmp_path: Path):
    """A new run would delete them: a damaged last.pt is often moved away."""
    checkpoint.check_new(tmp_path)
    for name in ("best-90.pt", "best-100.pt", "best-x.pt"):
        (tmp_path / name).touch()
    with pytest.raises(SeparatorError, match=r"last\.pt is missing, but best-100\.pt is there"):
        checkpoint.check_new(tmp_path)

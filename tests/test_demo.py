"""The whole chain in one command, with few steps."""

import os
import signal
from pathlib import Path

import pytest
import soundfile
import torch

from separator import cli
from separator.cli import demo, demo_chain, dispatch
from separator.engine import checkpoint
from separator.pretrain.task import PretrainTask


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Songs that take no time."""
    monkeypatch.setattr(demo_chain, "SONGS", 3)
    monkeypatch.setattr(demo_chain, "SECONDS", 3.0)


@pytest.mark.slow
def test_the_demo_leaves_a_table_stems_a_picture_and_a_model(
    tmp_path: Path, small: None, capsys: pytest.CaptureFixture
):
    run = tmp_path / "demo"
    words = ["demo", "--run", str(run), "--pretrain_steps", "2", "--train_steps", "2"]
    assert cli.main(words) == 0
    printed = capsys.readouterr().out
    for row in ("model.safetensors", "tiny-vocals", "mixture", "ideal mask"):
        assert row in printed
    stems = sorted((run / "stems").glob("*.wav"))
    assert [path.stem.split("(")[1] for path in stems] == ["Instrumental)", "Vocals)"]
    mixture, _ = soundfile.read(next((run / "mixtures").glob("*.wav")), dtype="float32")
    waves = [torch.from_numpy(soundfile.read(path, dtype="float32")[0]) for path in stems]
    torch.testing.assert_close(sum(waves), torch.from_numpy(mixture), atol=1e-6, rtol=0)
    assert (run / "spectrograms.png").read_bytes().startswith(b"\x89PNG")
    for path in (*stems, run / "spectrograms.png", run / "model.safetensors"):
        assert path.exists() and str(path) in printed


@pytest.mark.slow
def test_interrupted_in_pretraining_it_stops_and_finishes_that_first(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
):
    def interrupt(task: PretrainTask, *arguments: object) -> dict:
        if arguments[2] == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return whole_step(task, *arguments)

    whole_step, run = PretrainTask.step, tmp_path / "demo"
    monkeypatch.setattr(demo_chain, "_real_example", lambda run: run / "corpus")
    words = ["demo", "--run", str(run), "--pretrain_steps", "3", "--train_steps", "1"]
    with monkeypatch.context() as patch:
        patch.setattr(PretrainTask, "step", interrupt)
        assert cli.main(words) == 130
    assert checkpoint.load(run / "pretrain" / "last.pt")["step"] == 2
    assert not (run / "last.pt").exists()
    assert cli.main(words) == 0
    assert checkpoint.load(run / "pretrain" / "last.pt")["step"] == 3
    assert checkpoint.load(run / "last.pt")["step"] == 1


@pytest.mark.parametrize("status", [1, 3, 130])
def test_a_step_that_did_not_end_well_is_the_last(
    tmp_path: Path, small: None, status: int, monkeypatch: pytest.MonkeyPatch
):
    commands = []
    monkeypatch.setattr(demo_chain, "write_corpus", lambda folder, *_: folder.mkdir(parents=True))
    monkeypatch.setattr(dispatch, "main", lambda words: commands.append(words[0]) or status)
    assert demo.main(["--run", str(tmp_path / "demo")]) == status
    assert commands == ["pretrain"]


def test_a_missing_folder_is_said_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture
):
    assert cli.main(["demo", "--data", str(tmp_path / "no"), "--run", str(tmp_path / "run")]) == 1
    assert "no such folder" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()

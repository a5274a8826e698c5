"""The whole chain in one command, with few steps."""

from pathlib import Path

import pytest
import soundfile
import torch

from separator import cli


@pytest.mark.slow
def test_the_demo_leaves_a_table_stems_a_picture_and_a_model(
    tmp_path: Path, capsys: pytest.CaptureFixture
):
    run = tmp_path / "demo"
    words = ["demo", "--run", str(run), "--pretrain_steps", "2", "--train_steps", "2"]
    assert cli.main(words) == 0
    printed = capsys.readouterr().out
    for row in ("ours", "mixture", "ideal mask"):
        assert row in printed
    stems = sorted((run / "stems").glob("*.wav"))
    assert [path.stem.split("(")[1] for path in stems] == ["Instrumental)", "Vocals)"]
    mixture, _ = soundfile.read(next((run / "mixtures").glob("*.wav")), dtype="float32")
    waves = [torch.from_numpy(soundfile.read(path, dtype="float32")[0]) for path in stems]
    torch.testing.assert_close(sum(waves), torch.from_numpy(mixture), atol=1e-6, rtol=0)
    assert (run / "spectrograms.png").read_bytes().startswith(b"\x89PNG")
    for path in (*stems, run / "spectrograms.png", run / "model.safetensors"):
        assert path.exists() and str(path) in printed


def test_a_missing_folder_is_said_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture
):
    assert cli.main(["demo", "--data", str(tmp_path / "no"), "--run", str(tmp_path / "run")]) == 1
    assert "no such folder" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()

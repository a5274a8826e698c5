"""The examples of docs/guide/python.md are a program that runs."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from separator.data.corpus import song
from tests.sounds import save

PAGE = (Path(__file__).parents[1] / "docs/guide/python.md").read_text(encoding="utf-8")


def test_the_examples_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    Path("album").mkdir()
    wave = torch.from_numpy(sum(song(2.0).values())).float()
    for name in ("song.mp3", "album/1.flac", "album/2.flac"):
        save(tmp_path / name, wave, 44100)
    names: dict = {}
    exec("\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.S)), names)
    assert isinstance(names["array"], np.ndarray) and isinstance(
        names["stems"]["vocals"], np.ndarray
    )
    np.testing.assert_allclose(names["stems"]["vocals"], names["array"], atol=1e-4)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and lines[-1] == "2 of 2 s"  # two songs of the album, then progress
    names["cancelled"].set()
    with pytest.raises(InterruptedError):
        names["separator"].separate("song.mp3", model=names["model"], progress=names["progress"])

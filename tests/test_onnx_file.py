"""ONNX files: the same masks as PyTorch's, for any length, and a description that suffices."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from separator import cli
from separator.engine import onnx_file
from separator.engine.model_file import export, load_model
from separator.errors import SeparatorError
from separator.models.build import describe
from separator.models.frame_transformer import FrameTransformer
from tests.songs import export_model
from tests.toys import STFT, TINY

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def test_a_small_network_is_the_same_without_pytorch(tmp_path: Path):
    model, path = export_model(tmp_path / "model.safetensors"), tmp_path / "model.onnx"
    assert cli.main(["export", str(model), "-o", str(path), "--license", "CC0"]) == 0
    assert check(path, str(model))["license"] == "CC0"
    other, stft, _ = load_model(export_model(tmp_path / "other.safetensors", seed=1))
    with pytest.raises(SeparatorError, match="differ from PyTorch's"):
        onnx_file.compare(path, other.eval(), stft.bins)


@pytest.mark.slow
def test_a_network_of_four_stems_is_the_same_without_pytorch(tmp_path: Path):
    stems = ("drums", "bass", "other", "vocals")
    sizes = dataclasses.replace(TINY, stems=stems)
    model, path = tmp_path / "model.safetensors", tmp_path / "model.onnx"
    state = FrameTransformer(sizes, STFT.bins).state_dict()
    export(model, state, {"stage": "train", **describe(sizes, STFT, 44100)})
    assert cli.main(["export", str(model), "-o", str(path)]) == 0
    assert tuple(check(path, str(model))["model"]["stems"]) == stems


def check(path: Path, source: str) -> dict:
    """Compare masks of several shapes; return the description."""
    model, stft, _ = load_model(source)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for crops, frames in ((1, 1), (1, 50), (3, 17)):
        magnitude = torch.rand(crops, 2, stft.bins, frames)
        with torch.no_grad():
            expected = model.eval()(magnitude).numpy()
        masks = session.run(None, {"magnitude": magnitude.numpy()})[0]
        assert np.abs(masks - expected).max() < 1e-4
    description = json.loads(session.get_modelmeta().custom_metadata_map["separator"])
    assert description["stft"]["n_fft"] == stft.n_fft and description["rate"] == 44100
    assert not list(path.parent.glob("*.data"))  # one file holds all
    return description


@pytest.mark.parametrize("suffix", ["safetensors", "onnx"])
def test_a_folder_that_cannot_be_written_to_is_told_first(suffix, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    output = str(tmp_path / "file" / f"m.{suffix}")
    monkeypatch.setattr("separator.engine.model_file.load_model", None)
    monkeypatch.setattr(onnx_file, "export_onnx", None)
    assert cli.main(["export", "tiny-vocals", "-o", output]) == 1
    line = f"separator: {output}: Not a directory; give another file with -o\n"
    assert capsys.readouterr().err == line


def test_the_output_has_to_be_one_of_the_two_kinds(capsys):
    assert cli.main(["export", "tiny-vocals", "-o", "model.pth"]) == 2
    assert "FILE.onnx" in capsys.readouterr().err

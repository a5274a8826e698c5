"""A separation without PyTorch equals the one with it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from separator import audio, bundled, cli, streaming
from separator.data.corpus import song
from separator.dsp import arrays, stft, wiener
from separator.dsp.config import STFTConfig
from separator.errors import SeparatorError
from separator.separation import Separator
from tests.sounds import music, save

pytest.importorskip("onnxruntime")

from separator.onnx_separator import OnnxSeparator

WITHOUT_TORCH = """
import sys

for name in ("torch", "torchaudio", "einops", "safetensors", "scipy"):
    sys.modules[name] = None  # as if it were not installed

import numpy as np
import separator
from separator.cli import doctor, main

assert main(sys.argv[1:]) == 0
stems = separator.separate(sys.argv[2])
assert all(isinstance(stem, np.ndarray) and stem.shape == (2, 48000) for stem in stems.values())
again = separator.separate(sys.argv[2], results="numpy")
assert all(np.array_equal(again[name], stem) for name, stem in stems.items())
try:
    separator.separate(sys.argv[2], results="cpu")
except separator.SeparatorError as error:
    assert "results: needs torch; pip install" in str(error), error
else:
    raise AssertionError("there are tensors")
assert all(found.name != "cuda" and not found.needed for found in doctor.separation("", "auto"))
try:
    separator.Separator
except separator.SeparatorError as error:
    assert "needs torch; pip install 'separator[train]'" in str(error), error
else:
    raise AssertionError("there is a Separator")
"""


@pytest.mark.parametrize(
    "config", [STFTConfig(256, 128), STFTConfig(256, 100, 1.0), STFTConfig(64, 16, 0.3)], ids=str
)
def test_transform_scale_and_filter_are_those_of_torch(config: STFTConfig):
    wave = music(0.2)[None].repeat(2, 1, 1)
    wave[1] *= 1e-5  # below the floor of the scale
    expected = stft.stft(wave, config)
    spectrogram = arrays.stft(wave.numpy(), config)
    np.testing.assert_allclose(spectrogram.swapaxes(-1, -2), expected, atol=1e-4)
    found, scale = arrays.normalise(np.abs(spectrogram), config)
    magnitude, scales = stft.normalise(expected.abs(), config)
    np.testing.assert_allclose(found.swapaxes(-1, -2), magnitude, atol=3e-4)
    np.testing.assert_allclose(scale, scales, rtol=1e-5)
    np.testing.assert_allclose(arrays.istft(spectrogram, config, wave.shape[-1]), wave, atol=1e-5)
    for stems in (1, 4):
        masks = torch.rand(2, stems, *magnitude.shape[1:])
        linear = stft.linear_masks(masks[:, 0] if stems == 1 else masks, config)
        mixture = expected / scales
        if stems == 1:
            estimate = wiener.wiener(mixture, linear[:, 0])[:, None]
        else:
            estimate = wiener.wiener_stems(mixture, linear)
        given = (masks[:, 0] if stems == 1 else masks).numpy().swapaxes(-1, -2)
        ours = arrays.wiener(spectrogram / scale, arrays.linear_masks(given, config), stems)
        np.testing.assert_allclose(ours.swapaxes(-1, -2), estimate, atol=1e-5)


def test_an_mp3_is_separated_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(streaming, "CHUNK_SECONDS", 3.0)  # several chunks
    wave = torch.from_numpy(sum(song(6.0).values())).float()
    path = save(tmp_path / "song.mp3", wave, 44100)
    expected = Separator.load("tiny-vocals", "cpu").separate(path)
    stems = OnnxSeparator.load("tiny-vocals").separate(path)
    assert stems.keys() == expected.keys()
    for name, array in stems.items():
        assert isinstance(array, np.ndarray) and np.abs(array).max() > 0.05
        np.testing.assert_allclose(array, expected[name], atol=1e-4, rtol=0)
    tensors = OnnxSeparator.load("tiny-vocals").with_results("cpu").separate(path)
    assert all(torch.equal(tensors[name], torch.from_numpy(stems[name])) for name in stems)


def test_command_library_and_doctor_need_no_torch(tmp_path: Path):
    path = save(tmp_path / "song.mp3", music(1.0, 48000), 48000)
    for backend in ("onnx", "torch"):
        words = ["separate", str(path), "-o", str(tmp_path / backend), "--device", "cpu"]
        if backend == "torch":
            assert cli.main([*words, "--backend", "torch"]) == 0
        else:
            command = [sys.executable, "-c", WITHOUT_TORCH, *words]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
    with_torch, without = (
        audio.read(tmp_path / backend / "song (Instrumental).flac") for backend in ("torch", "onnx")
    )
    torch.testing.assert_close(without, with_torch, atol=1e-4, rtol=0)


def test_what_is_no_network_of_ours_is_one_error(tmp_path: Path):
    path = tmp_path / "x.onnx"
    (tmp_path / "m.safetensors").touch()
    with pytest.raises(SeparatorError, match=r"m.safetensors: is no .onnx file; `separator export"):
        OnnxSeparator.load(tmp_path / "m.safetensors")
    with pytest.raises(SeparatorError, match="no such file"):
        OnnxSeparator.load(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(SeparatorError, match="no ONNX network") as told:
        OnnxSeparator.load(path)
    assert "\n" not in str(told.value)


def test_the_bundled_onnx_file_was_made_from_the_bundled_model():
    onnx = pytest.importorskip("onnx")
    file = onnx.load(bundled.model_path("tiny-vocals", ".onnx"))
    (about,) = (json.loads(p.value) for p in file.metadata_props if p.key == "separator")
    assert about == Separator.load("tiny-vocals", "cpu").description

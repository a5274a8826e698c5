"""What the tests of `separator separate` share: made songs, a small model, the command."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from separator import audio, cli
from separator.engine.model_file import export
from separator.inference.results import INDEX
from separator.models.build import describe
from separator.models.frame_transformer import FrameTransformer
from tests.toys import STFT, TINY


def export_model(
    path: Path, mask: float | None = None, seed: int = 0, stems: dict[str, float] | None = None
) -> Path:
    """Write a random model, or one whose mask, or masks of `stems`, are the same everywhere."""
    torch.manual_seed(seed)
    config = replace(TINY, stems=tuple(stems)) if stems else TINY
    model = FrameTransformer(config, STFT.bins)
    if mask is not None or stems:
        model.head.weight.data.zero_()
        logits = torch.tensor([*stems.values()]).log() if stems else torch.tensor([mask]).logit()
        model.head.bias.data.copy_(logits.repeat_interleave(2))
    trained = {"trained": {"step": 40, "score": 7.125}}
    export(path, model.state_dict(), {"stage": "train", **trained, **describe(config, STFT, 44100)})
    return path


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_model(tmp_path_factory.mktemp("model") / "model.safetensors")


@pytest.fixture
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    """Work in a new folder, with the model found by itself."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEPARATOR_MODEL", str(model))


def song(
    path: str | Path,
    seconds: float = 0.7,
    rate: int = 44100,
    channels: int = 2,
    seed: int = 2,
    **options: object,
) -> Tensor:
    """Write a song of tones and noise; its samples."""
    generator = torch.Generator().manual_seed(seed)
    path, times = Path(path), torch.arange(round(seconds * rate)) / rate
    wave = torch.randn(channels, len(times), generator=generator) * 0.05
    wave += torch.sin(2765 * times) * 0.3
    path.parent.mkdir(parents=True, exist_ok=True)
    with audio.Writer(path, rate, channels, **options) as writer:
        writer.write(wave)
    return wave


def run(*argv: str) -> int:
    """Run `separator separate`, with each song's own format unless another is given."""
    kept = [] if "--format" in argv else ["--format", "input"]
    return cli.main(["separate", *argv, *kept])


def files(folder: str = ".") -> list[str]:
    """Names of the files below a folder, apart from the indexes of results."""
    there = (path for path in Path(folder).rglob("*") if path.is_file() and path.name != INDEX)
    return sorted(str(path.relative_to(folder)) for path in there)

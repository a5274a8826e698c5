"""Each kind of restoring what was hidden can learn one crop of real music by heart."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from separator import audio
from separator.config import parse
from separator.data.dataset import Batch
from separator.engine.loop import fit
from separator.pretrain.config import PretrainConfig
from separator.pretrain.objectives.restoration import baselines, masked_error
from separator.pretrain.task import PretrainTask

RATE, SECONDS = 8000, 0.5
CELLS = 4  # seed of the hidden cells: one with which every strategy hides some
SMALL = [
    *(f"rate={RATE}", "stft.n_fft=256", "stft.hop=128", "device=cpu", "model.cross_frame_bands=0"),
    *("model.channels=[8,16,16]", "model.encoder_blocks=[1,1,1]", "model.decoder_blocks=[1,1,1]"),
    *(
        "model.ffn_dim=[256,256,256]",
        "model.convs=1",
        "data.batch=1",
        f"data.segment_seconds={SECONDS}",
    ),
    *("data.workers=0", "data.valid_share=0.5", "valid_crops=1", "validate_every=0"),
    *("checkpoint_every=0", "steps=250", "optim.lr=5e-3", "optim.warmup_steps=20"),
    *("optim.weight_decay=0", "mask.clean_share=0", "log_every=250"),
]
BANDED = ["mask.band=16", "mask.group=4"]
PRESETS = {  # whole frames, runs in time and frequency, patches with a squared error
    "bert15": ["mask.group=4"],
    "time_frequency": ["mask.band=16", "mask.band_span=3", "mask.span=12"],
    "maskspec75": ["mask.band=16", "mask.group=4"],
}


class OneCrop(PretrainTask):
    """The same crop with the same cells hidden, again and again."""

    def batches(self, start: int, stride: int = 1) -> Iterator[Batch]:
        batch = dataclasses.replace(next(super().batches(0)))
        while True:
            yield batch

    def step(
        self, model: nn.Module, batch: Batch, step: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        return super().step(model, batch, 0, generator.manual_seed(CELLS))


@pytest.fixture(scope="module")
def songs(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds from the middle of the middle of each real song."""
    folder = tmp_path_factory.mktemp("songs")
    for path in sorted((shared_data / "songs").glob("*.mp3")):
        wave = audio.read(path)
        rate = audio.probe(path).rate
        with audio.Writer(folder / f"{path.stem}.wav", rate, 2) as writer:
            writer.write(wave[:, 60 * rate : 62 * rate])
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_the_error_falls_below_a_tenth_of_the_best_trivial_answers(
    preset: str, songs: Path, tmp_path: Path
):
    words = [f"pretrain/{preset}.yaml", *SMALL, *PRESETS[preset]]
    words += [f"data.roots=[{songs}]", f"run={tmp_path}"]
    config = parse(PretrainConfig, words, "pretrain")
    task = OneCrop(config)
    fit(task, config)
    seen = task.example(next(task.batches(0)), 0, torch.Generator().manual_seed(CELLS))
    chosen = seen.corrupted.chosen
    assert chosen.any()
    with torch.no_grad():
        outputs = task.model.eval()(seen.corrupted.spectrogram, seen.corrupted.masked)
    answers = {"model": seen.corrupted.spectrogram * outputs.mask, **baselines(seen.target, chosen)}
    errors = {
        name: masked_error(answer, seen.target, seen.corrupted, 1.0, 0.0)["loss"].item()
        for name, answer in answers.items()
    }
    reached = errors.pop("model")
    assert reached < 0.1 * min(errors.values()), (reached, errors)

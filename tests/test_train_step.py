"""What a step of training asks of the model: the stems without the vocals, out of their sum."""

import pytest
import torch
from torch import Tensor, nn

from separator.config import parse
from separator.data.corpus import write_corpus
from separator.stft import stft
from separator.train.config import TrainConfig
from separator.train.step import TrainTask
from tests.toys import MICRO, seeded


class Recorder(nn.Module):
    """Stands for the trained model: notes what it is shown and answers with a fixed mask."""

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x
        self.mask = torch.linspace(0, 1, x.numel()).view_as(x)
        return self.mask


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> TrainTask:
    corpus = write_corpus(tmp_path_factory.mktemp("corpus"), songs=3, seconds=3.0)
    words = [*MICRO, f"data.roots=[{corpus}]", "loss.magnitude=1"]
    return TrainTask(parse(TrainConfig, words, "train"))


def test_the_loss_by_hand(task: TrainTask):
    batch, model = next(task.batches(0)), Recorder()
    scalars = task.step(model, batch, 0, seeded())
    stems = dict(zip(batch.names, batch.stems.unbind(1), strict=True))
    assert set(stems) == {"drums", "bass", "other", "vocals"}
    accompaniment = stems["drums"] + stems["bass"] + stems["other"]
    mixture, true = (
        stft(wave, task.config.stft).abs()
        for wave in (accompaniment + stems["vocals"], accompaniment)
    )
    assert (mixture - true).abs().max() > 0.1
    loudest = mixture.amax((1, 2, 3), keepdim=True)
    torch.testing.assert_close(model.seen, (mixture / loudest).sqrt(), rtol=1e-3, atol=1e-4)
    truth = (true / loudest).clamp(max=1).sqrt()
    expected = (model.mask * model.seen - truth).abs().mean().item()
    assert scalars["loss"].item() == pytest.approx(expected, rel=1e-4)


def test_stems_are_varied_from_batch_to_batch(task: TrainTask, monkeypatch: pytest.MonkeyPatch):
    """Of the same songs, with and without augmentation: gains and signs of each stem differ."""
    from separator.data import augment, loader

    varied = next(task.batches(0)).stems
    monkeypatch.setattr(
        loader.augment, "apply", lambda stems, changes, samples: stems[..., :samples]
    )
    plain = next(task.batches(0)).stems
    assert loader.augment is augment
    ratio = (varied.square().sum((2, 3)) / plain.square().sum((2, 3))).sqrt()
    assert ratio.std() > 0.05

"""What a step of training asks of the model: the stems without the vocals, out of their sum."""

import pytest
import torch
from torch import Tensor, nn

from separator.config import parse
from separator.data.corpus import write_corpus
from separator.data.dataset import Batch
from separator.data.reader import load_stems
from separator.dsp.stft import stft
from separator.losses import SeparationLoss
from separator.supervised.validation import song_loss
from separator.train.config import TrainConfig
from separator.train.step import TrainTask
from tests.toys import MICRO, seeded


class Recorder(nn.Module):
    """Stands for the trained model: notes what it is shown and answers with a fixed mask."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x
        self.calls += 1
        self.mask = torch.linspace(0, 1, x.numel()).view_as(x)
        return self.mask


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> TrainTask:
    corpus = write_corpus(tmp_path_factory.mktemp("corpus"), songs=3, seconds=3.0)
    words = [*MICRO, f"data.roots=[{corpus}]", "loss.magnitude_l1=1"]
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


def test_silent_crops_do_not_count_in_the_validation_loss(
    task: TrainTask, monkeypatch: pytest.MonkeyPatch
):
    """auraloss' spectral convergence is relative to the target: over silence it is enormous."""
    loss = SeparationLoss({"magnitude_l1": 1.0, "MultiResolutionSTFTLoss": 0.1})
    monkeypatch.setattr(task, "loss", loss)
    stems = load_stems(task.valid[0], 8000)
    target, mixture = stems["accompaniment"], sum(stems.values())
    whole = song_loss(task, Recorder(), mixture, target[None])
    assert {"loss", "loss/magnitude_l1", "loss/MultiResolutionSTFTLoss"} == set(whole)
    assert whole["loss/MultiResolutionSTFTLoss"] < 20
    half = target.clone()
    half[:, half.shape[1] // 2 :] = 0
    assert song_loss(task, Recorder(), mixture, half[None])["loss"] < 20
    assert song_loss(task, Recorder(), mixture, 0 * target[None]) == {}


def test_stems_are_varied_from_batch_to_batch(task: TrainTask, monkeypatch: pytest.MonkeyPatch):
    """Of the same songs, with and without augmentation: gains and signs of each stem differ."""
    from separator.data import augment, dataset

    varied = next(task.batches(0)).stems
    monkeypatch.setattr(
        dataset.augment, "apply", lambda stems, changes, samples: stems[..., :samples]
    )
    plain = next(task.batches(0)).stems
    assert dataset.augment is augment
    ratio = (varied.square().sum((2, 3)) / plain.square().sum((2, 3))).sqrt()
    assert ratio.std() > 0.05


@pytest.mark.parametrize("seconds", [0.4, 1.0, 3.0, 30.0])
def test_the_validation_loss_is_the_trainings_loss(task: TrainTask, seconds: float):
    """Of two crops of a song at a time, as a step of training scores them; short songs are padded.

    The song is three seconds long, or a part or a repetition of it.
    """
    stems = load_stems(task.valid[0], 8000)
    pair = torch.stack([stems["accompaniment"], stems["vocals"]])
    pair = pair.repeat(1, 1, 10)[..., : round(8000 * seconds)]
    model = Recorder()
    found = song_loss(task, model, pair.sum(0), pair[:1])
    assert model.calls == 2
    assert model.seen.shape[0] == 1
    room = max(0, round(8000 * seconds) - 8000)
    expected = []
    for start in (room // 4, 3 * room // 4):
        crop = torch.zeros(1, 2, 2, 8000)
        part = pair[..., start : start + 8000]
        crop[0, ..., : part.shape[-1]] = part
        batch = Batch(crop, ("accompaniment", "vocals"), torch.tensor([8000]), torch.tensor([0]))
        expected.append(task.step(model, batch, 0, seeded()))
    for name, value in found.items():
        mean = sum(scalars[name].item() for scalars in expected) / 2
        assert value.item() == pytest.approx(mean, rel=1e-5)
    assert {"loss", "loss/magnitude_l1"} == set(found)


def test_validation_logs_the_loss_without_a_gradient(task: TrainTask):
    """The mean over songs, in evaluation mode."""
    result = task.validate(task.model.train(), 0)
    losses = []
    for track in task.valid:
        stems = load_stems(track, 8000)
        waves = stems["vocals"] + stems["accompaniment"], stems["accompaniment"][None]
        rows = song_loss(task, task.model.eval(), *waves)
        assert not any(value.requires_grad for value in rows.values())
        losses.append(rows["loss"].item())
    assert result.scalars["valid/loss"] == pytest.approx(sum(losses) / len(losses))
    assert result.scalars["valid/loss"] == result.scalars["valid/loss/magnitude_l1"] > 0


def test_the_targets_sound_is_logged_beside_the_estimates_and_the_mixtures(task: TrainTask):
    result = task.validate(task.model, 0)
    for track in task.valid[:2]:
        stems = load_stems(track, 8000)
        sounds = {kind: result.audio[f"{track.name}/{kind}"] for kind in
                  ("target", "mixture", "estimate")}  # fmt: skip
        assert {rate for _, rate in sounds.values()} == {8000}
        target, mixture, estimate = (wave for wave, _ in sounds.values())
        assert torch.equal(target, stems["accompaniment"])
        assert torch.equal(mixture, stems["accompaniment"] + stems["vocals"])
        assert estimate.shape == target.shape
        assert not torch.equal(estimate, target)

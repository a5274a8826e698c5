"""Mixture invariant training: the best assignment, the parts, and the layer that is kept."""

import itertools
from pathlib import Path

import pytest
import torch

from separator import cli
from separator.config import parse
from separator.data.corpus import write_corpus
from separator.models.build import create
from separator.pretrain.config import PretrainConfig
from separator.pretrain.mixit_task import MixitModel, MixitTask, mixit_loss
from tests.toys import MICRO, STFT, TINY, seeded


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), songs=4, seconds=3.0)


def config_of(corpus: Path, *more: str) -> PretrainConfig:
    words = [*MICRO, f"data.roots=[{corpus}]", "valid_crops=4", "mixit.sources=4", *more]
    return parse(PretrainConfig, ["pretrain/mixit.yaml", *words], "pretrain")


def test_the_loss_is_that_of_the_best_of_all_assignments():
    parts = torch.randn(3, 4, 2, 500, generator=seeded())
    references = torch.randn(3, 2, 2, 500, generator=seeded(1))
    references[:, 0] += parts[:, 1] + parts[:, 3]
    expected = []
    for own, pair in zip(parts, references, strict=True):
        values = []
        for choice in itertools.product((0, 1), repeat=4):
            chosen = torch.tensor(choice, dtype=torch.float32)[:, None, None]
            sums = torch.stack([(chosen * own).sum(0), ((1 - chosen) * own).sum(0)])
            error = (sums - pair).square().sum((1, 2)) / pair.square().sum((1, 2))
            values.append((10 * (error + 1e-3).log10()).mean())
        expected.append(min(values))
    torch.testing.assert_close(
        mixit_loss(parts, references, 30.0), torch.stack(expected), rtol=1e-4, atol=1e-4
    )


def test_restored_songs_reach_the_bound_and_no_more():
    parts = torch.randn(2, 4, 2, 500, generator=seeded())
    references = torch.stack([parts[:, 0] + parts[:, 2], parts[:, 1] + parts[:, 3]], dim=1)
    torch.testing.assert_close(
        mixit_loss(parts, references, 30.0), torch.full((2,), -30.0), rtol=0, atol=0.2
    )
    silent = torch.zeros_like(references)
    assert mixit_loss(parts * 0, silent, 30.0).isfinite().all()


def test_the_mixtures_are_sums_of_neighbours_and_the_loss_by_hand(corpus: Path):
    task = MixitTask(config_of(corpus, "data.batch=3"))
    crops = next(task.batches(0)).mixture
    pairs = torch.stack([crops, crops[[2, 0, 1]]], dim=1)
    parts = task._split(task.model.eval(), crops + crops[[2, 0, 1]])
    assert parts.shape == (3, 4, 2, 8000)
    expected = mixit_loss(parts, pairs, 30.0).mean()
    torch.testing.assert_close(task._loss(task.model, crops), expected)


def test_the_file_keeps_what_one_part_leaves():
    torch.manual_seed(0)
    model = MixitModel(create(TINY, STFT.bins), 4, STFT.bins).eval()
    torch.nn.init.normal_(model.mask_bias, std=0.02)
    x = torch.rand(2, 2, STFT.bins, 9, generator=seeded())
    parts = model(x)
    assert parts.shape == (2, 4, 2, STFT.bins, 9) and 0 <= parts.min() <= parts.max() <= 1
    model.take_voice(2)
    torch.testing.assert_close(model.backbone(x), 1 - parts[:, 2], rtol=1e-4, atol=1e-5)


def test_only_what_is_used_is_trained(corpus: Path):
    task = MixitTask(config_of(corpus))
    losses = task.step(task.model, next(task.batches(0)), 0, seeded())
    losses["loss"].backward()
    lacking = [name for name, w in task.model.named_parameters() if w.grad is None]
    assert sorted(lacking) == ["backbone.head.bias", "backbone.head.weight", "backbone.mask_bias"]
    assert not any(w.requires_grad for n, w in task.model.named_parameters() if n in lacking)


def test_the_best_voice_is_found_and_fine_tuned(corpus: Path, tmp_path: Path):
    task = MixitTask(config_of(corpus, f"mixit.voices=[{corpus}]", "mixit.voice_songs=2"))
    assert len(task.voices) == 2
    error = torch.zeros(4)
    for mixture, vocals in task.voices:
        error += (task._split(task.model.eval(), mixture[None])[0] - vocals).square().sum((1, 2))
    assert task._best_voice(task.model)[0] == error.argmin()
    run = tmp_path / "run"
    words = [*MICRO, f"data.roots=[{corpus}]", "mixit.sources=4", "valid_crops=2", "steps=3"]
    words += [f"mixit.voices=[{corpus}]", f"run={run}"]
    assert cli.main(["pretrain", "pretrain/mixit.yaml", *words]) == 0
    words = [*MICRO, f"data.roots=[{corpus}]", f"pretrained={run / 'model.safetensors'}"]
    words += ["head=keep", "steps=1", f"run={tmp_path / 'tuned'}"]
    assert cli.main(["train", "train/vocals.yaml", *words]) == 0


def test_a_run_is_the_same_in_one_piece_and_in_two(corpus: Path, tmp_path: Path):
    states = []
    for parts in ([4], [2, 4]):
        run = tmp_path / f"run{len(parts)}"
        for steps in parts:
            words = [*MICRO, f"data.roots=[{corpus}]", "mixit.sources=3", "valid_crops=2"]
            words += [f"steps={steps}", "optim.schedule=constant", f"run={run}"]
            assert cli.main(["pretrain", "pretrain/mixit.yaml", *words]) == 0
        states.append(torch.load(run / "last.pt", weights_only=True)["model"])
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_what_cannot_be_is_refused(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    words = ["pretrain", "pretrain/mixit.yaml", *MICRO, f"data.roots=[{corpus}]"]
    assert cli.main([*words, "data.batch=1"]) == 2
    assert "data.batch" in capsys.readouterr().err
    assert cli.main([*words, "architecture=patch_transformer"]) == 2
    assert "frame_transformer" in capsys.readouterr().err
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for number, path in enumerate(corpus.rglob("other.flac")):
        (mixed / f"{number}.flac").write_bytes(path.read_bytes())
    assert cli.main([*words, f"mixit.voices=[{mixed}]", f"run={tmp_path / 'run'}"]) == 1
    assert "mixit.voices: no songs with stems" in capsys.readouterr().err


def test_squared_masks_start_by_adding_up_to_one():
    model = MixitModel(create(TINY, STFT.bins), 8, STFT.bins).eval()
    torch.nn.init.zeros_(model.head.weight)
    masks = model(torch.rand(1, 2, STFT.bins, 3, generator=seeded()))
    torch.testing.assert_close(masks.square().sum(1), torch.ones(1, 2, STFT.bins, 3))

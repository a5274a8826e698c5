"""SpecAugment and PEAS: where blocks lie, how wide they are, and that only the input changes."""

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch

from separator.config import to_dict
from separator.data.config import DataConfig
from separator.data.dataset import Batch
from separator.dsp.config import STFTConfig
from separator.dsp.stft import istft, normalise, stft
from separator.errors import SeparatorError
from separator.train.config import SpecAugmentConfig, TrainConfig
from separator.train.specaugment import (
    adaptive_blocks,
    blocks_to_keep,
    hardest_windows,
    prediction_error,
)
from separator.train.step import TrainTask

TRANSFORM = STFTConfig(n_fft=64, hop=32)
RATE = 3200  # a frame is 10 ms, a bin 50 Hz
SHAPE = (1, 2, 33, 40)


def half(magnitude: torch.Tensor) -> torch.Tensor:
    return torch.full_like(magnitude, 0.5)


def draws(config: SpecAugmentConfig, count: int, progress: float = 0.0, network=half):
    generator = torch.Generator().manual_seed(3)
    for _ in range(count):
        magnitude = torch.rand(SHAPE, generator=generator)
        yield blocks_to_keep(magnitude, network, whole(config), round(100 * progress), generator)


def whole(config: SpecAugmentConfig) -> TrainConfig:
    """Return the configuration of a run of 100 steps."""
    about = {"stft": TRANSFORM, "rate": RATE, "steps": 100, "specaugment": config}
    return TrainConfig(data=DataConfig(roots=["x"]), **about)


def chi_square(counts: list[int]) -> float:
    expected = sum(counts) / len(counts)
    return sum((count - expected) ** 2 / expected for count in counts)


def test_widths_and_places_are_uniform() -> None:
    """Widths are uniform from 0 to the largest, and so are the places of each width."""
    config = SpecAugmentConfig(time_blocks=1, seconds=0.08)  # 8 frames
    widths: Counter[int] = Counter()
    places: Counter[int] = Counter()
    for keep in draws(config, 6000):
        assert keep.shape == (1, 1, 33, 40)
        frames = keep[0, 0, 0] == 0
        assert torch.equal(keep == 0, frames.expand(1, 1, 33, 40))  # all bins of a frame
        width = int(frames.sum())
        widths[width] += 1
        if width == 3:
            first = int(frames.nonzero()[0])
            assert frames[first : first + 3].all()
            places[first] += 1
    assert set(widths) == set(range(9))
    assert chi_square([widths[width] for width in range(9)]) < 20.1  # p = 0.01, 8 degrees
    assert set(places) == set(range(38))
    assert chi_square([places[place] for place in range(38)]) < 59.9  # p = 0.01, 37 degrees


def test_blocks_of_bins_and_both() -> None:
    """Blocks of bins cover all frames; with both kinds the union is masked."""
    config = SpecAugmentConfig(frequency_blocks=1, hertz=500)
    heights = set()
    for keep in draws(config, 300):
        bins = keep[0, 0, :, 0] == 0
        assert torch.equal((keep == 0)[0, 0], bins[:, None].expand(33, 40))
        heights.add(int(bins.sum()))
    assert heights == set(range(11))
    both = SpecAugmentConfig(time_blocks=2, seconds=0.1, frequency_blocks=2, hertz=500)
    for keep in draws(both, 100):
        hidden = keep[0, 0] == 0
        assert torch.equal(hidden, hidden.all(0)[None] | hidden.all(1)[:, None])


def test_the_largest_width_may_be_the_whole_crop() -> None:
    config = SpecAugmentConfig(time_blocks=1, seconds=60.0)
    widths = {int((keep[0, 0, 0] == 0).sum()) for keep in draws(config, 600)}
    assert {0, 40} <= widths


def test_prediction_error_by_hand() -> None:
    """Equations 1 and 2 worked out in plain arithmetic, and no gradient anywhere."""
    layer = torch.nn.Linear(1, 1)
    with torch.no_grad():
        layer.weight.fill_(0.25)
        layer.bias.fill_(0.1)
    x = torch.rand(1, 1, 3, 4)
    error = prediction_error(x, lambda m: layer(m[..., None])[..., 0])
    for value, result in zip(x.flatten().tolist(), error.flatten().tolist(), strict=True):
        reconstruction = ((0.25 * value + 0.1) * value - value) ** 2
        expected = ((0.25 * reconstruction + 0.1) * reconstruction - reconstruction) ** 2
        assert result == pytest.approx(expected, rel=1e-5)
    assert not error.requires_grad
    assert layer.weight.grad is None


def test_hardest_windows_against_a_loop() -> None:
    error = torch.rand(50, generator=torch.Generator().manual_seed(1))
    means = [float(error[i : i + 7].double().mean()) for i in range(44)]
    order = sorted(range(44), key=lambda i: -means[i])
    expected: list[int] = []
    for start in order:
        if all(abs(start - other) >= 7 for other in expected):
            expected.append(start)
    assert hardest_windows(error, 7, 3) == expected[:3]
    assert len(hardest_windows(error, 7, 100)) <= 7  # as many as fit


def test_fixed_widths_are_for_the_last_fifth() -> None:
    config = SpecAugmentConfig(time_blocks=1, seconds=0.16, fixed_late=True)
    for progress, expected in ((0.79, set(range(17))), (0.8, {8})):
        widths = {int((keep[0, 0, 0] == 0).sum()) for keep in draws(config, 400, progress)}
        assert widths == expected


@pytest.mark.parametrize("total", [1, 3])
def test_schedule(total: int) -> None:
    """Equation 3 for each epoch of 25."""
    for epoch in range(26):
        heaviside = 1 if epoch - 0.8 * 25 >= 0 else 0
        assert adaptive_blocks(epoch, 25, total) == min(
            total, 0.1 * epoch + 0.9 * total * heaviside
        )


def test_a_hard_place_is_found_and_widths_become_fixed() -> None:
    """Where the network fails is masked in the last fifth of the run, at the expected width."""

    def fails_late(magnitude: torch.Tensor) -> torch.Tensor:  # perfect but in frames 20 to 27
        mask = torch.ones_like(magnitude)
        mask[..., 20:28] = 0
        return mask

    config = SpecAugmentConfig(time_blocks=1, seconds=0.16, positions="peas", fixed_late=True)
    for keep in draws(config, 50, progress=0.9, network=fails_late):
        hidden = (keep[0, 0, 0] == 0).nonzero().flatten().tolist()
        assert hidden == list(range(20, 28))
    early = Counter(
        (keep[0, 0, 0] == 0).nonzero().flatten().tolist() == list(range(20, 28))
        for keep in draws(config, 200, progress=0.0, network=fails_late)
    )
    assert early[True] < 10  # at first all are random


def test_the_share_of_hard_places_grows() -> None:
    """One block: it is at the hard place as often as equation 3 says."""

    def fails_at_start(magnitude: torch.Tensor) -> torch.Tensor:
        mask = torch.ones_like(magnitude)
        mask[..., :2] = 0
        return mask

    config = SpecAugmentConfig(time_blocks=1, seconds=0.04, positions="peas", epochs=10)
    at = [
        float((keep[0, 0, 0, :4] == 0).any())
        for keep in draws(config, 3000, progress=0.5, network=fails_at_start)
    ]
    # half of the draws are adaptive; a width of 0 (1 in 5) masks nothing; random ones rarely hit
    share = sum(at) / len(at)
    random = (
        sum(
            float((keep[0, 0, 0, :4] == 0).any())
            for keep in draws(replace(config, positions="random"), 3000)
        )
        / 3000
    )
    assert share == pytest.approx(0.5 * 0.8 + 0.5 * random, abs=0.03)


def task(tmp_path, monkeypatch, **changes) -> TrainTask:
    monkeypatch.setattr("separator.supervised.task.training_tracks", lambda data: ([], []))
    config = TrainConfig(
        data=DataConfig(roots=[str(tmp_path)]),
        stft=TRANSFORM,
        rate=RATE,
        steps=10,
        **changes,
    )
    small = replace(
        config.model, channels=[2, 2], convs=1, encoder_blocks=[0, 1], decoder_blocks=[0, 1],
        ffn_dim=[0, 16], heads=1, dropout=0.2,
    )  # fmt: skip
    return TrainTask(replace(config, model=small))


def batch_of_noise() -> Batch:
    stems = torch.randn(2, 2, 2, 32 * 39, generator=torch.Generator().manual_seed(0)) * 0.1
    return Batch(stems, ("accompaniment", "vocals"), torch.full((2,), 32 * 39), torch.arange(2))


@pytest.mark.parametrize("target", ["alike", "whole"])
def test_training_sees_the_blocks(tmp_path, monkeypatch, target) -> None:
    """The network's input has the blocks; the target has them too, or not, as asked."""
    about = SpecAugmentConfig(time_blocks=1, seconds=0.2, target=target)
    with_blocks = task(tmp_path, monkeypatch, specaugment=about)
    seen = {}
    keep = torch.ones(2, 1, 33, 40)
    keep[..., 10:20] = 0
    monkeypatch.setattr("separator.train.step.blocks_to_keep", lambda *_: keep)
    monkeypatch.setattr(
        with_blocks, "loss", lambda *arguments: seen.update(arguments=arguments) or {}
    )

    def network(magnitude):
        seen["magnitude"] = magnitude
        return magnitude

    batch = batch_of_noise()
    with_blocks.step(network, batch, 0, torch.Generator())
    whole = stft(batch.mixture, TRANSFORM)
    assert torch.equal(seen["magnitude"], normalise(whole.abs(), TRANSFORM)[0] * keep)
    estimate, true = seen["arguments"]
    mixture, wave = estimate.mixture, true.wave
    accompaniment = batch.stems[:, 0]
    if target == "alike":
        assert torch.equal(mixture, whole * keep)
        expected = istft(stft(accompaniment, TRANSFORM) * keep, TRANSFORM, wave.shape[-1])
        assert torch.allclose(wave, expected, atol=1e-6)
    else:
        assert torch.equal(mixture, whole)
        assert torch.equal(wave, accompaniment)


def test_peas_changes_nothing_but_the_blocks(tmp_path, monkeypatch) -> None:
    """With the same blocks, a step with the selector equals one without: weights, dropout, all."""
    results = []
    for positions in ("random", "peas"):
        about = SpecAugmentConfig(time_blocks=1, seconds=0.2, positions=positions)
        model = task(tmp_path, monkeypatch, specaugment=about)

        def same(magnitude, network, config, *rest):
            if config.specaugment.positions == "peas":
                blocks_to_keep(magnitude, network, config, *rest)
            keep = torch.ones(2, 1, 33, 40)
            keep[..., 10:20] = 0
            return keep

        monkeypatch.setattr("separator.train.step.blocks_to_keep", same)
        torch.manual_seed(5)
        scalars = model.step(model.model, batch_of_noise(), 8, torch.Generator())
        scalars["loss"].backward()
        assert model.model.training
        results.append([weight.grad for weight in model.model.parameters()])
    assert all(
        (a is None and b is None) or torch.equal(a, b) for a, b in zip(*results, strict=True)
    )


def test_batches_of_several_crops_differ() -> None:
    config = SpecAugmentConfig(time_blocks=1, seconds=0.2)
    generator = torch.Generator().manual_seed(0)
    keep = blocks_to_keep(torch.rand(16, 2, 33, 40), half, whole(config), 0, generator)
    assert len({tuple(row.flatten().tolist()) for row in keep}) > 8
    again = blocks_to_keep(
        torch.rand(16, 2, 33, 40), half, whole(config), 0, torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert torch.equal(keep, again)  # a function of the generator alone


def test_limits_and_configuration() -> None:
    for wrong in ({"time_blocks": -1}, {"seconds": math.nan}, {"hertz": -1.0}, {"epochs": 0}):
        with pytest.raises(SeparatorError, match=r"is not (in|at)"):
            SpecAugmentConfig(**wrong)
    assert not SpecAugmentConfig().on
    assert to_dict(SpecAugmentConfig())["positions"] == "random"

"""Hard-patch mining: which cells, how many, and what the ranking loss says."""

import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor

from separator.pretrain.masking.config import MaskConfig
from separator.pretrain.masking.corruption import corrupt, grid_of
from separator.pretrain.masking.grid import PatchGrid, group_mean
from separator.pretrain.masking.strategies.hard import hard, hard_share
from separator.pretrain.objectives import Prediction
from separator.pretrain.objectives.auxiliary.ranking import (
    HardConfig,
    Ranking,
    agreement,
    patch_error,
    ranking_loss,
)
from tests.toys import seeded

CONFIG = MaskConfig(strategy="hard", group=4, band=8, share=0.75, mask=1.0, noise=0.0)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=seeded(seed))


def test_the_hard_share_grows_to_a_half():
    config = MaskConfig(weighted_steps=100)
    shares = [hard_share(step, config) for step in (0, 1, 50, 100, 1000)]
    assert shares == pytest.approx([0, 0.005, 0.25, 0.5, 0.5])
    assert hard_share(9, MaskConfig(weighted_steps=100, uniform_steps=10)) == 0


@pytest.mark.parametrize("step", [0, 30, 100])
def test_the_count_is_exact_and_the_hardest_are_in(step: int):
    grid, config = PatchGrid(33, 40, 4, 4), MaskConfig(share=0.75, weighted_steps=100)
    difficulty = random(6, 4, 10)
    chosen = hard(difficulty, grid, config, step, seeded(1))
    assert chosen.sum(dim=(1, 2)).tolist() == [30] * 6
    hardest = difficulty.flatten(1).argsort(dim=1, descending=True)[:, : int(30 * 0.005 * step)]
    assert chosen.flatten(1).gather(1, hardest).all()


def test_without_a_share_every_cell_is_as_likely():
    grid, config = PatchGrid(33, 40, 4, 4), MaskConfig(share=0.5)
    difficulty = torch.arange(40.0).reshape(1, 4, 10).expand(4000, -1, -1)
    often = hard(difficulty, grid, config, 0, seeded()).float().mean(0)
    assert (often - 0.5).abs().max() < 5 * math.sqrt(0.25 / 4000)


def test_group_mean_is_the_naive_loop():
    values = random(2, 3, 11)
    expected = torch.stack([values[..., a : a + 4].mean(-1) for a in (0, 4, 8)], dim=-1)
    torch.testing.assert_close(group_mean(values, 4), expected)


def test_cell_errors_are_the_naive_loop():
    target, restored = random(2, 2, 17, 10), random(2, 2, 17, 10, seed=1)
    grid = PatchGrid(17, 10, 2, 4)
    found = patch_error(restored, target, grid)
    for item, band, group in itertools.product(range(2), range(2), range(3)):
        cell = (item, slice(None), slice(8 * band, 8 * band + 8), slice(4 * group, 4 * group + 4))
        error = (restored[cell] - target[cell]).abs().mean()
        assert found[item, band, group].item() == pytest.approx(
            (error / (target[cell].mean() + 1e-2)).item(), rel=1e-5
        )


def test_the_ranking_loss_is_a_double_loop_over_counted_pairs():
    predicted, error = random(2, 7) * 4, random(2, 7, seed=1)
    error[0, 2] = error[0, 3]  # a tie says nothing
    counted = torch.tensor([[1, 1, 1, 1, 0, 0, 1], [0, 1, 1, 1, 1, 1, 1]]).bool()
    losses, right = [], []
    for item in range(2):
        for i, j in itertools.combinations(range(7), 2):
            if not (counted[item, i] and counted[item, j]) or error[item, i] == error[item, j]:
                continue
            margin = (predicted[item, i] - predicted[item, j]).item()
            margin = margin if error[item, i] > error[item, j] else -margin
            losses.append(math.log(1 + math.exp(-margin)))
            right.append(margin > 0)
    found = ranking_loss(predicted, error, counted).item()
    assert found == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert agreement(predicted, error, counted).item() == pytest.approx(sum(right) / len(right))


def test_the_predictor_learns_to_rank_unseen_cells():
    """Rank correlation over 0.5 on crops that were not trained on, where features tell."""
    torch.manual_seed(0)
    run = SimpleNamespace(mask=MaskConfig(band=8), stft=SimpleNamespace(bins=17))
    objective = Ranking(HardConfig(weight=1.0), run)
    predictor = objective.head(SimpleNamespace(bottleneck_features=12))
    rate = torch.optim.Adam(predictor.parameters(), lr=1e-2)
    truth = torch.randn(12, 2)

    def example(seed: int) -> tuple[SimpleNamespace, Prediction]:
        target = 0.1 + 0.8 * random(4, 2, 17, 16, seed=seed)
        deep = torch.randn(4, 16, 12, generator=seeded(seed))
        wrong = (deep @ truth).sigmoid().transpose(1, 2).repeat_interleave(8, 1)
        wrong = torch.cat([wrong, wrong[:, -1:]], dim=1)[:, None]
        config = MaskConfig(group=4, band=8, share=0.75, mask=1.0, noise=0.0)
        corrupted = corrupt(target, config, 0, seeded(seed))
        outputs = SimpleNamespace(bottleneck=deep)
        prediction = Prediction(outputs, target * (1 - wrong), 0, seeded())
        return SimpleNamespace(target=target, corrupted=corrupted), prediction

    for seed in range(60):
        loss, _ = objective.loss(predictor, *example(seed))
        loss.backward()
        rate.step()
        rate.zero_grad()
    batch, prediction = example(1000)
    deep, grid = prediction.outputs.bottleneck, batch.corrupted.grid
    predicted = objective.predict_errors(predictor, deep, grid).detach().flatten()
    error = patch_error(prediction.restored, batch.target, grid).flatten()
    assert spearmanr(predicted, error).statistic > 0.5
    _, logged = objective.loss(predictor, batch, prediction)
    assert logged["hard/agreement"] > 0.7


def test_corrupt_hides_what_is_said_to_be_hard():
    config = MaskConfig(
        strategy="hard", group=4, band=8, share=0.25, mask=1.0, noise=0.0, weighted_steps=1
    )
    target = random(2, 2, 33, 40)
    grid = grid_of(target, config, 5)
    difficulty = torch.zeros(2, grid.bands, grid.groups)
    difficulty[:, 1, 2:7] = 1  # a planted place
    hidden = corrupt(target, config, 5, seeded(), predicted_error=difficulty).masked_patches
    assert hidden.sum(dim=(1, 2)).tolist() == [10, 10]
    assert hidden[:, 1, 2:7].all()

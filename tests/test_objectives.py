"""The pretext loss by hand, and the trivial answers against numpy."""

import numpy as np
import pytest
import torch
from torch import Tensor

from separator.pretrain.masking.config import MaskConfig
from separator.pretrain.masking.corruption import KINDS, Corrupted, corrupt
from separator.pretrain.masking.grid import PatchGrid
from separator.pretrain.objectives.restoration import baselines, masked_error

MASK, NOISE, KEPT = (KINDS.index(kind) for kind in ("mask", "noise", "keep"))


def corrupted(*kinds: list[int]) -> Corrupted:
    """Only where and what; the loss does not look at the spectrogram."""
    kinds = torch.tensor(kinds)[:, None, None]
    grid = PatchGrid(2, kinds.shape[-1], 1, 1)
    return Corrupted(torch.empty(0), kinds, grid)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_values_by_hand():
    target = torch.zeros(2, 1, 2, 4)
    restored = torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]])[:, None, None].repeat(1, 1, 2, 1)
    restored[0, 0, 1, 0] = 3  # the frame's error is (1 + 3) / 2
    where = corrupted([MASK, NOISE, -1, -1], [KEPT, -1, MASK, MASK])
    out = masked_error(restored, target, where, 1.0, 0.5)
    masked, unmasked = (2 + (5 + 7 + 8) / 3) / 2, (3.5 + 6) / 2
    assert out["loss/masked"].item() == pytest.approx(masked)
    assert out["loss/unmasked"].item() == pytest.approx(unmasked)
    assert out["loss"].item() == pytest.approx(masked + 0.5 * unmasked)
    assert out["loss/mask"].item() == pytest.approx((2 + 7 + 8) / 3)
    assert out["loss/noise"].item() == pytest.approx(2)
    assert out["loss/keep"].item() == pytest.approx(5)
    shares = [out[f"loss_share/{kind}"].item() for kind in ("mask", "noise", "keep")]
    assert shares == pytest.approx([17 / 24, 2 / 24, 5 / 24])


def test_kinds_that_do_not_occur_are_gaps():
    out = masked_error(random(1, 2, 3, 4), torch.zeros(1, 2, 3, 4), corrupted([MASK] * 4), 1.0, 1.0)
    assert out["loss/noise"].isnan() and out["loss/keep"].isnan() and out["loss/clean"].isnan()
    assert all(out[f"loss_share/{kind}"] == 0 for kind in ("noise", "mix", "keep", "clean"))
    assert out["loss/unmasked"] == 0
    assert out["loss_share/mask"] == 1
    assert out["loss"].isfinite()


@pytest.mark.parametrize(("weights", "inside"), [((1.0, 0.0), True), ((0.0, 1.0), False)])
def test_the_gradient_stays_where_the_weight_is(weights: tuple[float, float], inside: bool):
    target = random(4, 2, 5, 32)
    out = corrupt(target, MaskConfig(group=4), 0, torch.Generator().manual_seed(1))
    restored = random(4, 2, 5, 32, seed=2).requires_grad_()
    masked_error(restored, target, out, *weights)["loss"].backward()
    chosen = out.chosen.expand_as(target)
    assert (restored.grad[chosen] != 0).all() == inside
    assert (restored.grad[~chosen] != 0).all() == (not inside)
    assert restored.grad[~chosen if inside else chosen].abs().max() == 0


def test_the_kinds_that_can_occur():
    assert MaskConfig(mask=0.8, noise=0.1).kinds == {"mask", "noise", "keep"}
    assert MaskConfig(mask=0.5, noise=0.2, mix=0.3, clean_share=0.1).kinds == {
        *("mask", "noise", "mix", "clean"),
    }
    assert MaskConfig(mask=1.0, noise=0.0).kinds == {"mask"}


def test_shares_of_micro_batches_add_up_to_one():
    """Also where a kind occurs in one of them only."""
    ones, zeros = torch.ones(1, 2, 3, 4), torch.zeros(1, 2, 3, 4)
    outs = [
        masked_error(ones, zeros, corrupted(kinds), 1.0, 0.0)
        for kinds in ([MASK] * 4, [MASK, MASK, NOISE, NOISE])
    ]
    shares = [sum(out[f"loss_share/{kind}"] for out in outs) / 2 for kind in KINDS]
    assert sum(shares) == pytest.approx(1)


def test_crops_count_alike_however_they_are_batched():
    target, restored = random(4, 2, 5, 32), random(4, 2, 5, 32, seed=1)
    config = MaskConfig(group=4, clean_share=0.5)
    out = corrupt(target, config, 0, torch.Generator().manual_seed(3))
    whole = masked_error(restored, target, out, 1.0, 0.3)["loss"]
    halves = [
        masked_error(
            restored[i : i + 2],
            target[i : i + 2],
            Corrupted(out.spectrogram[i : i + 2], out.kinds[i : i + 2], out.grid),
            1.0,
            0.3,
        )["loss"]
        for i in (0, 2)
    ]
    torch.testing.assert_close(whole, sum(halves) / 2)


@pytest.mark.parametrize(
    "hidden",
    [
        "..##....#..",
        "###.....###",  # gaps at both ends take the nearest frame's value
        "#.#.#.#.#.#",
        "...........",
        ".#########.",
        "##########.",
        ".##########",
    ],
)
def test_interpolation_is_numpys(hidden: str):
    chosen = torch.tensor([mark == "#" for mark in hidden])
    target = random(2, 2, 3, len(hidden))
    out = baselines(target, chosen.expand(2, 1, 1, -1))["interpolation"]
    place, seen = np.arange(len(hidden)), (~chosen).numpy()
    for row, original in zip(
        out.reshape(-1, len(hidden)), target.reshape(-1, len(hidden)), strict=True
    ):
        expected = np.interp(place, place[seen], original.numpy()[seen])
        np.testing.assert_allclose(row.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_each_item_has_its_own_gaps():
    chosen = torch.tensor([[True, False, False], [False, True, False]])[:, None, None]
    target = torch.tensor([[1.0, 4.0, 6.0], [1.0, 9.0, 6.0]])[:, None, None]
    out = baselines(target, chosen)
    assert out["interpolation"].flatten(1).tolist() == [[4.0, 4.0, 6.0], [1.0, 3.5, 6.0]]
    assert out["bin_mean"].flatten(1).tolist() == [[5.0] * 3, [3.5] * 3]
    assert out["zero"].abs().max() == 0
    assert {value.shape for value in out.values()} == {target.shape}


def test_single_cells_by_hand():
    kinds = torch.full((1, 1, 2, 3), -1)
    kinds[0, 0, 0, 1], kinds[0, 0, 1, 2] = MASK, NOISE
    restored = torch.arange(12.0).reshape(1, 2, 2, 3)
    out = masked_error(
        restored,
        torch.zeros_like(restored),
        Corrupted(restored, kinds, PatchGrid(2, 3, 1, 1)),
        1.0,
        0.5,
    )
    masked = ((1 + 7) / 2 + (5 + 11) / 2) / 2
    assert out["loss/masked"].item() == pytest.approx(masked)
    rest = [(i + i + 6) / 2 for i in (0, 2, 3, 4)]
    assert out["loss/unmasked"].item() == pytest.approx(sum(rest) / 4)
    squared = masked_error(
        restored,
        torch.zeros_like(restored),
        Corrupted(restored, kinds, PatchGrid(2, 3, 1, 1)),
        1.0,
        0.0,
        squared=True,
    )
    assert squared["loss"].item() == pytest.approx(((1 + 49) / 2 + (25 + 121) / 2) / 2)


def test_baselines_of_single_cells_are_those_of_each_bin():
    target = random(2, 2, 4, 9)
    chosen = random(2, 1, 4, 9, seed=1) < 0.5
    chosen[0, 0, 2] = True  # a bin of which nothing is heard
    out = baselines(target, chosen)
    for item in range(2):
        for bin_ in range(4):
            row = chosen[item, :, bin_][None]
            alone = baselines(target[item : item + 1, :, bin_][:, :, None], row[:, :, None])
            for name, values in alone.items():
                torch.testing.assert_close(out[name][item, :, bin_], values[0, :, 0])
    for name in ("bin_mean", "interpolation"):
        assert out[name][0, :, 2].abs().max() == 0

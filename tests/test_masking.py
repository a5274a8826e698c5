"""Which cells are hidden and what becomes of them."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from separator.dsp.config import STFTConfig
from separator.dsp.stft import compress, normalise, stft
from separator.errors import SeparatorError
from separator.pretrain.batch import MIX_DB, mix_with_previous
from separator.pretrain.masking.config import MaskConfig
from separator.pretrain.masking.corruption import (
    KINDS,
    Corrupted,
    corrupt,
    patch_frames,
    with_masked_group,
)
from separator.pretrain.masking.grid import PatchGrid, lowest
from separator.pretrain.masking.strategies.dispersion import uniform_share
from separator.pretrain.masking.strategy import STRATEGIES
from tests.toys import seeded

MASK, NOISE, OTHER, VOICE, KEPT, CLEAN = range(len(KINDS))
assert KINDS == ("mask", "noise", "mix", "voice", "keep", "clean")
RUNS = ("random_time", "window", "frequency", "time_frequency")
COUNTED = sorted(set(STRATEGIES) - set(RUNS) - {"hubert"})


def spectrogram(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=seeded(seed)) * 0.9


def cells(
    strategy: str, batch: int, bands: int, groups: int, seed: int = 0, step: int = 0, **values
) -> Tensor:
    """The chosen cells of random spectrograms, each cell 2 bins by 3 frames."""
    config = MaskConfig(strategy=strategy, band=2, group=3, **values)
    grid = PatchGrid(2 * bands + 1, 3 * groups, bands, 3)
    shape = (bands, groups) if strategy == "hard" else (2, grid.bins, grid.frames)
    return STRATEGIES[strategy].choose(spectrogram(batch, *shape), grid, config, step, seeded(seed))


def fits_uniform(counts: np.ndarray, deviations: float = 2.326) -> bool:
    """Whether chi-squared is below its 99 % point (Wilson and Hilferty's approximation).

    Of many such questions one is missed by chance: they need more standard deviations.
    """
    expected = counts.sum() / len(counts)
    degrees = len(counts) - 1
    edge = degrees * (1 - 2 / (9 * degrees) + deviations * math.sqrt(2 / (9 * degrees))) ** 3
    return ((counts - expected) ** 2 / expected).sum() < edge


@pytest.mark.parametrize("strategy", COUNTED)
@pytest.mark.parametrize("share", [k / 20 for k in range(1, 20)])
def test_every_crop_has_the_share_rounded_up_or_down(strategy: str, share: float):
    for bands, groups in ((1, 64), (8, 12), (3, 5)):
        chosen = cells(strategy, 6, bands, groups, share=share, step=50, weighted_steps=100)
        assert chosen.shape == (6, bands, groups)
        assert chosen.dtype == torch.bool
        total = groups if strategy == "mixed_spans" else bands * groups
        counts = chosen.any(1).sum(1) if strategy == "mixed_spans" else chosen.sum((1, 2))
        numbers = math.floor(share * total + 1e-9), math.ceil(share * total - 1e-9)
        assert set(counts.tolist()) <= {max(1, min(number, total - 1)) for number in numbers}


@pytest.mark.parametrize("strategy", COUNTED)
@pytest.mark.parametrize("groups", [9, 17, 33])  # a crop of tiny, base: 1.35, 2.55, 4.95 of them
def test_fifteen_percent_are_fifteen_percent_in_the_mean(strategy: str, groups: int):
    chosen = cells(strategy, 4000, 1, groups, share=0.15, weighted_steps=1, step=9)
    counts = chosen.sum((1, 2)).float()
    assert counts.mean().item() / groups == pytest.approx(0.15, abs=0.002)
    assert counts.min() >= 1


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_patches_are_chosen_among_the_allowed_groups_alone(strategy: str):
    """The share is that of the free ones; with the two nearest the separator left out here."""
    free = torch.ones(12, dtype=torch.bool)
    free[5:7] = False
    config = MaskConfig(strategy=strategy, band=16, group=4, share=0.25, span=3, band_span=2)
    target = spectrogram(300, 2, 65, 46)  # the last group is cut short
    out = corrupt(target, config, 0, seeded(), allowed=free)
    chosen = out.chosen.expand(-1, -1, 65, -1)[..., ::4][:, 0, ::16][:, :4]
    assert chosen.shape == (300, 4, 12)
    assert not chosen[..., 5:7].any()
    assert chosen[..., free].any(2).any(1).float().mean() > 0.6  # runs may have no width
    if strategy in COUNTED:
        assert chosen.any(2).any(1).all()
        assert chosen.float().sum((1, 2)).mean().item() == pytest.approx(10, abs=0.5)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(("bands", "groups"), [(1, 1), (1, 2), (2, 1), (4, 3), (32, 2)])
def test_small_grids_and_silence_are_legal(strategy: str, bands: int, groups: int):
    config = MaskConfig(strategy=strategy, band=2, group=2)
    for value in (0.0, 1.0):
        target = torch.full((3, 2, 2 * bands + 1, 2 * groups), value)
        out = corrupt(target, config, 0, seeded())
        assert out.spectrogram.isfinite().all()
        assert (out.spectrogram >= target).all()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_same_generator_chooses_the_same_cells(strategy: str):
    first, same, other = (cells(strategy, 50, 4, 20, seed, step=7, span=5) for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_every_cell_is_as_likely():
    chosen = cells("uniform", 20_000, 2, 5, share=0.3).flatten(1)
    assert (chosen.float().mean(0) - 0.3).abs().max() < 0.015
    both = (chosen[:, 0] & chosen[:, 9]).float().mean().item()
    assert both == pytest.approx(0.3 * 2 / 9, abs=0.01)


@pytest.mark.parametrize(
    ("strategy", "axis", "most", "bands", "groups"),
    [
        ("random_time", 2, 7, 11, 13),
        ("frequency", 1, 5, 11, 13),
        ("random_time", 2, 40, 1, 128),  # the source's own widths
        ("frequency", 1, 15, 64, 2),
    ],
)
def test_runs_have_uniform_widths_and_starts(
    strategy: str, axis: int, most: int, bands: int, groups: int
):
    wide = {"span": most} if axis == 2 else {"band_span": most}
    chosen = cells(strategy, 10_000, bands, groups, **wide)
    assert torch.equal(chosen.any(3 - axis), chosen.all(3 - axis))  # all of the other axis
    runs = chosen.any(3 - axis)
    width = runs.sum(1)
    assert fits_uniform(np.bincount(width, minlength=most + 1))
    length = runs.shape[1]
    for w in range(1, most + 1):
        start = runs[width == w].float().argmax(1)
        assert fits_uniform(np.bincount(start, minlength=length - w + 1), deviations=3.5)
        run = runs[width == w]
        assert ((run[:, 1:] & ~run[:, :-1]).sum(1) + run[:, 0] == 1).all()  # in one piece


@pytest.mark.parametrize("span", [1, 5, 13, 40])
def test_a_window_is_as_wide_as_it_says(span: int):
    chosen = cells("window", 2000, 3, 13, span=span)
    assert (chosen.all(1).sum(1) == min(span, 13)).all()
    if span < 13:
        starts = np.bincount(chosen[:, 0].float().argmax(1), minlength=13 - span + 1)
        assert fits_uniform(starts)


def test_time_and_frequency_together_are_either():
    both = cells("time_frequency", 20_000, 11, 13, span=7, band_span=5)
    columns, rows = both.all(1), both.all(2)
    assert torch.equal(both, columns[:, None] | rows[:, :, None])
    a, b = (part.float().mean().item() for part in (columns, rows))
    assert (a, b) == pytest.approx((3.5 / 13, 2.5 / 11), abs=0.01)
    assert both.float().mean().item() == pytest.approx(1 - (1 - a) * (1 - b), abs=0.01)


def test_hubert_covers_what_the_paper_says():
    chosen = cells("hubert", 2000, 1, 500, span=10, share=0.8)
    assert chosen.float().mean().item() == pytest.approx(1 - (1 - 0.8 / 10) ** 10, abs=0.03)
    assert shortest_run(chosen) == 10


def shortest_run(chosen: Tensor) -> int:
    """The shortest run of chosen groups that does not touch the end."""
    runs = []
    for row in chosen[:, 0].tolist():
        length = 0
        for cell in row:
            if length and not cell:
                runs.append(length)
            length = length + 1 if cell else 0
    return min(runs)


def test_mixed_spans_have_their_three_lengths():
    chosen = cells("mixed_spans", 3000, 2, 300, span=8, share=0.08)  # 24 groups: seldom overlapping
    assert torch.equal(chosen[:, 0], chosen[:, 1])
    lengths = np.zeros(60)
    for row in chosen[:, 0].int():
        edges = torch.diff(row, prepend=torch.zeros(1), append=torch.zeros(1)).nonzero().flatten()
        first = (edges[1::2] - edges[::2]).tolist()
        np.add.at(lengths, first, 1)
    common = np.argsort(lengths)[-3:]
    assert set(common) == {4, 8, 16}, lengths  # others: cut short, or touching
    assert lengths[common].min() > 2 * np.sort(lengths)[-4]


def test_clusters_are_squares_of_three_to_five():
    """Of 25 cells: the largest square within tells the side, which each crop has of its own."""
    chosen = cells("clusters", 600, 20, 25, share=0.05).float()[:, None]
    squares = torch.stack([(F.avg_pool2d(chosen, k, 1) == 1).sum((1, 2, 3)) for k in (3, 4, 5, 6)])
    largest = 2 + (squares > 0).sum(0)
    assert set(largest.tolist()) <= {2, 3, 4, 5}  # 2 where all clusters are cut at the border
    for side in (3, 4, 5):
        assert 0.2 < (largest == side).float().mean().item() < 0.45, side


def test_inverse_blocks_keep_cells_together():
    def run_length(kept: Tensor) -> float:
        pairs = kept.sum() / (kept & ~kept.roll(1, 2)).sum()
        return pairs.item()

    blocks = ~cells("inverse_blocks", 200, 16, 40, share=0.7)
    apart = ~cells("uniform", 200, 16, 40, share=0.7)
    assert run_length(blocks) > 1.5 * run_length(apart)


def test_kept_blocks_are_five_by_five():
    """Two blocks are at most the half that is kept: nothing is taken from them, cells are added."""
    kept = ~cells("inverse_blocks", 300, 10, 10, share=0.5)
    apart = ~cells("uniform", 300, 10, 10, share=0.5)
    shares = []
    for cells_ in (kept, apart):
        square = torch.nn.functional.avg_pool2d(cells_.float()[:, None], 5, stride=1)
        shares.append((square.amax((1, 2, 3)) == 1).float().mean().item())
    assert shares[0] > 0.4  # else both were cut at a border
    assert shares[1] < 0.01


@pytest.mark.parametrize("strategy", ["mixed_spans", "window", "hubert"])
def test_one_draw_decides_for_a_run(strategy: str):
    config = MaskConfig(strategy=strategy, group=1, span=6, share=0.3, mask=0.4, mix=0.4)
    x = spectrogram(200, 1, 3, 100)
    kinds = corrupt(x, config, 0, seeded(), {"mix": torch.ones_like(x)}).kinds[:, 0, 0]
    inside = (kinds[:, 1:] >= 0) & (kinds[:, :-1] >= 0)
    assert torch.equal(kinds[:, 1:][inside], kinds[:, :-1][inside])
    assert {MASK, OTHER, KEPT} <= set(kinds.unique().tolist())


@pytest.mark.parametrize("band", [4, 32])  # of the larger ones not all bins are looked at
def test_dispersion_prefers_cells_in_which_much_happens(band: int):
    """Without hints a cell is chosen the more often the larger its deviation."""
    grid = PatchGrid(4 * band + 1, 24, 4, 4)
    config = MaskConfig(strategy="dispersion", band=band, group=4, share=0.2)
    spread = torch.linspace(0.02, 1, 24)[torch.randperm(24, generator=seeded(5))].reshape(4, 6)
    x = torch.rand(1, 2, grid.bins, 24, generator=seeded()).mul(3) * grid.expand(spread[None])
    x = (x - 4.5).exp().expand(5000, -1, -1, -1)
    picked = (
        STRATEGIES["dispersion"]
        .choose(x, grid, config, 10_000, seeded(1))
        .float()
        .mean(0)
        .flatten()
    )
    weight = grid.deviation(x[:1].mean(1, keepdim=True).clamp(min=1e-2).log()).flatten()
    ranks = torch.stack([picked.argsort().argsort(), weight.argsort().argsort()]).float()
    assert torch.corrcoef(ranks)[0, 1] > 0.9
    config = dataclasses.replace(config, uniform_steps=5, weighted_steps=5)
    plain = STRATEGIES["dispersion"].choose(x, grid, config, 4, seeded(1)).float().mean((0,))
    assert (plain - 0.2).abs().max() < 0.025  # all hints: uniform


def test_deviation_is_numpys():
    grid, x = PatchGrid(9, 12, 2, 5), spectrogram(2, 2, 9, 12)  # the last cell is cut short
    out = grid.deviation(x)
    for item in range(2):
        for k in range(2):
            for m in range(3):
                part = x[item, :, 4 * k : 4 * k + 4, 5 * m : 5 * m + 5].numpy()
                expected = np.abs(part - part.mean()).mean()
                assert out[item, k, m].item() == pytest.approx(expected, rel=1e-5)


def test_hints_fall_with_the_global_step():
    config = MaskConfig(uniform_steps=50, weighted_steps=300)
    steps = (0, 49, 50, 100, 150, 200, 300, 1000)
    expected = (1, 1, 0.972, 0.889, 0.75, 0.556, 0, 0)
    assert [uniform_share(step, config) for step in steps] == pytest.approx(expected, abs=1e-3)


def test_lowest_marks_as_many_in_each_row():
    scores = torch.tensor([[3.0, 1, 2, 1], [5, 6, 4, 7]])
    two = torch.tensor([2, 2])
    assert lowest(scores, two).tolist() == [[False, True, False, True], [True, False, True, False]]
    assert lowest(scores, torch.tensor([0, 3])).sum(1).tolist() == [0, 3]
    counts = torch.tensor([4, 0, 9])
    assert lowest(torch.ones(3, 9), counts).sum(dim=1).tolist() == [4, 0, 9]  # equal scores


@pytest.mark.parametrize(("frames", "size"), [(12, 4), (13, 4), (3, 4), (7, 1)])
@pytest.mark.parametrize("bands", [1, 2, 8])
def test_patches_cover_the_spectrogram_as_a_loop_says(frames: int, size: int, bands: int):
    grid = PatchGrid(9, frames, bands, size)
    assert grid.groups == math.ceil(frames / size)
    values = torch.arange(2 * grid.patches).reshape(2, bands, -1)
    out = grid.expand(values)
    assert out.shape == (2, 1, 1 if bands == 1 else 9, frames)
    for item in range(2):
        for f in range(out.shape[2]):
            for n in range(frames):
                band = min(f, 7) * bands // 8
                assert out[item, 0, f, n] == values[item, band, n // size]


@pytest.mark.parametrize("frames", [64, 61, 5])
def test_only_whole_groups_are_hidden_and_the_rest_is_untouched(frames: int):
    target = spectrogram(6, 2, 9, frames)
    before = target.clone()
    out = corrupt(target, MaskConfig(group=8, share=0.4), 0, seeded())
    assert torch.equal(target, before)
    assert out.chosen.shape == out.kinds.shape == (6, 1, 1, frames)
    assert torch.equal(out.masked, out.kinds == MASK)
    assert torch.equal(out.chosen, out.kinds >= 0)
    for start in range(0, frames, 8):
        part = out.kinds[..., start : start + 8]
        assert (part == part[..., :1]).all()
    kind = out.kinds.expand_as(target)
    untouched = (kind == -1) | (kind == KEPT)
    assert torch.equal(out.spectrogram[untouched], target[untouched])
    assert (out.spectrogram[kind == MASK] == 1.0).all()
    raised, original = out.spectrogram[kind == NOISE], target[kind == NOISE]
    assert (raised >= original).all()


def test_the_kinds_have_their_shares():
    out = corrupt(torch.zeros(500, 1, 1, 1000), MaskConfig(group=1, share=0.2), 0, seeded())
    kinds = out.kinds[out.chosen]
    assert len(kinds) == 100_000
    shares = [(kinds == kind).float().mean().item() for kind in (MASK, NOISE, KEPT)]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.01)


def test_full_noise_is_uniform_for_each_cell():
    config = MaskConfig(mask=0.0, noise=1.0, noise_level="full")
    out = corrupt(torch.zeros(4, 2, 50, 64), config, 0, seeded())
    noise = out.spectrogram[out.chosen.expand_as(out.spectrogram)]
    quantiles = noise.quantile(torch.tensor([0.1, 0.5, 0.9])).tolist()
    assert quantiles == pytest.approx([0.1, 0.5, 0.9], abs=0.02)


def test_local_noise_is_as_loud_as_its_bin():
    """Uniform from 0 to twice the bin's mean in the crop, never below the original nor above 1."""
    level = torch.tensor([0.0, 0.01, 0.1, 0.4, 0.9])[:, None]
    target = level.expand(2, 2, 5, 4000).clone()
    target[..., ::2] = 0  # the bins' means are half of these
    out = corrupt(target, MaskConfig(group=4, mask=0.0, noise=1.0), 0, seeded())
    chosen = (out.kinds == NOISE).expand_as(target)
    assert (out.spectrogram[chosen] >= target[chosen]).all()
    silent = chosen & (target == 0)
    for bin_, loudest in enumerate(level[:, 0].tolist()):
        noise = out.spectrogram[:, :, bin_][silent[:, :, bin_]]
        assert noise.max() <= loudest
        assert noise.mean().item() == pytest.approx(loudest / 2, rel=0.05)
    loud = corrupt(torch.full((1, 1, 5, 64), 0.9), MaskConfig(mask=0.0, noise=1.0), 0, seeded())
    assert loud.spectrogram.max() == 1


@pytest.mark.parametrize("power", [1.0, 0.5, 0.3])
def test_a_factor_of_at_most_one_can_restore_every_chosen_cell(power: float):
    config = STFTConfig(256, 128, power)
    waves = torch.randn(8, 2, 8000, generator=seeded()) * torch.logspace(-6, 1, 8)[:, None, None]
    waves[0] = 0
    assert_restorable(waves, config)


def test_the_same_on_real_music(shared_data: Path):
    from separator import audio

    song = sorted((shared_data / "songs").glob("*.mp3"))[0]
    wave = audio.read(song, 44100 * 20, 44100 * 6)
    assert_restorable(wave.reshape(2, 3, -1).transpose(0, 1), STFTConfig())


def assert_restorable(waves: Tensor, config: STFTConfig) -> None:
    target, _ = normalise(stft(waves, config).abs(), config)
    out = corrupt(target, MaskConfig(group=4, share=0.5, clean_share=0.1), 0, seeded())
    chosen = out.chosen.expand_as(target)
    assert (out.spectrogram >= target)[chosen].all()
    assert torch.equal(out.spectrogram[~chosen], target[~chosen])
    factor = target / out.spectrogram.clamp(min=1e-12)
    torch.testing.assert_close(factor.clamp(0, 1) * out.spectrogram, target)


def test_clean_crops_are_whole_and_all_of_them_counts():
    target = spectrogram(400, 1, 4, 32)
    out = corrupt(target, MaskConfig(group=4, share=0.25, clean_share=0.3), 0, seeded())
    clean = (out.kinds == CLEAN).all(-1).flatten()
    assert not (out.kinds == CLEAN)[~clean].any()
    assert (out.kinds == KEPT)[~clean].float().sum() > 0  # and these are not counted as kept
    assert clean.float().mean().item() == pytest.approx(0.3, abs=0.06)
    assert torch.equal(out.spectrogram[clean], target[clean])
    assert out.chosen[clean].all()
    assert (out.chosen[~clean].sum(-1) == 8).all()
    everything = corrupt(target, MaskConfig(clean_share=1.0), 0, seeded())
    assert torch.equal(everything.spectrogram, target)
    assert (everything.kinds == CLEAN).all()


def test_the_same_generator_gives_the_same():
    target = spectrogram(3, 2, 9, 64)
    first, same, other = (corrupt(target, MaskConfig(), 0, seeded(s)) for s in (1, 1, 2))
    assert torch.equal(first.spectrogram, same.spectrogram)
    assert torch.equal(first.kinds, same.kinds)
    assert not torch.equal(first.kinds, other.kinds)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_patches_in_bands_are_restorable_and_the_rest_untouched(strategy: str):
    config = MaskConfig(
        strategy=strategy, band=16, group=4, share=0.5, span=5, band_span=4, mask=0.5, noise=0.2,
        mix=0.2, clean_share=0.2,
    )  # fmt: skip
    waves = torch.randn(6, 2, 8000, generator=seeded())
    complex_ = stft(waves, STFTConfig(256, 128))
    target, scale = normalise(complex_.abs(), STFTConfig(256, 128))
    mixed = compress(mix_with_previous(complex_, seeded()).abs(), scale, STFTConfig(256, 128))
    out = corrupt(target, config, 3, seeded(), {"mix": mixed})
    kind = out.kinds.expand_as(target)
    chosen = out.chosen.expand_as(target)
    assert (out.spectrogram >= target)[chosen].all()
    assert out.spectrogram.max() <= 1
    untouched = (kind == -1) | (kind == KEPT) | (kind == CLEAN)
    assert torch.equal(out.spectrogram[untouched], target[untouched])
    assert (out.spectrogram[kind == MASK] == 1).all()
    other = torch.maximum(mixed, target)
    assert torch.equal(out.spectrogram[kind == OTHER], other[kind == OTHER])


def test_another_song_lies_within_its_levels():
    waves = (
        torch.randn(400, 1, 4000, generator=seeded()) * torch.logspace(-3, 0, 400)[:, None, None]
    )
    complex_ = stft(waves, STFTConfig(256, 128))
    added = mix_with_previous(complex_, seeded()) - complex_
    level = added.abs().square().mean((1, 2, 3)) / complex_.abs().square().mean((1, 2, 3))
    decibels = (10 * level.log10()).numpy()
    low, high = MIX_DB
    assert decibels.min() > low - 0.01
    assert decibels.max() < high + 0.01
    assert fits_uniform(np.histogram(decibels, 5, (low, high))[0])
    ratio = added / complex_.roll(1, 0)
    torch.testing.assert_close(ratio[:, 0, 3, 3].imag, torch.zeros(400), atol=1e-3, rtol=0)


def test_groups_grow_with_the_global_step():
    config = MaskConfig(group=16, share=0.25, warmup_steps=100)
    steps = (0, 1, 6, 7, 50, 93, 94, 100, 10**6)
    assert [patch_frames(step, config) for step in steps] == [1, 1, 1, 2, 8, 15, 16, 16, 16]
    assert patch_frames(0, MaskConfig(group=16)) == 16
    target = spectrogram(2, 1, 3, 64)
    for step, size in ((0, 1), (50, 8), (200, 16)):
        kinds = corrupt(target, config, step, seeded()).kinds.flatten(1).unflatten(1, (-1, size))
        assert (kinds == kinds[..., :1]).all()
        assert ((kinds[..., 0] >= 0).sum(1) == round(0.25 * 64 / size)).all()


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"share": 1.5}, "share"),
        ({"share": -0.1}, "share"),
        ({"mask": 2.0}, "mask"),
        ({"clean_share": -1.0}, "clean_share"),
        ({"mask": 0.8, "noise": 0.3}, "mask, noise, mix"),
        ({"mask": 0.8, "mix": 0.3}, "mask, noise, mix"),
        ({"band": -1}, "band"),
        ({"span": 0}, "span"),
        ({"band_span": -1}, "band_span"),
        ({"weighted_steps": -1}, "weighted_steps"),
        ({"group": 0}, "group"),
        ({"group": -1}, "group"),
        ({"group_seconds": -1.0}, "group_seconds"),
        ({"uniform_steps": 11, "weighted_steps": 10}, "uniform_steps"),
        ({"warmup_steps": -1}, "warmup_steps"),
    ],
)
def test_bad_settings_name_the_key(values: dict, key: str):
    with pytest.raises(SeparatorError, match=f"^{key}: ") as caught:
        MaskConfig(**values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bands", [1, 2])
def test_a_crop_without_a_masked_group_gets_one(bands: int):
    """Its first chosen group, or its first; other crops stay as they are."""
    grid = PatchGrid(5, 10, bands, 3)  # the last group has one frame
    kinds = torch.full((5, bands, 4), -1, dtype=torch.int8)
    kinds[0, -1, 2] = KEPT
    kinds[0, 0, 3] = NOISE
    kinds[1, 0, 3] = NOISE
    kinds[2] = CLEAN
    kinds[4, 0, 1], kinds[4, 0, 2] = NOISE, MASK
    before = Corrupted(spectrogram(5, 2, 5, 10), grid.expand(kinds), grid)
    after = with_masked_group(before)
    for crop, first in ((0, 6), (1, 9), (2, 0), (3, 0)):
        place = torch.zeros(10, dtype=torch.bool)
        place[first : first + 3] = True
        assert (after.kinds[crop, ..., place] == MASK).all()
        assert (after.spectrogram[crop, ..., place] == 1).all()
        assert torch.equal(after.kinds[crop, ..., ~place], before.kinds[crop, ..., ~place])
        rest = after.spectrogram[crop, ..., ~place], before.spectrogram[crop, ..., ~place]
        assert torch.equal(*rest)
    assert torch.equal(after.kinds[4], before.kinds[4])
    assert torch.equal(after.spectrogram[4], before.spectrogram[4])
    assert after.kinds.dtype == before.kinds.dtype

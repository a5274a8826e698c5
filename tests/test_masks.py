"""Which cells are hidden and what becomes of them."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from separator.errors import SeparatorError
from separator.pretrain.corrupt import KINDS, MaskConfig, corrupt
from separator.pretrain.masks import STRATEGIES
from separator.pretrain.masks.geometry import choose, count, expand
from separator.pretrain.masks.schedule import group_frames
from separator.stft import STFTConfig, normalise, stft

MASK, NOISE, KEPT = (KINDS.index(kind) for kind in ("mask", "noise", "kept"))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def spectrogram(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=seeded(seed)) * 0.9


@pytest.mark.parametrize("share", [0.05, 0.15, 0.2, 0.4, 0.5, 0.75, 0.95])
@pytest.mark.parametrize("size", [1, 3, 8, 16, 64])
@pytest.mark.parametrize("frames", [64, 65, 127])
def test_the_share_is_exact_in_every_crop(share: float, size: int, frames: int):
    groups = math.ceil(frames / size)
    assert count(frames, size) == groups
    chosen = STRATEGIES["frame_groups"](spectrogram(5, 2, 3, frames), size, share, seeded())
    assert chosen.shape == (5, groups)
    assert chosen.dtype == torch.bool
    assert chosen.sum(1).tolist() == [max(1, min(round(share * groups), groups - 1))] * 5


def test_every_group_is_as_likely():
    chosen = choose(20_000, 10, 3, seeded())
    assert chosen.sum(1).eq(3).all()
    assert (chosen.float().mean(0) - 0.3).abs().max() < 0.015
    both = (chosen[:, 0] & chosen[:, 9]).float().mean().item()
    assert both == pytest.approx(0.3 * 2 / 9, abs=0.01)


@pytest.mark.parametrize(("frames", "size"), [(12, 4), (13, 4), (3, 4), (7, 1)])
def test_cells_cover_the_frames_as_a_loop_says(frames: int, size: int):
    cells = torch.arange(2 * count(frames, size)).reshape(2, -1)
    out = expand(cells, size, frames)
    assert out.shape == (2, 1, 1, frames)
    for item in range(2):
        assert [out[item, 0, 0, n] for n in range(frames)] == [
            cells[item, n // size] for n in range(frames)
        ]


@pytest.mark.parametrize("frames", [64, 61, 5])
def test_only_whole_groups_are_hidden_and_the_rest_is_untouched(frames: int):
    target = spectrogram(6, 2, 9, frames)
    before = target.clone()
    out = corrupt(target, MaskConfig(group=8, share=0.4), 0, seeded())
    assert torch.equal(target, before)
    assert out.chosen.shape == out.kinds.shape == (6, 1, 1, frames)
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


def test_noise_is_uniform_for_each_cell():
    out = corrupt(torch.zeros(4, 2, 50, 64), MaskConfig(fill=0.0, noise=1.0), 0, seeded())
    noise = out.spectrogram[out.chosen.expand_as(out.spectrogram)]
    quantiles = noise.quantile(torch.tensor([0.1, 0.5, 0.9])).tolist()
    assert quantiles == pytest.approx([0.1, 0.5, 0.9], abs=0.02)


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
    clean = (out.kinds == KEPT).all(-1).flatten()
    assert clean.float().mean().item() == pytest.approx(0.3, abs=0.06)
    assert torch.equal(out.spectrogram[clean], target[clean])
    assert out.chosen[clean].all()
    assert (out.chosen[~clean].sum(-1) == 8).all()
    everything = corrupt(target, MaskConfig(clean_share=1.0), 0, seeded())
    assert torch.equal(everything.spectrogram, target)


def test_the_same_generator_gives_the_same():
    target = spectrogram(3, 2, 9, 64)
    first, same, other = (corrupt(target, MaskConfig(), 0, seeded(s)) for s in (1, 1, 2))
    assert torch.equal(first.spectrogram, same.spectrogram)
    assert torch.equal(first.kinds, same.kinds)
    assert not torch.equal(first.kinds, other.kinds)


def test_groups_grow_with_the_global_step():
    assert [group_frames(step, 16, 100) for step in (0, 1, 6, 7, 50, 93, 94, 100, 10**6)] == [
        *(1, 1, 1, 2, 8, 15, 16, 16, 16)
    ]
    assert group_frames(0, 16, 0) == 16
    target = spectrogram(2, 1, 3, 64)
    config = MaskConfig(group=16, share=0.25, warmup_steps=100)
    for step, size in ((0, 1), (50, 8), (200, 16)):
        kinds = corrupt(target, config, step, seeded()).kinds.flatten(1).unflatten(1, (-1, size))
        assert (kinds == kinds[..., :1]).all()
        assert ((kinds[..., 0] >= 0).sum(1) == round(0.25 * 64 / size)).all()


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"strategy": "random"}, "mask.strategy"),
        ({"share": 1.5}, "mask.share"),
        ({"share": -0.1}, "mask.share"),
        ({"fill": 2.0}, "mask.fill"),
        ({"clean_share": -1.0}, "mask.clean_share"),
        ({"fill": 0.8, "noise": 0.3}, "mask.fill, mask.noise"),
        ({"group": 0}, "mask.group"),
        ({"warmup_steps": -1}, "mask.warmup_steps"),
    ],
)
def test_bad_settings_name_the_key(values: dict, key: str):
    with pytest.raises(SeparatorError, match=f"^{key}: ") as caught:
        MaskConfig(**values)
    assert "\n" not in str(caught.value)

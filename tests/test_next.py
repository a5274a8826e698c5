"""Next-spectrogram prediction: crops of two halves, the separator between them, the head."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from separator.dsp.config import STFTConfig
from separator.dsp.stft import stft
from separator.errors import SeparatorError
from separator.pretrain.crops import CropBatch
from separator.pretrain.masking.config import MaskConfig
from separator.pretrain.masking.corruption import Corrupted, corrupt
from separator.pretrain.masking.grid import PatchGrid
from separator.pretrain.objectives.auxiliary.next_spectrogram import NextConfig
from separator.pretrain.objectives.next_head import NextHead
from separator.pretrain.objectives.segment_pairs import allowed_groups, inside, make_pairs, with_sep
from tests.toys import seeded

LENGTH = 2048 * 202  # samples of an item of the songs: 200 frames that see no padding
SCALE = 10_000  # items or frames per radian, see `counting`
PLAIN = NextConfig(token=2, same=0.75, gain_db=0.0, tilt_db=0.0, lowpass=0.0)


def counting(batch: int, bins: int, total: int) -> Tensor:
    """Items whose phases tell item (lowest bin) and frame (the others): no filter changes those."""
    angles = torch.empty(batch, 1, bins, total)
    angles[:] = torch.arange(total) / SCALE
    angles[:, :, 0] = torch.arange(batch)[:, None, None] / SCALE
    return torch.polar(torch.ones_like(angles), angles)


def places(batch: int, total: int, frames: int, config: NextConfig, seed: int = 0):
    """Items and frames of both halves, (b n//2) and (b n - n//2), and the labels."""
    out = make_pairs(counting(batch, 5, total), frames, seeded(seed), config)
    assert out.spectrogram.shape == (batch, 1, 5, frames)
    angles = (out.spectrogram[:, 0].angle() * SCALE).round().long()
    item, frame = angles[:, 0], angles[:, 1]
    assert torch.equal(frame, angles[:, 3])
    middle = frames // 2
    return item[:, :middle], item[:, middle:], frame[:, :middle], frame[:, middle:], out.continues


def chi_squared(counts: np.ndarray, expected: np.ndarray) -> float:
    from scipy.stats import chisquare

    return chisquare(counts, expected).pvalue


@pytest.mark.parametrize(("total", "frames"), [(40, 20), (42, 21), (61, 20)])
def test_continuations_are_contiguous_and_the_rest_is_from_elsewhere(total: int, frames: int):
    items_a, items_b, a, b, continues = places(3000, total, frames, PLAIN)
    own = torch.arange(3000)[:, None]
    assert (items_a == own).all()
    assert (torch.diff(a) == 1).all()
    assert (torch.diff(b) == 1).all()
    whole = torch.cat([a, b], dim=1)
    assert (torch.diff(whole[continues]) == 1).all()
    assert (items_b == own)[continues].all()
    foreign = (items_b != own).any(1)
    assert (items_b[:, :1] == items_b).all()
    assert foreign[~continues].float().mean().item() == pytest.approx(0.25, abs=0.04)
    same = ~continues & ~foreign
    for first, second in zip(a[same].tolist(), b[same].tolist(), strict=True):
        assert abs(second[0] - (first[-1] + 1)) >= frames - frames // 2
        assert not set(first) & set(second)


def test_labels_are_balanced():
    labels = [make_pairs(counting(500, 2, 8), 4, seeded(k), PLAIN).continues for k in range(40)]
    continues = torch.cat(labels)
    assert continues.float().mean().item() == pytest.approx(0.5, abs=0.01)


def test_starts_are_uniform_and_in_range():
    """Every legal place as likely as the next one, in both classes; so are the negatives' own."""
    total, frames = 50, 20
    _, items_b, a, b, continues = places(5000, total, frames, PLAIN)
    for of in (continues, ~continues):
        counts = np.bincount(a[of, 0], minlength=total - frames + 1)
        assert len(counts) == total - frames + 1
        assert chi_squared(counts, np.full(len(counts), counts.mean())) > 1e-3
    foreign = (items_b != torch.arange(5000)[:, None])[:, 0]
    counts = np.bincount(b[foreign, 0], minlength=total - 10 + 1)
    assert chi_squared(counts, np.full(len(counts), counts.mean())) > 1e-3
    same = ~continues & ~foreign
    expected = np.zeros(total - 10 + 1)
    for start, number in enumerate(np.bincount(a[same, 0], minlength=total - frames + 1)):
        legal = [p for p in range(total - 10 + 1) if p + 10 <= start or p >= start + frames]
        expected[legal] += number / len(legal)
    counts = np.bincount(b[same, 0], minlength=len(expected))
    assert (counts[expected == 0] == 0).all()
    assert chi_squared(counts[expected > 0], expected[expected > 0]) > 1e-3


def items_of(out: CropBatch) -> tuple[Tensor, Tensor]:
    """Items of the first and of the second halves of `counting`'s crops."""
    item = (out.spectrogram[:, 0, 0].angle() * SCALE).round().long()
    return item[:, 0], item[:, -1]


def test_negatives_are_of_other_songs_by_default():
    songs = torch.tensor([3, 3, 7, 3, 9, 7])
    seen = set()
    for seed in range(200):
        out = make_pairs(counting(6, 4, 40), 20, seeded(seed), NextConfig(token=2), songs)
        first, second = items_of(out)
        assert first.tolist() == list(range(6))
        assert torch.equal(first == second, out.continues)
        assert torch.equal(songs[first] == songs[second], out.continues)
        seen |= set(zip(first.tolist(), second.tolist(), strict=True))
    assert len(seen) == 6 + 3 * 3 + 2 * 4 + 5  # every item of every other song


def test_one_crop_goes_on_with_the_song_read_beside_it():
    own = torch.tensor([0])
    config, labels = NextConfig(token=2), []
    for seed in range(100):
        source = counting(2, 4, 40)
        out = make_pairs(source, 20, seeded(seed), config, torch.tensor([4, 8]), own)
        first, second = items_of(out)
        assert first.tolist() == [0]
        assert second.tolist() == [0 if out.continues else 1]
        labels.append(out.continues.item())
        alone = make_pairs(source, 20, seeded(seed), config, torch.tensor([4, 4]), own)
        assert items_of(alone)[1].tolist() == [0]  # no other song: another place of the same
        assert alone.continues == out.continues
    assert 30 < sum(labels) < 70


def test_the_same_generator_gives_the_same_and_inputs_stay():
    source = torch.randn(4, 2, 33, 48, dtype=torch.complex64, generator=seeded())
    before = source.clone()
    outs = [make_pairs(source, 24, seeded(seed), NextConfig()) for seed in (1, 1, 2)]
    assert torch.equal(outs[0].spectrogram, outs[1].spectrogram)
    assert torch.equal(outs[0].continues, outs[1].continues)
    assert not torch.equal(outs[0].spectrogram, outs[2].spectrogram)
    assert torch.equal(source, before)


def test_levels_tilts_and_lowpasses_are_the_same_in_both_classes():
    """On items that are flat but of very different loudness, each is read off and compared."""
    from numpy.polynomial import legendre
    from scipy.stats import ks_2samp

    level = torch.logspace(-4, 3, 2000)[:, None, None, None]
    source = (level * torch.ones(2000, 1, 129, 16)).to(torch.complex64)
    config = NextConfig(token=2, gain_db=6.0, tilt_db=1.0, lowpass=0.5)
    out = make_pairs(source, 8, seeded(), config)
    power = out.spectrogram.abs()[:, 0].square()[..., [0, -1]].unbind(-1)  # (b f) each
    gains = [10 * half.mean(1).log10() for half in power]
    halves = [10 * half.clamp(min=1e-20).log10() for half in power]
    octaves = torch.arange(129).clamp(min=1).log2() / 3.5 - 1  # from -1 to 1 over 7 octaves
    low = slice(1, 17)  # below the lowest cut-off
    fits = [legendre.legfit(octaves[low], half[:, low].T, 2) for half in halves]
    tilts, bends = ([torch.from_numpy(fit[k] / 3.5) for fit in fits] for k in (1, 2))
    curves = [
        half - torch.from_numpy(legendre.legval(octaves.numpy(), fit))
        for half, fit in zip(halves, fits, strict=True)
    ]
    heard = (halves[0] > -150) & (halves[1] > -150)
    torch.testing.assert_close(curves[0][heard], curves[1][heard], atol=0.01, rtol=0)  # in common
    falls = curves[0][:, -1].clamp(min=-60)
    assert (falls < -20).float().mean().item() == pytest.approx(0.5, abs=0.04)
    for values, most in ((gains, 6.0), (tilts, 1.0), (bends, 1.0)):
        for value in values:
            assert value.abs().max() < most + 1e-3
            assert value.std().item() == pytest.approx(most / math.sqrt(3), rel=0.05)
        assert abs(np.corrcoef(values[0], values[1])[0, 1]) < 0.08
        assert ks_2samp(values[0], values[1]).pvalue > 1e-3
    steps = [second - first for first, second in (gains, tilts, bends)]
    for value in (*gains, *tilts, *bends, *steps, falls):
        assert ks_2samp(value[out.continues], value[~out.continues]).pvalue > 1e-3


def test_widths_are_the_same_in_both_classes():
    """Items of one width: what becomes of the ratio of side to middle is the gain of the side."""
    from scipy.stats import ks_2samp

    source = torch.ones(2000, 2, 5, 16, dtype=torch.complex64)
    source[:, 1] = 0.5j
    out = make_pairs(source, 8, seeded(), NextConfig(token=2))
    middle, side = out.spectrogram.sum(1), out.spectrogram[:, 0] - out.spectrogram[:, 1]
    decibels = 20 * (side.abs() / middle.abs())[:, 1].log10()  # before: as wide as it is tall
    assert decibels.abs().max() < 6 + 1e-3
    first, second = decibels[:, 0], decibels[:, -1]
    assert ks_2samp(first, np.random.default_rng(0).uniform(-6, 6, 2000)).pvalue > 1e-3
    for value in (first, second, second - first):
        assert ks_2samp(value[out.continues], value[~out.continues]).pvalue > 1e-3


def test_silence_stays_finite():
    out = make_pairs(torch.zeros(3, 1, 9, 40, dtype=torch.complex64), 20, seeded(), NextConfig())
    assert (out.spectrogram == 0).all()


@pytest.mark.parametrize(("n_fft", "hop"), [(64, 32), (64, 16), (64, 24)])
@pytest.mark.parametrize("samples", [640, 641, 671])
def test_frames_that_see_padding_are_left_out(n_fft: int, hop: int, samples: int):
    """The frames kept are the same when there is something beyond the ends."""
    wave = torch.randn(1, 1, samples + 2 * 10 * hop, generator=seeded())
    config = STFTConfig(n_fft, hop)
    alone = inside(stft(wave[..., 10 * hop : 10 * hop + samples], config), config)
    edge = math.ceil(n_fft / (2 * hop))
    around = stft(wave, config)[..., 10 + edge :][..., : alone.shape[-1]]
    torch.testing.assert_close(alone, around, atol=1e-5, rtol=1e-4)
    whole_windows = (samples - n_fft) // hop + 1
    assert whole_windows - 2 <= alone.shape[-1] <= whole_windows


def test_items_must_be_twice_a_crop():
    source = torch.zeros(2, 1, 9, 39, dtype=torch.complex64)
    with pytest.raises(SeparatorError, match=r"^next\.token: "):
        make_pairs(source, 20, seeded(), NextConfig())
    with pytest.raises(SeparatorError, match=r"^next\.token: "):
        make_pairs(source, 17, seeded(), NextConfig())


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"weight": -1.0}, "weight"),
        ({"weight": ((5, 1.0), (5, 0.0))}, "weight"),
        ({"token": 0}, "token"),
        ({"token": 7}, "token"),
        ({"token": 0, "token_seconds": 61.0}, "token_seconds"),
        ({"same": 1.1}, "same"),
        ({"lowpass": -0.1}, "lowpass"),
        ({"gain_db": -6.0}, "gain_db"),
        ({"tilt_db": -1.0}, "tilt_db"),
    ],
)
def test_bad_settings_name_the_key(values: dict, key: str):
    with pytest.raises(SeparatorError, match=f"^{key}: ") as caught:
        NextConfig(**values)
    assert "\n" not in str(caught.value)


def separated(frames: int, group: int, token: int, band: int = 0, **values):
    target = torch.rand(5, 2, 17, frames, generator=seeded(1)) * 0.9
    mask = MaskConfig(group=group, share=0.6, noise=0.1, mask=0.8, band=band, **values)
    before = corrupt(target, mask, 0, seeded(2))
    copies = [x.clone() for x in (target, before.spectrogram, before.kinds)]
    new, after = with_sep(target, before, NextConfig(token=token))
    for x, copy in zip((target, before.spectrogram, before.kinds), copies, strict=True):
        assert torch.equal(x, copy)
    return target, before, new, after


@pytest.mark.parametrize(("frames", "group", "token"), [(70, 8, 16), (61, 16, 6), (33, 1, 2)])
@pytest.mark.parametrize("band", [0, 4])
def test_the_separator_and_the_cells_it_touches(frames: int, group: int, token: int, band: int):
    """Cell by cell and frame by frame, as a loop says."""
    target, before, new, after = separated(frames, group, token, band)
    middle = frames // 2
    blanked = list(range(middle - token // 2, middle + token // 2))
    assert (after.kinds == -2).any(2).sum(-1).flatten().tolist() == [token] * 5
    assert after.kinds.shape == before.kinds.shape
    freed = 0
    for n in range(frames):
        expected, kind = target[..., n], before.kinds[..., n]
        if n in blanked:
            pattern = torch.tensor([1.0, 0.0] * 9)[:17]
            assert (new[..., n] == pattern).all()
            assert torch.equal(after.spectrogram[..., n], new[..., n])
            assert (after.kinds[..., n] == -2).all()
            continue
        assert torch.equal(new[..., n], expected)
        cell = range(n // group * group, (n // group + 1) * group)
        if set(cell) & set(blanked):
            assert torch.equal(after.spectrogram[..., n], expected)
            assert (after.kinds[..., n] == -1).all()
            freed += int((kind >= 0).sum())
        else:
            assert torch.equal(after.spectrogram[..., n], before.spectrogram[..., n])
            assert torch.equal(after.kinds[..., n], kind)
    assert freed > 0 or group == 1
    assert not (after.chosen & (after.kinds == -2)).any()


@pytest.mark.parametrize(("frames", "group", "token"), [(70, 8, 16), (61, 16, 6), (66, 8, 8)])
def test_free_groups_are_those_that_the_separator_does_not_touch(
    frames: int, group: int, token: int
):
    middle = frames // 2
    blanked = set(range(middle - token // 2, middle + token // 2))
    free = allowed_groups(PatchGrid(17, frames, 1, group), NextConfig(token=token)).tolist()
    assert free == [not blanked & set(range(g * group, (g + 1) * group)) for g in range(len(free))]
    assert len(free) == -(-frames // group)


def test_clean_crops_count_but_for_the_separator():
    _, _, _, after = separated(64, 8, 16, clean_share=1.0)
    assert (after.chosen.sum(-1) == 64 - 16).all()


def test_nothing_is_given_up_where_nothing_was_chosen():
    target = torch.rand(1, 1, 9, 32)
    none = Corrupted(target + 1, torch.full((1, 1, 1, 32), -1), PatchGrid(9, 32, 1, 8))
    _, after = with_sep(target, none, NextConfig(token=4))
    kept = after.kinds[0, 0, 0] == -1
    assert kept.sum() == 28
    assert torch.equal(after.spectrogram[..., kept], target[..., kept] + 1)


def shown_to_head(batch: int, frames: int, bins: int = 65) -> tuple[Tensor, Tensor]:
    """Magnitudes and the places, none, that are hidden in them."""
    shown = torch.rand(batch, 2, bins, frames, generator=seeded(7))
    return shown, torch.zeros(batch, 1, 1, frames, dtype=torch.bool)


def test_the_head_looks_at_both_halves_and_not_at_the_separator():
    torch.manual_seed(0)
    head = NextHead(12, 64, NextConfig(token=6))
    deep = torch.randn(4, 31, 12, generator=seeded(), requires_grad=True)
    shown, hidden = shown_to_head(4, 31)
    answer, probe = head(deep, shown.requires_grad_(), hidden)
    assert answer.shape == probe.shape == (4,)
    answer.sum().backward()
    assert shown.grad is None  # the bare input has no part in the network's answer
    probe.sum().backward()
    for reached in (deep.grad.abs().sum((0, 2)) > 0, shown.grad.abs().sum((0, 1, 2)) > 0):
        assert reached.tolist() == [not 12 <= n < 18 for n in range(31)]


def test_with_bands_both_answer_together():
    torch.manual_seed(0)
    one, two = (NextHead(12, 64, NextConfig(token=6, bands=bands)) for bands in (False, True))
    two.load_state_dict(one.state_dict())
    deep, seen = torch.randn(4, 31, 12, generator=seeded()), shown_to_head(4, 31)
    (answer, probe), (both, alone) = one(deep, *seen), two(deep, *seen)
    assert torch.equal(probe, alone)
    torch.testing.assert_close(both, answer + probe)


@pytest.mark.parametrize("rows", [1, 65])
def test_the_head_hears_nothing_of_what_is_hidden(rows: int):
    torch.manual_seed(0)
    head, deep = NextHead(12, 64, NextConfig(token=2)), torch.randn(2, 20, 12, generator=seeded())
    shown, _ = shown_to_head(2, 20)
    hidden = torch.rand(2, 1, rows, 20, generator=seeded(3)) < 0.4
    filled = torch.where(hidden, 1.0, shown)
    torch.testing.assert_close(head(deep, filled, hidden)[1], head(deep, shown, hidden)[1])
    assert not torch.allclose(
        head(deep, filled, hidden)[1], head(deep, filled, torch.zeros_like(hidden))[1]
    )
    assert head(deep, torch.ones_like(shown), torch.ones_like(hidden))[1].isfinite().all()


def test_what_is_hidden_on_one_side_is_no_difference():
    """A song that never changes: hiding what is nearest the joint tells nothing, on either side."""
    torch.manual_seed(1)
    head, deep = NextHead(12, 64, NextConfig(token=2)), torch.ones(1, 40, 12)
    shown = torch.rand(1, 2, 65, 1, generator=seeded(7)).expand(-1, -1, -1, 40)
    places = [], range(15, 19), range(21, 25), [*range(15, 19), *range(21, 25)]
    logits = []
    for place in places:
        hidden = torch.zeros(1, 1, 1, 40, dtype=torch.bool)
        hidden[..., list(place)] = True
        logits.append(head(deep, torch.where(hidden, 1.0, shown), hidden)[1].item())
    assert logits[1:] == pytest.approx(logits[3:] * 3, abs=1e-5)
    assert logits[0] != pytest.approx(logits[1], abs=2e-4)


def test_frames_are_equally_loud_to_the_head_whatever_is_hidden_in_them():
    torch.manual_seed(0)
    head, deep = NextHead(12, 64, NextConfig(token=2)), torch.ones(2, 40, 12)
    hidden = torch.rand(2, 1, 65, 40, generator=seeded(3)) < 0.6
    loudness = torch.rand(2, 1, 1, 40, generator=seeded(4)) + 0.1
    flat = torch.ones(2, 2, 65, 40)
    torch.testing.assert_close(
        head(deep, loudness * flat, hidden)[1], head(deep, flat, hidden)[1], rtol=1e-3, atol=1e-4
    )


def test_the_loss_is_binary_cross_entropy():
    torch.manual_seed(0)
    head = NextHead(12, 64, NextConfig(token=2))
    seen = torch.randn(6, 20, 12, generator=seeded()), *shown_to_head(6, 20)
    continues = torch.tensor([True, False, True, True, False, False])
    loss, scalars = head.loss(*seen, continues)
    loss.backward()
    assert all(weight.grad.abs().max() > 0 for weight in head.parameters())  # the probe's too
    answer, probe = (logits.detach().double().numpy() for logits in head(*seen))
    p, labels = 1 / (1 + np.exp(-answer)), continues.numpy()
    bare = scalars["next/accuracy_bands"].item()
    assert bare == pytest.approx(((probe > 0) == labels).mean())
    assert loss.item() == pytest.approx(-np.log(np.where(labels, p, 1 - p)).mean(), rel=1e-5)
    assert scalars["next/accuracy"].item() == pytest.approx(((p > 0.5) == labels).mean())
    assert scalars["next/positive"].item() == pytest.approx((p > 0.5).mean())
    assert not any(value.requires_grad for value in scalars.values())


def test_the_head_compares_the_frames_nearest_the_joint():
    torch.manual_seed(0)
    head = NextHead(16, 64, NextConfig(token=4)).eval()
    deep = torch.randn(16, generator=seeded()) + 0.1 * torch.randn(1, 44, 16, generator=seeded(2))
    change = torch.randn(16, generator=seeded(1))
    moved = deep.clone()
    moved[:, 24:26] += change  # the first two frames of the second half: a tenth of it
    far = deep.clone()
    far[:, 42:44] += change
    shown, hidden = shown_to_head(1, 44)
    before, near, distant = (head(x, shown, hidden)[0].item() for x in (deep, moved, far))
    assert abs(near - before) > 2 * abs(distant - before)


@pytest.mark.parametrize("level", [0.1, 10.0])
def test_the_head_does_not_see_how_loud_a_half_is(level: float):
    torch.manual_seed(0)
    head = NextHead(16, 64, NextConfig(token=2))
    deep = 1e3 * torch.randn(4, 40, 16, generator=seeded())
    louder = torch.cat([deep[:, :20], level * deep[:, 20:]], dim=1)
    shown, hidden = shown_to_head(4, 40)
    shouted = torch.cat([shown[..., :20], level * shown[..., 20:]], dim=-1)
    torch.testing.assert_close(
        head(louder, shouted, hidden), head(deep, shown, hidden), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("where", ["deep", "shown"])
def test_the_head_learns_what_a_difference_of_halves_says(where: str):
    torch.manual_seed(0)
    head = NextHead(8, 4, NextConfig(token=2, bands=where == "shown"))
    optimizer = torch.optim.Adam(head.parameters(), 5e-3)
    shown, hidden = torch.ones(32, 2, 5, 20), torch.zeros(32, 1, 1, 20, dtype=torch.bool)
    accuracy = 0.0
    for step in range(100):
        noise = torch.randn(32, 20, 8, generator=seeded(step))
        first = torch.randn(32, 1, 8, generator=seeded(1000 + step))
        continues = torch.rand(32, generator=seeded(2000 + step)) < 0.5
        second = torch.where(continues[:, None, None], first, first.roll(1, 0))
        deep = noise + torch.cat([first.expand(-1, 10, -1), second.expand(-1, 10, -1)], dim=1)
        if where == "shown":
            shown[:, :, :4] = (deep - 0.7 * noise).mT.unflatten(1, (2, 4)).exp()
            deep = torch.ones_like(deep)
        loss, scalars = head.loss(deep, shown, hidden, continues)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        accuracy += scalars["next/accuracy"].item() / 50 if step >= 50 else 0.0
    assert accuracy > 0.85


def half_features(half: Tensor) -> Tensor:
    """Level, balance, bandwidth and width of half crops (b 2 f n): what needs no listening."""
    power = half.abs().square().mean(dim=(1, 3)).double() + 1e-12
    bins = torch.arange(1, power.shape[1] + 1, dtype=torch.float64)
    share = power.cumsum(1) / power.sum(1, keepdim=True)
    rolloffs = [(share < part).sum(1).double() + 1 for part in (0.85, 0.95)]
    heard = power > 1e-8 * power.amax(1, keepdim=True)
    cutoff = (heard * bins).amax(1)
    middle, side = half[:, 0] + half[:, 1], half[:, 0] - half[:, 1]
    width = (side.abs().square().sum((1, 2)) + 1e-9) / (middle.abs().square().sum((1, 2)) + 1e-9)
    centroid = (power * bins).sum(1) / power.sum(1)
    parts = [power.mean(1), centroid, *rolloffs, cutoff, width.double()]
    return torch.stack(parts, dim=1).log()


def probe_features(crops: Tensor) -> np.ndarray:
    """(b 2 f n) to what a linear probe is given: each half's, differences, their sizes."""
    middle = crops.shape[-1] // 2
    a, b = half_features(crops[..., :middle]), half_features(crops[..., middle:])
    return torch.cat([a, b, b - a, (b - a).abs()], dim=1).numpy()


def probe_accuracy(features: list[np.ndarray], labels: list[np.ndarray]) -> float:
    """Accuracy of a logistic regression on songs that it was not fitted to, over ways to halve."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    songs, right = range(len(features)), []
    for fit in itertools.islice(itertools.combinations(songs, len(songs) // 2), 6):
        held_out = [song for song in songs if song not in fit]
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
        probe.fit(*(np.concatenate([part[k] for k in fit]) for part in (features, labels)))
        right.append(
            probe.score(
                *(np.concatenate([part[k] for k in held_out]) for part in (features, labels))
            )
        )
    return float(np.mean(right))


@pytest.mark.slow
@pytest.mark.parametrize(("same", "most"), [(0.75, 0.6), (0.0, 0.7)])
def test_level_balance_bandwidth_and_width_do_not_give_it_away(
    shared_data: Path, same: float, most: float
):
    """On real songs, of which the probe was fitted to two others; other songs give away more."""
    from separator import audio

    config, songs = STFTConfig(4096, 2048), sorted((shared_data / "songs").glob("*.mp3"))
    features, labels = [[] for _ in songs], [[] for _ in songs]
    waves = [audio.read(path) for path in songs]
    for draw in range(60):
        starts = torch.rand(len(songs), generator=seeded(1000 + draw)).tolist()
        items = [
            wave[:, (begin := int(start * (wave.shape[1] - LENGTH))) : begin + LENGTH]
            for wave, start in zip(waves, starts, strict=True)
        ]
        spectrogram = inside(stft(torch.stack(items), config), config)
        crops = make_pairs(spectrogram, 100, seeded(draw), NextConfig(same=same))
        for song, row in enumerate(probe_features(crops.spectrogram)):
            features[song].append(row)
            labels[song].append(crops.continues[song].item())
    accuracy = probe_accuracy([np.stack(f) for f in features], [np.array(x) for x in labels])
    assert accuracy <= most

"""Augmentation: identity is exact, each change is what it says, and as frequent as configured."""

import numpy as np
import pytest
import torch

from separator.data.augment import Augmentation, apply, draw, identity
from separator.data.config import AugmentConfig
from separator.errors import SeparatorError
from tests.toys import seeded


@pytest.fixture
def stems() -> torch.Tensor:
    return torch.randn(3, 4, 2, 50, generator=seeded())


def test_identity_is_bit_identical_and_a_copy(stems):
    out = apply(stems, identity(3, 4))
    assert torch.equal(out, stems)
    assert out.data_ptr() != stems.data_ptr()


def test_input_is_not_modified(stems):
    before = stems.clone()
    apply(stems, draw(seeded(), 3, 4, AugmentConfig(remix=1.0)))
    assert torch.equal(stems, before)


def test_each_stem_of_the_result_is_what_the_drawn_numbers_say(stems):
    changes = draw(seeded(1), 3, 4, AugmentConfig(remix=1.0))
    out = apply(stems, changes)
    for b in range(3):
        for s in range(4):
            expected = stems[changes.song[b, s], s] * changes.gain[b, s]
            channels = [1, 0] if changes.swap[b, s] else [0, 1]
            assert torch.equal(out[b, s], expected[channels])


def test_songs_with_one_accompaniment_get_no_drums_of_others():
    config, whole = AugmentConfig(remix=1.0), [True, False, False, True, False]
    with_kinds = [draw(seeded(i), 5, 4, config, whole).song for i in range(300)]
    for song in with_kinds:
        assert song.sort(dim=0).values.T.tolist() == 4 * [list(range(5))]  # each stem once
        kinds = torch.tensor(whole)[song[:, :-1]]
        assert (kinds == torch.tensor(whole)[:, None]).all()
    seen = torch.stack(with_kinds)
    assert all(len(seen[:, 1, stem].unique()) == 3 for stem in range(3))
    assert len(seen[:, 1, 3].unique()) == 5  # vocals come from all
    same = draw(seeded(0), 5, 4, config, [False] * 5)
    assert torch.equal(same.song, draw(seeded(0), 5, 4, config).song)


def test_nothing_configured_changes_nothing(stems):
    none = AugmentConfig(gain_db=0.0, swap=0.0, polarity=0.0, remix=0.0)
    assert torch.equal(apply(stems, draw(seeded(), 3, 4, none)), stems)


def test_mono_has_no_channels_to_swap():
    wave = torch.randn(2, 1, 1, 9)
    one = torch.ones(2, 1)
    swap = Augmentation(torch.tensor([[0], [1]]), one, one.bool(), 10 * one.long())
    assert torch.equal(apply(wave, swap), wave)


def test_the_same_generator_state_gives_the_same_numbers():
    config = AugmentConfig()
    one, two = (draw(seeded(5), 8, 4, config) for _ in range(2))
    assert torch.equal(one.song, two.song)
    assert torch.equal(one.gain, two.gain)
    assert torch.equal(one.swap, two.swap)


def test_switching_one_change_off_leaves_the_others_as_they_were():
    full = draw(seeded(5), 8, 4, AugmentConfig(remix=1.0))
    less = draw(seeded(5), 8, 4, AugmentConfig(remix=1.0, gain_db=0.0))
    assert torch.equal(full.song, less.song)
    assert torch.equal(full.swap, less.swap)
    assert torch.equal(full.gain.sign(), less.gain)


def test_frequencies_are_those_configured():
    config = AugmentConfig(gain_db=9.0, swap=0.3, polarity=0.2, remix=1.0)
    changes = draw(seeded(2), 5000, 4, config)
    assert changes.swap.float().mean() == pytest.approx(0.3, abs=0.013)  # 4 standard errors
    assert (changes.gain < 0).float().mean() == pytest.approx(0.2, abs=0.012)
    decibels = (20 * changes.gain.abs().log10()).flatten().double().numpy()
    assert np.abs(decibels).max() <= 9.0001
    grid = (np.sort(decibels) + 9) / 18  # uniform: the empirical distribution is the diagonal
    steps = np.arange(1, len(grid) + 1) / len(grid)
    assert np.abs(grid - steps).max() < 1.95 / np.sqrt(len(grid))  # Kolmogorov, p about 0.001


def test_remix_keeps_every_stem_once_and_breaks_the_songs_apart():
    changes = draw(seeded(3), 64, 4, AugmentConfig(remix=1.0))
    for s in range(4):
        assert sorted(changes.song[:, s].tolist()) == list(range(64))
    together = (changes.song[:, 0] == changes.song[:, 3]).sum()
    assert together < 8  # one is expected


def test_remix_happens_with_its_probability():
    config = AugmentConfig(remix=0.25)
    plain = identity(8, 2).song
    remixed = sum(
        not torch.equal(draw(seeded(seed), 8, 2, config).song, plain) for seed in range(1000)
    )
    assert remixed == pytest.approx(250, abs=56)


@pytest.mark.parametrize("bad", [{"gain_db": -1.0}, {"swap": 1.5}, {"remix": -0.1}])
def test_values_out_of_range_are_named(bad):
    with pytest.raises(SeparatorError, match=rf"{next(iter(bad))}"):
        AugmentConfig(**bad)


def test_speed_changes_pitch_and_tempo_together():
    samples, config = 4410, AugmentConfig(0.0, 0.0, 0.0, remix=1.0, speed=0.2)
    long = config.source_samples(samples)
    assert long == 5292
    tone = torch.sin(torch.arange(long) * (2 * torch.pi * 1000 / 44100)).expand(32, 4, 2, long)
    changes = draw(seeded(2), 32, 4, config)
    out = apply(tone, changes, samples)
    assert out.shape == (32, 4, 2, samples)
    peaks = torch.fft.rfft(out, dim=-1).abs().argmax(-1)[..., 0] * 44100 / samples
    assert set(changes.speed.flatten().tolist()) == {8, 9, 10, 11, 12}
    torch.testing.assert_close(peaks, 100.0 * changes.speed, atol=10.0, rtol=0)


def test_a_song_that_is_not_remixed_stays_in_time():
    changes = draw(seeded(3), 16, 4, AugmentConfig(remix=0.0, speed=0.3))
    assert (changes.speed == changes.speed[:, :1]).all()
    assert len(changes.speed.unique()) > 1


def test_vocals_are_dropped_from_some_mixtures_and_nothing_else_changes():
    plain = draw(seeded(3), 400, 2, AugmentConfig())
    some = draw(seeded(3), 400, 2, AugmentConfig(drop_vocals=0.25))
    silent = some.gain[:, 1] == 0
    assert 0.15 < silent.float().mean() < 0.35
    assert torch.equal(some.gain[:, 0], plain.gain[:, 0])
    assert torch.equal(some.gain[~silent], plain.gain[~silent])
    assert torch.equal(some.song, plain.song) and torch.equal(some.speed, plain.speed)
    one = draw(seeded(3), 400, 1, AugmentConfig(drop_vocals=1.0))
    assert (one.gain != 0).all()  # mixtures have no vocals apart

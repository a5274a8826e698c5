"""The stereo filter against its formula, bin by bin, and on sources whose answer is known."""

import numpy as np
import pytest
import torch
from torch import Tensor

from separator.dsp.config import STFTConfig
from separator.dsp.stft import istft, stft
from separator.dsp.wiener import COVARIANCE_SHRINKAGE, wiener, wiener_stems
from separator.metrics import global_sdr

STFT = STFTConfig(n_fft=1024, hop=512)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def spectrogram(generator: torch.Generator, batch: int = 1, frames: int = 9) -> Tensor:
    return torch.randn(batch, 2, 5, frames, dtype=torch.complex64, generator=generator)


def by_the_formula(
    mixture: np.ndarray, mask: np.ndarray, target: np.ndarray | None = None, finer: int = 1
) -> np.ndarray:
    """v R (v R + v' R')⁻¹ x in a loop over bins and frames, v / (v + v') interpolated: (2 f m)."""
    target = mixture if target is None else target
    result = np.empty_like(target)
    _, bins, frames = target.shape
    for f in range(bins):
        x, m = mixture[:, f].astype(complex), mask[:, f].astype(float)
        covariances = []
        for masked in (m * x, (1 - m) * x):
            matrix = masked @ masked.conj().T
            matrix *= 2 / np.trace(matrix).real
            covariances.append(
                (matrix + COVARIANCE_SHRINKAGE * np.eye(2)) / (1 + COVARIANCE_SHRINKAGE)
            )
        power = abs(x) ** 2
        parts = (m * power).sum(0) / power.sum(0)
        parts = np.interp(np.arange(frames) / finer, np.arange(len(parts)), parts)
        for n, part in enumerate(parts):
            stem, rest = part * covariances[0], (1 - part) * covariances[1]
            result[:, f, n] = stem @ np.linalg.inv(stem + rest) @ target[:, f, n]
    return result


def test_is_the_formula(generator: torch.Generator) -> None:
    mixture = spectrogram(generator, batch=2)
    mask = torch.rand(mixture.shape, generator=generator)
    estimate = wiener(mixture, mask)
    for got, x, m in zip(estimate, mixture, mask, strict=True):
        np.testing.assert_allclose(got, by_the_formula(x.numpy(), m.numpy()), atol=1e-5)


@pytest.mark.parametrize(("finer", "frames"), [(2, 17), (3, 25), (4, 33), (1, 9)])
def test_is_the_formula_for_a_target_with_a_smaller_hop(
    generator: torch.Generator, finer: int, frames: int
) -> None:
    mixture, target = spectrogram(generator), spectrogram(generator, frames=frames)
    mask = torch.rand(mixture.shape, generator=generator)
    estimate = wiener(mixture, mask, target, finer)
    expected = by_the_formula(mixture[0].numpy(), mask[0].numpy(), target[0].numpy(), finer)
    np.testing.assert_allclose(estimate[0], expected, atol=1e-5)
    both = wiener_stems(mixture, torch.stack([mask, 1 - mask], dim=1), target, finer)
    torch.testing.assert_close(both[:, 0], estimate, atol=1e-4, rtol=0)
    torch.testing.assert_close(both.sum(1), target, atol=1e-5, rtol=0)


def test_stems_add_up_to_the_mixture(generator: torch.Generator) -> None:
    mixture = spectrogram(generator)
    mask = torch.rand(mixture.shape, generator=generator)
    both = wiener(mixture, mask) + wiener(mixture, 1 - mask)
    torch.testing.assert_close(both, mixture, atol=1e-5, rtol=0)


def test_mono_is_masked(generator: torch.Generator) -> None:
    mixture = spectrogram(generator)[:, :1].expand(-1, 2, -1, -1)
    mask = torch.rand(mixture.shape, generator=generator)[:, :1].expand(-1, 2, -1, -1)
    torch.testing.assert_close(wiener(mixture, mask), mask * mixture, atol=1e-5, rtol=0)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_all_or_nothing(generator: torch.Generator, value: float) -> None:
    mixture = spectrogram(generator)
    mask = torch.full(mixture.shape, value)
    torch.testing.assert_close(wiener(mixture, mask), value * mixture, atol=1e-5, rtol=0)


def test_silence_stays_silent() -> None:
    silence = torch.zeros(1, 2, 5, 9, dtype=torch.complex64)
    assert not wiener(silence, torch.rand(silence.shape)).any()


def test_channels_with_a_stem_each(generator: torch.Generator) -> None:
    mixture = spectrogram(generator)
    mask = torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1).expand(mixture.shape)
    estimate = wiener(mixture, mask)
    true, got = (torch.view_as_real(x).reshape(2, -1) for x in (mask * mixture, estimate))
    assert global_sdr(true, got) > 15


def test_directions_tell_what_a_vague_mask_does_not(generator: torch.Generator) -> None:
    notes, voice = torch.randn(2, 44100, generator=generator)
    noise = torch.randn(2, 44100, generator=generator)
    accompaniment = torch.stack([notes, 0.3 * notes]) + 0.1 * noise
    mixture = accompaniment + voice  # in the middle
    both, true = stft(mixture[None], STFT), stft(accompaniment[None], STFT).abs()
    ideal = true / (true + stft((mixture - accompaniment)[None], STFT).abs())
    vague = 0.25 + 0.5 * ideal
    masked, filtered = (
        global_sdr(accompaniment, istft(estimate, STFT, 44100)[0])
        for estimate in (vague * both, wiener(both / both.abs().max(), vague) * both.abs().max())
    )
    assert filtered > masked + 1


def test_any_number_of_stems_is_the_formula_too(generator: torch.Generator) -> None:
    """As in norbert and open-unmix: v R of each stem, over the sum of them all."""
    mixture = spectrogram(generator)
    masks = torch.rand(1, 3, 2, 5, 9, generator=generator)
    masks /= masks.sum(1, keepdim=True)
    estimates = wiener_stems(mixture, masks)
    expected = np.empty(estimates.shape[1:], complex)
    _, bins, frames = mixture[0].shape
    for f in range(bins):
        x, shares = mixture[0, :, f].numpy().astype(complex), masks[0, :, :, f].double().numpy()
        covariances = []
        for m in shares:
            matrix = (m * x) @ (m * x).conj().T
            matrix *= 2 / np.trace(matrix).real
            covariances.append(
                (matrix + COVARIANCE_SHRINKAGE * np.eye(2)) / (1 + COVARIANCE_SHRINKAGE)
            )
        for n in range(frames):
            powers = (shares[:, :, n] * abs(x[:, n]) ** 2).sum(1)
            parts = [v * matrix for v, matrix in zip(powers, covariances, strict=True)]
            for s, part in enumerate(parts):
                expected[s, :, f, n] = part @ np.linalg.inv(sum(parts)) @ x[:, n]
    np.testing.assert_allclose(estimates[0], expected, atol=1e-4)
    torch.testing.assert_close(estimates.sum(1), mixture, atol=1e-5, rtol=0)


def test_two_stems_of_many_are_the_filter_of_two(generator: torch.Generator) -> None:
    mixture = spectrogram(generator)
    mask = torch.rand(mixture.shape, generator=generator)
    both = wiener_stems(mixture, torch.stack([mask, 1 - mask], dim=1))
    torch.testing.assert_close(both[:, 0], wiener(mixture, mask), atol=1e-4, rtol=0)

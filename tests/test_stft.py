"""The transform against a plain DFT, and the scale on which the model sees magnitudes."""

import numpy as np
import pytest
import torch
from torch import Tensor

from separator.dsp.config import STFTConfig
from separator.dsp.stft import compress, istft, linear_mask, normalise, stft
from separator.errors import SeparatorError

SIZES = [(2048, 1024), (4096, 1024), (256, 128), (512, 96)]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("n_fft", "hop"), SIZES)
@pytest.mark.parametrize("extra", [0, 1, 77])
def test_istft_inverts_stft(n_fft: int, hop: int, extra: int):
    config = STFTConfig(n_fft, hop)
    wave = noise(2, 2, 6 * n_fft + extra).clamp(-1, 1)
    spectrogram = stft(wave, config)
    assert spectrogram.dtype == torch.complex64
    assert spectrogram.shape == (2, 2, n_fft // 2 + 1, -(-wave.shape[-1] // hop) + 1)
    assert config.bins == n_fft // 2 + 1
    back = istft(spectrogram, config, wave.shape[-1])
    assert back.shape == wave.shape
    assert (back - wave).abs().max() < 1e-5


@pytest.mark.parametrize(("n_fft", "hop"), SIZES)
@pytest.mark.parametrize("length", [6 * 96 * 32 - 77, 6 * 96 * 32])
def test_istft_and_its_gradient_are_those_of_its_steps(n_fft: int, hop: int, length: int):
    config = STFTConfig(n_fft, hop)
    shape = 2, config.bins, -(-6 * 96 * 32 // hop) + 1
    spectrogram = torch.complex(noise(*shape), noise(*shape, seed=1))
    weight = noise(2, length, seed=2)
    spectrogram.requires_grad_()
    got = istft(spectrogram, config, length)
    (got * weight).sum().backward()
    exact = spectrogram.detach().to(torch.complex128).requires_grad_()
    window = torch.hann_window(n_fft, dtype=torch.float64)
    wave = torch.istft(exact, n_fft, hop, window=window, length=length)
    torch.testing.assert_close(got, wave.float(), rtol=1e-4, atol=1e-4)
    (wave * weight).sum().backward()
    assert exact.grad.abs().max() > 0
    torch.testing.assert_close(
        spectrogram.grad, exact.grad.to(torch.complex64), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize(("n_fft", "hop"), SIZES)
def test_a_frame_is_the_windowed_dft_about_a_multiple_of_the_hop(n_fft: int, hop: int):
    wave = noise(3 * n_fft + 5)
    spectrogram = stft(wave, STFTConfig(n_fft, hop))
    place = np.arange(n_fft)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * place / n_fft)  # periodic: the divisor is n_fft
    padded = np.pad(wave.double().numpy(), (n_fft // 2, 2 * n_fft))
    for frame in (0, 1, spectrogram.shape[-1] - 1):
        cut = padded[frame * hop :][:n_fft] * window
        for k in (0, 1, n_fft // 5, n_fft // 2):
            expected = np.sum(cut * np.exp(-2j * np.pi * k * place / n_fft))
            assert abs(spectrogram[k, frame].item() - expected) < 2e-4 * np.sqrt(n_fft)


def test_a_tone_on_a_bin_is_where_and_as_high_as_theory_says():
    """Full scale gives n_fft / 4 at its bin, half of that beside it, and nothing further off."""
    config = STFTConfig(2048, 1024)
    wave = torch.cos(2 * torch.pi * 100 * torch.arange(8192, dtype=torch.float64) / 2048).float()
    magnitude = stft(wave, config).abs()[:, 4]
    torch.testing.assert_close(
        magnitude[99:102], torch.tensor([256.0, 512.0, 256.0]), rtol=1e-5, atol=0
    )
    magnitude[99:102] = 0
    assert magnitude.max() < 5e-3


@pytest.mark.parametrize(("n_fft", "hop"), SIZES)
@pytest.mark.parametrize("extra", [1, 77, -1])
def test_a_masked_spectrogram_has_a_bounded_inverse_to_the_last_sample(
    n_fft: int, hop: int, extra: int
):
    config = STFTConfig(n_fft, hop)
    wave = noise(4 * n_fft + extra)
    spectrogram = stft(wave, config)
    mask = torch.rand(spectrogram.shape, generator=torch.Generator().manual_seed(1))
    assert istft(spectrogram * mask, config, len(wave)).abs().max() < 2 * wave.abs().max()


def test_numbers_of_a_fixed_signal():
    """A change of window, padding or scale, however silent, changes these."""
    time = torch.arange(8000, dtype=torch.float64)
    wave = (0.5 * torch.sin(0.01 * time) + 0.3 * torch.sin(1e-4 * time**2)).float()
    config = STFTConfig(256, 128, 0.5)
    magnitude = stft(wave, config).abs()
    assert magnitude.shape == (129, 64)
    picked = [magnitude[f, n].item() for f, n in ((0, 0), (1, 10), (10, 9), (20, 18), (66, 62))]
    assert picked == pytest.approx([15.29768, 19.33461, 14.79142, 7.23237, 6.46162], rel=1e-4)
    seen, scale = normalise(magnitude[None, None], config)
    assert scale.item() == pytest.approx(73.88283, rel=1e-4)
    assert seen.mean().item() == pytest.approx(0.0311594, rel=1e-4)


@pytest.mark.parametrize("power", [1.0, 0.5, 0.3])
def test_a_mask_on_compressed_magnitudes_has_a_linear_twin(power: float):
    config = STFTConfig(256, 128, power)
    magnitude = (
        stft(noise(3, 2, 4000), config).abs() * torch.tensor([1, 0.01, 30.0])[:, None, None, None]
    )
    seen, scale = normalise(magnitude, config)
    assert scale.shape == (3, 1, 1, 1)
    torch.testing.assert_close(scale.flatten(), magnitude.flatten(1).amax(1))
    assert seen.min() >= 0
    assert seen.flatten(1).amax(1).tolist() == [1, 1, 1]
    mask = torch.rand(seen.shape, generator=torch.Generator().manual_seed(1))
    left = (mask * seen) ** (1 / power)
    right = linear_mask(mask, config) * magnitude / scale
    torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-6)


def test_the_level_does_not_matter_down_to_the_floor():
    config = STFTConfig(256, 128)
    magnitude = stft(noise(1, 2, 4000), config).abs()
    magnitude = magnitude / magnitude.amax() * config.n_fft / 4
    loud, soft, softer = (normalise(magnitude * gain, config)[0] for gain in (1, 2e-3, 1e-4))
    torch.testing.assert_close(loud, soft, rtol=1e-4, atol=1e-5)
    assert softer.amax().item() == pytest.approx(0.1**0.5, rel=1e-3)  # 20 dB below the floor
    assert normalise(torch.zeros(1, 2, 129, 5), config)[0].amax() <= 1e-6


@pytest.mark.parametrize("power", [1.0, 0.5, 0.3])
def test_compression_clips_and_has_a_finite_slope_at_zero(power: float):
    magnitude = torch.tensor([[[[0.0, 0.25, 1.0, 3.0]]]], requires_grad=True)
    seen = compress(magnitude, torch.ones(1, 1, 1, 1), STFTConfig(256, 128, power))
    expected = [0, 0.25**power, 1, 1]
    assert seen.flatten().tolist() == pytest.approx(expected, abs=3e-4)
    seen.sum().backward()
    assert magnitude.grad.isfinite().all()


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"n_fft": 1000}, "n_fft"),
        ({"n_fft": 8}, "n_fft"),
        ({"hop": 0}, "hop"),
        ({"n_fft": 2048, "hop": 1025}, "hop"),
        ({"power": 0.0}, "power"),
        ({"power": 1.5}, "power"),
    ],
)
def test_bad_settings_name_the_key(values: dict, key: str):
    with pytest.raises(SeparatorError, match=f"^{key}: ") as caught:
        STFTConfig(**values)
    assert "\n" not in str(caught.value)

"""Training losses by hand, at their best, and on silence."""

import pytest
import torch
from torch import Tensor

from separator import losses
from separator.dsp.config import STFTConfig
from separator.dsp.stft import istft, linear_mask, normalise, stft
from separator.errors import SeparatorError
from separator.loss_config import check_weights
from separator.losses import Estimate, SeparationLoss, Target, waveform_l1, waveform_sdr
from separator.metrics import global_sdr

STFT_LOSS = "MultiResolutionSTFTLoss"
ALL = {"magnitude_l1": 1.0, "wave_l1": 1.0, "sdr": 0.1, STFT_LOSS: 1.0}
LENGTH = 6000


def noise(seed: int) -> Tensor:
    return 0.1 * torch.randn(2, 2, LENGTH, generator=torch.Generator().manual_seed(seed))


def scores(
    weights: dict[str, float],
    config: STFTConfig,
    mask: Tensor,
    mixture: Tensor,
    scale: Tensor,
    wave: Tensor,
) -> dict[str, Tensor]:
    """Score one stem's mask."""
    estimate = Estimate(mask, mixture, scale, config, wave.shape[-1])
    return SeparationLoss(weights)(estimate, Target(wave[:, None], estimate))


@pytest.mark.parametrize("power", [1.0, 0.5, 0.3])
def test_the_magnitude_loss_by_hand(power: float):
    config = STFTConfig(256, 128, power)
    wave = 0.3 * noise(1)
    mixture, target = stft(noise(0), config), stft(wave, config)
    seen, scale = normalise(mixture.abs(), config)
    mask = torch.rand(seen.shape, generator=torch.Generator().manual_seed(2))
    out = scores({"magnitude_l1": 2.0, "wave_l1": 0.0}, config, mask, mixture, scale, wave)
    relative = [(x.abs().double() / scale.double()).clamp(0, 1) ** power for x in (mixture, target)]
    expected = (mask.double() * relative[0] - relative[1]).abs().mean().item()
    assert out.keys() == {"loss", "loss/magnitude_l1"}
    assert out["loss/magnitude_l1"].item() == pytest.approx(expected, rel=1e-5)
    assert out["loss"].item() == pytest.approx(2 * expected, rel=1e-5)


def test_the_wave_loss_by_hand():
    target = torch.tensor([[[1.0, -1, 1, -1]], [[0.5, 0.5, 0.5, 0.5]]])
    estimate = torch.tensor([[[0.0, -1, 1, 0]], [[0.5, 0.5, 0.5, 0.0]]])
    expected = ((2 / 4) / 1 + (0.5 / 4) / 0.5) / 2
    assert waveform_l1(estimate, target).item() == pytest.approx(expected)
    silent = waveform_l1(torch.full((1, 2, 9), 0.01), torch.zeros(1, 2, 9))
    assert silent.item() == pytest.approx(0.01 / 1e-3)  # relative to -60 dB, not to nothing


def test_the_sdr_loss_is_the_metric_up_to_30_db():
    target, error = noise(0), torch.stack([noise(1)[0], 0.3 * noise(1)[1]])
    for gain in (1.0, 0.1, 1e-4):
        estimate = target + gain * error
        decibels = [global_sdr(*pair) for pair in zip(target, estimate, strict=True)]
        expected = torch.stack([10 * (10 ** (-sdr / 10) + 1e-3).log10() for sdr in decibels])
        assert waveform_sdr(estimate, target).item() == pytest.approx(
            expected.mean().item(), rel=1e-4
        )
    silent = waveform_sdr(torch.full((1, 2, 9), 0.01), torch.zeros(1, 2, 9))
    assert silent.item() == pytest.approx(20, abs=0.01)  # relative to -60 dB


@pytest.mark.parametrize("power", [1.0, 0.5])
def test_the_right_mask_costs_nothing(power: float):
    config = STFTConfig(256, 128, power)
    mixture = stft(noise(0), config)
    gain = torch.linspace(0.2, 1.0, config.bins)[:, None]
    wave = istft(mixture * gain, config, LENGTH)
    seen, scale = normalise(mixture.abs(), config)
    mask = (gain**power).expand_as(seen)
    out = scores(ALL, config, mask, mixture, scale, wave)
    even = scores(ALL, config, torch.full_like(mask, 0.3**power), mixture, scale, 0.3 * noise(0))
    assert even["loss/magnitude_l1"] < 1e-5  # no other spectrogram is that of its own inverse
    assert out["loss/wave_l1"] < 1e-5
    assert out[f"loss/{STFT_LOSS}"] < 1e-2  # its log magnitudes see rounding in empty bins
    assert out["loss/sdr"] == pytest.approx(-30, abs=1e-3)
    worse = scores(ALL, config, mask * 0.5, mixture, scale, wave)
    assert worse["loss/sdr"] > -20
    assert all(worse[f"loss/{name}"] > 10 * out[f"loss/{name}"] for name in ("wave_l1", STFT_LOSS))
    assert worse["loss/magnitude_l1"] > 10 * even["loss/magnitude_l1"]


def test_the_parts_are_added_with_their_weights():
    config = STFTConfig(256, 128)
    mixture = stft(noise(0), config)
    seen, scale = normalise(mixture.abs(), config)
    weights = {"magnitude_l1": 2.0, "wave_l1": 0.5, "sdr": 0.1, STFT_LOSS: 0.25}
    mask = torch.full_like(seen, 0.5)
    out = scores(weights, config, mask, mixture, scale, noise(1))
    parts = [out[f"loss/{name}"].item() for name in weights]
    assert all(parts)
    expected = 2 * parts[0] + 0.5 * parts[1] + 0.1 * parts[2] + 0.25 * parts[3]
    assert out["loss"].item() == pytest.approx(expected)


@pytest.mark.parametrize("silent", ["both", "target", "estimate"])
def test_silence_has_a_finite_gradient(silent: str):
    config = STFTConfig(256, 128)
    mixture = torch.zeros(2, 2, LENGTH) if silent in ("both", "estimate") else noise(0)
    wave = noise(1) if silent == "estimate" else torch.zeros(2, 2, LENGTH)
    spectrogram = stft(mixture, config)
    seen, scale = normalise(spectrogram.abs(), config)
    mask = torch.full_like(seen, 0.5, requires_grad=True)
    out = scores(ALL, config, mask, spectrogram, scale, wave)
    out["loss"].backward()
    assert out["loss"].isfinite()
    assert mask.grad.isfinite().all()


@pytest.mark.parametrize(
    ("values", "start"),
    [
        ({"wave_l1": -1.0}, r"loss\.wave_l1: "),
        ({"magnitude_l1": 0.0}, "loss: all weights are 0"),
    ],
)
def test_bad_weights_name_the_key(values: dict, start: str):
    with pytest.raises(SeparatorError, match=f"^{start}") as caught:
        check_weights(values)
    assert "\n" not in str(caught.value)


def test_a_class_of_auraloss_is_taken_by_its_name():
    auraloss = pytest.importorskip("auraloss")
    config, wave = STFTConfig(256, 128), noise(1)
    mixture = stft(noise(0), config)
    seen, scale = normalise(mixture.abs(), config)
    mask = torch.full_like(seen, 0.5)
    out = scores({"SISDRLoss": 0.5}, config, mask, mixture, scale, wave)
    estimate = istft(mixture * linear_mask(mask, config), config, LENGTH)
    expected = auraloss.time.SISDRLoss()(estimate, wave).item()
    assert out["loss/SISDRLoss"].item() == pytest.approx(expected, rel=1e-4)
    assert out["loss"].item() == pytest.approx(0.5 * expected, rel=1e-4)


@pytest.mark.parametrize("name", ["sdrr", "torch", "STFTLos"])
def test_a_loss_that_is_not_there_is_one_line(name: str):
    with pytest.raises(SeparatorError, match=rf"^loss\.{name}: no such loss; give one of [^\n]+$"):
        SeparationLoss({name: 1.0})


def test_a_new_loss_is_a_row(monkeypatch: pytest.MonkeyPatch):
    def power(estimate: Tensor, target: Tensor) -> Tensor:
        return (estimate.abs().square() - target.abs().square()).abs().mean()

    monkeypatch.setitem(losses.LOSSES, "power", ("spectrogram", power))
    config, wave = STFTConfig(256, 128, 1.0), noise(1)
    mixture = stft(noise(0), config)
    seen, scale = normalise(mixture.abs(), config)
    out = scores({"power": 1.0}, config, torch.full_like(seen, 0.5), mixture, scale, wave)
    expected = power(0.5 * mixture, stft(wave, config)).item()
    assert out["loss"].item() == pytest.approx(expected, rel=1e-4)


def test_several_stems_cost_their_mean():
    config, waves = STFTConfig(256, 128), torch.stack([noise(1), 0.5 * noise(2), noise(3)], dim=1)
    mixture = stft(waves.sum(1), config)
    seen, scale = normalise(mixture.abs(), config)
    masks = torch.rand(2, 3, *seen.shape[1:], generator=torch.Generator().manual_seed(4))
    estimate = Estimate(masks, mixture, scale, config, LENGTH)
    out = SeparationLoss({"sdr": 1.0, "magnitude_l1": 1.0})(estimate, Target(waves, estimate))
    linear = masks.square() / masks.square().sum(1, keepdim=True)
    parts = istft(mixture[:, None] * linear, config, LENGTH)
    torch.testing.assert_close(parts.sum(1), waves.sum(1), atol=1e-4, rtol=0)
    expected = [waveform_sdr(parts[:, s], waves[:, s]).item() for s in range(3)]
    assert out["loss/sdr"].item() == pytest.approx(sum(expected) / 3, rel=1e-4)
    true = (stft(waves, config).abs() / scale[:, None]).clamp(0, 1).sqrt()
    error = (linear.sqrt() * seen[:, None] - true).abs().mean().item()
    assert out["loss/magnitude_l1"].item() == pytest.approx(error, rel=1e-3)

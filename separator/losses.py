"""What training minimises, each loss a scalar; the configuration gives each a weight."""

import torch
from torch import Tensor, nn

from separator.dsp.config import STFTConfig
from separator.dsp.stft import compress, istft, linear_mask, stft
from separator.loss_config import LossConfig


class SeparationLoss(nn.Module):
    """The weighted sum of the losses for one stem, from the mask that a model gave.

    The stereo filter that separation adds (`separator.dsp.wiener`) is left out: training through it
    gained nothing.
    """

    def __init__(self, config: LossConfig, transform: STFTConfig) -> None:
        super().__init__()
        self.config, self.transform = config, transform
        self.multi_stft = _multi_resolution() if config.multi_stft else None

    def forward(
        self, mask: Tensor, mixture: Tensor, scale: Tensor, wave: Tensor
    ) -> dict[str, Tensor]:
        """Score a mask.

        Args:
            mask: (b c f n) in [0, 1], for compressed magnitudes.
            mixture: (b c f n) complex spectrogram of the mixture.
            scale: (b 1 1 1) what `normalise` divided the mixture by.
            wave: (b c t) the stem.

        Returns:
            "loss" and its parts "loss/…".
        """
        config, parts = self.config, {}
        if config.magnitude:
            estimate = mask * compress(mixture.abs(), scale, self.transform)
            truth = compress(stft(wave, self.transform).abs(), scale, self.transform)
            parts["magnitude"] = (estimate - truth).abs().mean()
        if config.wave or config.sdr or config.multi_stft:
            estimate = istft(
                mixture * linear_mask(mask, self.transform), self.transform, wave.shape[-1]
            )
        if config.wave:
            parts["wave"] = waveform_l1(estimate, wave)
        if config.sdr:
            parts["sdr"] = waveform_sdr(estimate, wave)
        if self.multi_stft is not None:
            parts["multi_stft"] = self.multi_stft(estimate, wave)
        total = torch.stack([getattr(config, name) * value for name, value in parts.items()]).sum()
        return {"loss": total, **{f"loss/{name}": value for name, value in parts.items()}}


def waveform_l1(estimate: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error of waves (b c t), each relative to its target's RMS (at least -60 dB)."""
    level = target.square().mean(dim=(1, 2)).sqrt().clamp(min=1e-3)
    return ((estimate - target).abs().mean(dim=(1, 2)) / level).mean()


def waveform_sdr(estimate: Tensor, target: Tensor) -> Tensor:
    """Mean of the negative SDR in dB of waves (b c t), each of which can gain 30 dB at most.

    The log gives every song the same weight, however well it is separated; the bound, from
    Wisdom et al. 2020 (arXiv 2006.12701), keeps it from those that are nearly perfect.
    """
    power = target.square().mean(dim=(1, 2)).clamp(min=1e-6)
    error = (estimate - target).square().mean(dim=(1, 2))
    return 10 * (error / power + 1e-3).log10().mean()


def _multi_resolution() -> nn.Module:
    """Build auraloss' loss (Yamamoto et al. 2020, arXiv 1910.11480) over three resolutions."""
    import auraloss

    return auraloss.freq.MultiResolutionSTFTLoss()

"""Losses: each is `loss(estimate, target)`; the configuration names them and gives them weights."""

from collections.abc import Callable, Mapping
from functools import cached_property

import torch
from torch import Tensor, nn

from separator.dsp.config import STFTConfig
from separator.dsp.stft import compress, istft, linear_masks, stft
from separator.loss_config import LossConfig


class Estimate:
    """Stems as masks of a mixture, in each form that a loss can be taken in.

    The stereo filter that separation adds (`separator.dsp.wiener`) is left out: training through it
    gained nothing.

    Args:
        masks: (b c f n) or (b s c f n), as a model gives them.
        mixture: (b c f n) complex spectrogram.
        scale: (b 1 1 1), by which `normalise` divided the mixture.
        transform: of the spectrogram.
        samples: length of the waves.
    """

    def __init__(
        self, masks: Tensor, mixture: Tensor, scale: Tensor, transform: STFTConfig, samples: int
    ) -> None:
        self.masks, self.mixture, self.scale = masks, mixture, scale
        self.transform, self.samples = transform, samples

    def __getitem__(self, places: Tensor) -> "Estimate":
        """Take some items of the batch."""
        parts = self.masks[places], self.mixture[places], self.scale[places]
        return Estimate(*parts, self.transform, self.samples)

    @cached_property
    def magnitude(self) -> Tensor:
        """Compressed magnitudes (b·s c f n)."""
        masks = self.masks[:, None]
        if self.masks.ndim == 5:
            masks = (self._linear_masks + 1e-12) ** self.transform.power
        magnitude = compress(self.mixture.abs(), self.scale, self.transform)
        return (masks * magnitude[:, None]).flatten(0, 1)

    @cached_property
    def spectrogram(self) -> Tensor:
        """Complex spectrograms (b·s c f n)."""
        return (self.mixture[:, None] * self._linear_masks).flatten(0, 1)

    @cached_property
    def wave(self) -> Tensor:
        """Waves (b·s c t)."""
        return istft(self.spectrogram, self.transform, self.samples)

    @cached_property
    def _linear_masks(self) -> Tensor:
        return linear_masks(self.masks, self.transform)


class Target:
    """True stems, in each form that a loss can be taken in.

    Args:
        stems: (b s c t).
        estimate: what they are compared with, whose scale their magnitudes have.
    """

    def __init__(self, stems: Tensor, estimate: Estimate) -> None:
        self.wave = stems.flatten(0, 1)
        self.scale = estimate.scale.repeat_interleave(stems.shape[1], dim=0)
        self.transform = estimate.transform

    @cached_property
    def spectrogram(self) -> Tensor:
        """Complex spectrograms (b·s c f n)."""
        return stft(self.wave, self.transform)

    @cached_property
    def magnitude(self) -> Tensor:
        """Compressed magnitudes (b·s c f n)."""
        return compress(self.spectrogram.abs(), self.scale, self.transform)


class SeparationLoss(nn.Module):
    """The weighted sum of the losses that a configuration names."""

    def __init__(self, config: LossConfig) -> None:
        super().__init__()
        self.weights = {name: weight for name, weight in vars(config).items() if weight}
        self.multi_stft = _multi_resolution() if config.multi_stft else None

    def forward(self, estimate: Estimate, target: Target) -> dict[str, Tensor]:
        """Return "loss" and its parts "loss/…", each a scalar."""
        parts = {}
        for name in self.weights:
            form, loss = LOSSES.get(name, ("wave", self.multi_stft))
            parts[name] = loss(getattr(estimate, form), getattr(target, form))
        total = torch.stack([self.weights[name] * value for name, value in parts.items()]).sum()
        return {"loss": total, **{f"loss/{name}": value for name, value in parts.items()}}


def l1(estimate: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error."""
    return (estimate - target).abs().mean()


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


Loss = Callable[[Tensor, Tensor], Tensor]
LOSSES: Mapping[str, tuple[str, Loss]] = {  # and the form that each is taken in
    "magnitude": ("magnitude", l1),
    "wave": ("wave", waveform_l1),
    "sdr": ("wave", waveform_sdr),
}


def _multi_resolution() -> nn.Module:
    """Build auraloss' loss (Yamamoto et al. 2020, arXiv 1910.11480) over three resolutions."""
    import auraloss

    return auraloss.freq.MultiResolutionSTFTLoss()

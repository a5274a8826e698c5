"""Losses: each is `loss(estimate, target)`; the configuration names them and gives them weights.

A new loss is a function and a row of `LOSSES`. The classes of auraloss need none.
"""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Self

import torch
from torch import Tensor, nn

from separator.dsp.config import STFTConfig
from separator.dsp.stft import compress, istft, linear_masks, normalise, stft
from separator.errors import SeparatorError


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

    @classmethod
    def of(cls, model: nn.Module, mixture: Tensor, transform: STFTConfig, samples: int) -> Self:
        """Estimate the stems of a mixture with a model that maps magnitudes to masks.

        Args:
            model: maps compressed magnitudes (b c f n) to masks.
            mixture: (b c f n) complex spectrogram.
            transform: of the spectrogram.
            samples: length of the waves.

        Returns:
            The estimate of all stems.
        """
        magnitude, scale = normalise(mixture.abs(), transform)
        return cls(model(magnitude), mixture, scale, transform, samples)

    def __getitem__(self, places: Tensor) -> Self:
        """Take some items of the batch."""
        parts = self.masks[places], self.mixture[places], self.scale[places]
        return type(self)(*parts, self.transform, self.samples)

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
    """The weighted sum of losses.

    Args:
        weights: by the losses' names, keys of `LOSSES` or classes of auraloss; 0 leaves one out.

    Raises:
        SeparatorError: there is no such loss.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        super().__init__()
        self.weights = {name: weight for name, weight in weights.items() if weight}
        foreign = {name: auraloss_of(name) for name in self.weights if name not in LOSSES}
        self.modules_by_name = nn.ModuleDict(foreign)

    def forward(self, estimate: Estimate, target: Target) -> dict[str, Tensor]:
        """Compute all losses and their weighted sum.

        Args:
            estimate: the stems that the model's masks give.
            target: the true stems.

        Returns:
            "loss", the weighted sum, and each loss by itself as "loss/NAME", all scalars.
        """
        parts = {}
        for name in self.weights:
            form, loss = LOSSES.get(name) or ("wave", self.modules_by_name[name])
            parts[name] = loss(getattr(estimate, form), getattr(target, form))
        total = torch.stack([self.weights[name] * value for name, value in parts.items()]).sum()
        return {"loss": total, **{f"loss/{name}": value for name, value in parts.items()}}


def l1(estimate: Tensor, target: Tensor) -> Tensor:
    """Compute the mean absolute error.

    Args:
        estimate: of any shape.
        target: of the same shape.

    Returns:
        A scalar.
    """
    return (estimate - target).abs().mean()


def waveform_l1(estimate: Tensor, target: Tensor) -> Tensor:
    """Compute the mean absolute error of waves, each relative to the RMS of its target.

    Args:
        estimate: (b c t).
        target: (b c t); an RMS below -60 dB of full scale counts as -60 dB.

    Returns:
        A scalar, the mean over the batch.
    """
    rms = target.square().mean(dim=(1, 2)).sqrt().clamp(min=1e-3)
    return ((estimate - target).abs().mean(dim=(1, 2)) / rms).mean()


def waveform_sdr(estimate: Tensor, target: Tensor) -> Tensor:
    """Compute the mean of the negative SDR of waves; each wave's SDR is limited to 30 dB.

    Because of the logarithm all songs have the same weight, however well they are separated. The
    limit, from Wisdom et al. 2020 (arXiv 2006.12701), keeps songs that are nearly perfect from
    dominating the gradient.

    Args:
        estimate: (b c t).
        target: (b c t).

    Returns:
        A scalar in dB, the mean over the batch; lower is better.
    """
    power = target.square().mean(dim=(1, 2)).clamp(min=1e-6)
    error = (estimate - target).square().mean(dim=(1, 2))
    return 10 * (error / power + 1e-3).log10().mean()


Loss = Callable[[Tensor, Tensor], Tensor]
LOSSES: Mapping[str, tuple[str, Loss]] = {  # and the form that each is taken in
    "magnitude_l1": ("magnitude", l1),
    "wave_l1": ("wave", waveform_l1),
    "sdr": ("wave", waveform_sdr),
}


def auraloss_of(name: str) -> nn.Module:
    """Make a loss of auraloss, which takes waves (b c t).

    Args:
        name: of its class, such as MultiResolutionSTFTLoss (Yamamoto et al. 2020, arXiv
            1910.11480), SumAndDifferenceSTFTLoss or SISDRLoss.

    Raises:
        SeparatorError: there is no such loss.
    """
    import auraloss

    for module in (auraloss.freq, auraloss.time):
        if name.endswith("Loss") and hasattr(module, name):
            return getattr(module, name)()
    raise SeparatorError(
        f"loss.{name}: no such loss; give one of {', '.join(LOSSES)}, or the name of a class of "
        "auraloss, such as MultiResolutionSTFTLoss"
    )

"""The head of next-spectrogram prediction: does the second half of a crop continue the first?"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from separator.pretrain.objectives.auxiliary.next_spectrogram import NextConfig

WINDOWS = 2, 4, 8, 16, 32  # frames next to [SEP] that are compared, in addition to the halves
VIEWS = 16  # projections in which bottleneck features are compared
PARTS = 32  # groups of neighbouring bottleneck features (of neighbouring bins) that are compared
BANDS = 64  # in which the spectrogram is compared
MEAN_ANGLE = -2.8  # mean log of 1 - cosine between bands of compressed magnitudes of music


class NextHead(nn.Module):
    """Predict whether the second half of a crop continues the first.

    The input is the angles between mean features of the halves, and between those of the frames
    nearest to the boundary. Angles ignore the level and the tilt that each half was given. Features
    of one half alone are left out: they say nothing about the pair, and a head soon memorises them.
    Bottleneck features are compared in learned projections, and part by part.

    A probe compares the bands of the input in the same way, without the network. Its accuracy tells
    how much of the answer needs no network; its gradient does not reach the network. With
    `config.bands` the sum of both is the answer.

    Args:
        features: number of bottleneck features of a frame (`bottleneck_features`).
        bins: of the spectrogram, without the Nyquist bin.
        config: [SEP], whose frames are left out.
        width: features in each of the views.
    """

    def __init__(self, features: int, bins: int, config: NextConfig, width: int = 16) -> None:
        super().__init__()
        self.reach, self.bands = config.token // 2, min(bins, BANDS)
        self.norm, self.views = nn.LayerNorm(features), nn.Linear(features, VIEWS * width)
        self.together, pairs = config.bands, len(WINDOWS) + 1
        self.parts = math.gcd(max(1, features // 4), PARTS)  # of 4 features or more
        self.answer = _comparison(pairs * (VIEWS + 1 + self.parts))
        self.probe = _comparison(pairs * (self.bands + 1))

    def forward(
        self, bottleneck: Tensor, magnitudes: Tensor, masked: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compare the halves of crops whose boundary is at frame n // 2.

        Args:
            bottleneck: (b n d) the model's bottleneck features.
            magnitudes: (b c f n) the magnitudes from which they came.
            masked: boolean (b 1 f n) or (b 1 1 n), patches filled with 1.0, which are left out.

        Returns:
            The log-odds of a continuation, and those of the probe alone: (b) each.
        """
        normed = self.norm(self._means(bottleneck))[..., None, :]
        views = self.views(normed).flatten(3).unflatten(3, (VIEWS, -1))
        spectra = self._spectra(magnitudes[:, :, :-1], masked)
        bands = spectra.unflatten(3, (self.bands, -1))
        parts = normed.squeeze(3).unflatten(3, (self.parts, -1))
        learned = torch.cat([_angle(normed), _angle(views), _angle(parts)], dim=-1)
        bare = torch.cat([_visible_angle(spectra[..., None, :]), _visible_angle(bands)], dim=-1)
        answer, probe = self.answer(learned.flatten(1))[:, 0], self.probe(bare.flatten(1))[:, 0]
        return answer + probe if self.together else answer, probe

    def _means(self, frames: Tensor) -> Tensor:
        """Mean frames of each pair of windows and of the halves: (b n …) to (b p 2 …)."""
        middle = frames.shape[1] // 2
        first, second = frames[:, : middle - self.reach], frames[:, middle + self.reach :]
        pairs = [(first, second), *((first[:, -n:], second[:, :n]) for n in WINDOWS)]
        means = [half.mean(dim=1) for pair in pairs for half in pair]
        return torch.stack(means, dim=1).unflatten(1, (-1, 2))

    def _spectra(self, magnitudes: Tensor, masked: Tensor) -> Tensor:
        """Mean spectra, frames made equally loud: (b c f n) to (b p 2 d), d = f · c.

        Bins that are visible on one side only are 0 on both.
        """
        visible = (~masked[:, :, : magnitudes.shape[2]]).to(magnitudes.dtype)
        power = (magnitudes * visible).square().mean(dim=(1, 2), keepdim=True)
        rms = (power / visible.mean(dim=(1, 2), keepdim=True).clamp(min=1e-4)).sqrt()
        levelled = magnitudes * visible / rms.clamp(min=1e-4)
        sums = self._means(rearrange(levelled, "b c f n -> b n f c"))
        parts = self._means(rearrange(visible, "b c f n -> b n f c"))
        common = (parts > 0).all(dim=2, keepdim=True)
        return (sums / parts.clamp(min=1e-4) * common).flatten(3)

    def loss(
        self, bottleneck: Tensor, magnitudes: Tensor, masked: Tensor, continues: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the binary cross-entropy and scalars to log.

        Args:
            bottleneck: (b n d) as in `forward`, as are `magnitudes` and `masked`.
            magnitudes: (b c f n).
            masked: (b 1 f n) or (b 1 1 n).
            continues: boolean (b).

        Returns:
            A scalar; "next/accuracy", "next/accuracy_bands" of the probe alone, and
            "next/positive", the share of the crops that the head calls continuations: 0 or 1 where
            it ignores its input, about 0.5 where it works.
        """
        answer, probe = self(bottleneck, magnitudes, masked)
        truth = continues.to(answer.dtype)
        loss = F.binary_cross_entropy_with_logits(answer, truth)
        if not self.together:  # train the probe, but report the head's own loss
            beside = F.binary_cross_entropy_with_logits(probe, truth)
            loss = loss + (beside - beside.detach())
        yes = answer.detach() > 0
        right, bare = (yes == continues), (probe.detach() > 0) == continues
        return loss, {
            "next/accuracy": right.float().mean(),
            "next/accuracy_bands": bare.float().mean(),
            "next/positive": yes.float().mean(),
        }


def _comparison(angles: int) -> nn.Module:
    return nn.Sequential(nn.Linear(angles, 64), nn.ReLU(), nn.Linear(64, 1))


def _angle(pairs: Tensor) -> Tensor:
    """Compute log(1 - cosine) between the halves of each pair: (b p 2 k d) to (b p k)."""
    first, second = pairs.float().unbind(2)
    return (1 - F.cosine_similarity(first, second, dim=-1) + 1e-3).log()


def _visible_angle(pairs: Tensor) -> Tensor:
    """Compute `_angle` of parts of spectra minus the usual one; 0 where a side is not visible."""
    return (_angle(pairs) - MEAN_ANGLE) * (pairs != 0).any(dim=-1).all(dim=2)

"""Next-spectrogram prediction: do the two halves of a crop follow each other in the song?"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from separator.pretrain.objective_config import NextConfig

WINDOWS = 2, 4, 8, 16, 32  # frames beside the separator that are compared, beside the halves
VIEWS = 16  # directions in which deep features are compared
PARTS = 32  # neighbouring deep features, which are of neighbouring bins, are compared in so many
BANDS = 64  # in which the spectrogram is compared
USUAL = -2.8  # mean log of 1 - cosine between bands of compressed magnitudes of music


class NextHead(nn.Module):
    """Whether the second half continues the first, from the crop and the model's deepest features.

    BERT's next-sentence prediction (arXiv 1810.04805). All that is looked at is how far the halves
    point apart, as wholes and in the frames nearest the joint: angles, not distances, for each half
    has a level and a tilt of its own; and nothing else, for what one half alone is like says
    nothing, and is soon known by heart. The deep features are compared as seen from learned
    directions, and part by part. The bands of what the model was shown are compared as they are, by
    a probe of their own: its accuracy says how much of the answer needs no network, and it teaches
    the network nothing. With `config.bands` both answer together.

    Args:
        features: deepest features of a frame, a model's `bottleneck_features`.
        bins: of the spectrogram, without the Nyquist bin.
        config: the separator, whose frames are left out.
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

    def forward(self, deep: Tensor, shown: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Compare the halves of crops whose joint is at frame n // 2.

        Args:
            deep: (b n d) the model's deepest features.
            shown: (b c f n) the magnitudes from which they came.
            hidden: boolean (b 1 f n) or (b 1 1 n), filled cells, of which nothing is heard.

        Returns:
            The log-odds of a continuation, and those of the probe alone: (b) each.
        """
        normed = self.norm(self._means(deep))[..., None, :]
        views = self.views(normed).flatten(3).unflatten(3, (VIEWS, -1))
        spectra = self._spectra(shown[:, :, :-1], hidden)
        bands = spectra.unflatten(3, (self.bands, -1))
        parts = normed.squeeze(3).unflatten(3, (self.parts, -1))
        own = torch.cat([_angle(normed), _angle(views), _angle(parts)], dim=-1)
        bare = torch.cat([_heard_angle(spectra[..., None, :]), _heard_angle(bands)], dim=-1)
        answer, probe = self.answer(own.flatten(1))[:, 0], self.probe(bare.flatten(1))[:, 0]
        return answer + probe if self.together else answer, probe

    def _means(self, frames: Tensor) -> Tensor:
        """Mean frames of each pair of windows and of the halves: (b n …) to (b p 2 …)."""
        middle = frames.shape[1] // 2
        first, second = frames[:, : middle - self.reach], frames[:, middle + self.reach :]
        pairs = [(first, second), *((first[:, -n:], second[:, :n]) for n in WINDOWS)]
        means = [half.mean(dim=1) for pair in pairs for half in pair]
        return torch.stack(means, dim=1).unflatten(1, (-1, 2))

    def _spectra(self, shown: Tensor, hidden: Tensor) -> Tensor:
        """Mean spectra, frames made equally loud: (b c f n) to (b p 2 d), d = f · c.

        What is heard on one side only is 0 on both.
        """
        heard = (~hidden[:, :, : shown.shape[2]]).to(shown.dtype)
        power = (shown * heard).square().mean(dim=(1, 2), keepdim=True)
        level = (power / heard.mean(dim=(1, 2), keepdim=True).clamp(min=1e-4)).sqrt()
        sums, parts = (
            self._means(rearrange(x, "b c f n -> b n f c"))
            for x in (shown * heard / level.clamp(min=1e-4), heard)
        )
        common = (parts > 0).all(dim=2, keepdim=True)
        return (sums / parts.clamp(min=1e-4) * common).flatten(3)

    def loss(
        self, deep: Tensor, shown: Tensor, hidden: Tensor, continues: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the binary cross-entropy, and what to log.

        Args:
            deep: (b n d) as in `forward`, as are `shown` and `hidden`.
            shown: (b c f n).
            hidden: (b 1 f n) or (b 1 1 n).
            continues: boolean (b).

        Returns:
            A scalar; "next/accuracy", "next/accuracy_bands" of the probe alone, and
            "next/positive", the part of the crops that the head takes for continuations: 0 or 1
            where it has given up, about 0.5 where it tells.
        """
        answer, probe = self(deep, shown, hidden)
        truth = continues.to(answer.dtype)
        loss = F.binary_cross_entropy_with_logits(answer, truth)
        if not self.together:  # the probe learns beside it; what is said is the head's own loss
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
    """Log of 1 - cosine between the halves of each pair: (b p 2 k d) to (b p k)."""
    first, second = pairs.float().unbind(2)
    return (1 - F.cosine_similarity(first, second, dim=-1) + 1e-3).log()


def _heard_angle(pairs: Tensor) -> Tensor:
    """`_angle` of parts of spectra beside the usual one; 0 where nothing is heard on both sides."""
    return (_angle(pairs) - USUAL) * (pairs != 0).any(dim=-1).all(dim=2)

"""The interface of every architecture: members, outputs, and the logits from which masks start."""

from typing import ClassVar, NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from separator.models.config import Sizes

VISIBLE_LOGIT = 2.2  # a mask of 0.9 where nothing is masked: most of a mixture is accompaniment
MEAN_MAGNITUDE_LOGIT = -3.5  # 0.03, about the mean magnitude of music to the power of 0.5


class Outputs(NamedTuple):
    """A mask, and the features on the way to it that other objectives' heads read.

    Attributes:
        mask: (b c f n) in [0, 1], or (b s c f n) of several stems.
        bottleneck: (b n d) features of each frame at the lowest resolution.
        pre_head: (b n f-1 c') features at full resolution: the input of the last layer, or the
            logits where that input has another resolution.
        balance_point: the tensor from which both `bottleneck` and the mask are computed, at which
            the gradients of objectives are compared.
    """

    mask: Tensor
    bottleneck: Tensor
    pre_head: Tensor
    balance_point: Tensor


class Architecture(nn.Module):
    """What a model of any architecture offers; `models.registry` lists the architectures.

    It is made from its configuration, the bins of the spectrogram (the Nyquist bin included) and
    the channels of the audio. `features`, `stages` and `reset_head` are an architecture's own.

    Attributes:
        HEAD: beginnings of the names of the parameters that `reset_head` initialises.
        config: its configuration.
        masks: for how many stems it gives one, see `StemSet.masks`.
        bottleneck_features: d of `Outputs.bottleneck`.
        pre_head_channels: c' of `Outputs.pre_head`.
    """

    HEAD: ClassVar[tuple[str, ...]]
    config: Sizes
    masks: int
    bottleneck_features: int
    pre_head_channels: int

    def forward(self, x: Tensor, masked: Tensor | None = None) -> Tensor:
        """Map compressed, normalised magnitudes to a mask for them.

        Args:
            x: (b c f n) in [0, 1], any number of frames.
            masked: boolean (b 1 1 n) or (b 1 f n), in pretraining: bins that were set to 1.

        Returns:
            (b c f n) in [0, 1], or (b s c f n) where the model has a mask for each of several
            stems; the Nyquist bin repeats the one below it.
        """
        return self.features(x, masked).mask

    def features(self, x: Tensor, masked: Tensor | None = None) -> Outputs:
        """Return the mask of `forward(x, masked)` and the features on the way to it."""

    def as_masks(self, logits: Tensor) -> Tensor:
        """Turn logits into masks in [0, 1]: a sigmoid for one stem, a softmax over several.

        Args:
            logits: (b n f-1 s·c), the channels of a stem next to each other.

        Returns:
            Masks (b c f n), or (b s c f n) of several stems, which add up to 1; the Nyquist bin
            repeats the one below it.
        """
        if self.masks == 1:
            masks = logits.sigmoid()
        else:
            masks = logits.unflatten(-1, (self.masks, -1)).softmax(dim=-2).flatten(-2)
        # Bins innermost, the transform's memory layout: products with the spectrogram are faster.
        masks = rearrange(torch.cat([masks, masks[:, :, -1:]], dim=2), "b n f c -> b c n f")
        masks = masks.contiguous().mT
        return masks if self.masks == 1 else masks.unflatten(1, (self.masks, -1))

    def initialise_linears(self, skip: tuple[str, ...] = ()) -> None:
        """Start each block near the identity: output projections are small.

        Args:
            skip: beginnings of the names of layers that stay as they are.
        """
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear) and not name.startswith(skip):
                nn.init.trunc_normal_(module.weight, std=module.in_features**-0.5)
                nn.init.zeros_(module.bias)
            if name.endswith((".out", ".down")):
                module.weight.data.mul_(0.2)

    def stages(self) -> list[list[nn.Parameter]]:
        """Return all parameters in the order of the forward pass, for layer-wise rates."""

    def reset_head(self) -> None:
        """Initialise the last layer: small weights, no bias."""
        nn.init.trunc_normal_(self.head.weight, std=0.1 * self.head.in_features**-0.5)
        nn.init.zeros_(self.head.bias)

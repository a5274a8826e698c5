"""What every architecture shares: its outputs, and the logits from which masks start."""

from typing import NamedTuple

from torch import Tensor

VISIBLE_LOGIT = 2.2  # a mask of 0.9 where nothing is masked: most of a mixture is accompaniment
MEAN_MAGNITUDE_LOGIT = -3.5  # 0.03, about the mean magnitude of music to the power of 0.5


class Outputs(NamedTuple):
    """A mask, and the features on the way to it that other objectives' heads read.

    Attributes:
        mask: (b c f n) in [0, 1].
        bottleneck: (b n d) features of each frame at the lowest resolution.
        pre_head: (b n f-1 c') features at full resolution, the input of the last layer.
        balance_point: the tensor from which both `bottleneck` and the mask are computed, at which
            the gradients of objectives are compared.
    """

    mask: Tensor
    bottleneck: Tensor
    pre_head: Tensor
    balance_point: Tensor

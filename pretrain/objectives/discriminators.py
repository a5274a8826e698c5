"""Networks that tell original frames from restored ones: by extracted tokens, or frame by frame.

Frame by frame there are two: one of convolutions, and a frame transformer (pix2pix, Isola et al.
2016, arXiv 1611.07004, with the probability of each frame instead of each patch).

Every weight is spectrally normalised (Miyato et al. 2018, arXiv 1802.05957) and nothing is
normalised over the batch: the number of tokens varies, may be one, and a statistic over real and
fake items would give the answer away.
"""

from itertools import pairwise

import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from separator.models.layers import Rotary

SLOPE = 0.2
MAX_STAGES = 6
FEW_BINS = 8  # a stage less than which there is nothing left to sum up
LOG_OFFSET = 0.01
MEAN_LOG = 3.4  # about the mean of -log(x + 0.01) of music to the power of 0.5


def log_scale(x: Tensor) -> Tensor:
    """Map compressed magnitudes to about zero mean and unit standard deviation.

    With a floor of 0.01 the slope on silence is at most a few times that on a patch of average
    loudness; with a smaller one nearly all of the generator's gradient would go to the silence.

    Args:
        x: in [0, 1], of any shape.

    Returns:
        Float32 of the same shape.
    """
    return (x.float() + LOG_OFFSET).log() + MEAN_LOG


class TokenDiscriminator(nn.Module):
    """A residual convolutional net that judges each extracted token on its own, unconditionally.

    Stages of 3x3 convolutions with 8, 16, 32, … channels halve bins and frames; once a token of
    the usual size has one frame left, the kernels are 3x1. Features are averaged over the frames
    that remain, so tokens of other sizes can be judged as well; bins keep their places.

    Args:
        inputs: audio channels.
        bins: of the spectrogram, without the Nyquist bin.
        frames: in a token, usually.
        channels: of the first stage.
    """

    def __init__(self, inputs: int, bins: int, frames: int, channels: int = 8) -> None:
        super().__init__()
        stages = []
        while not stages or (len(stages) < MAX_STAGES and bins > FEW_BINS):
            outputs = channels * 2 ** len(stages)
            stages.append(_Stage(inputs, outputs, wide=frames > 1))
            inputs, bins, frames = outputs, _half(bins), _half(frames)
        self.stages = nn.Sequential(*stages)
        self.head = _bounded(nn.Linear(inputs * bins, 1))

    def forward(self, tokens: Tensor) -> Tensor:
        """Judge each token.

        Args:
            tokens: (k c f g) compressed magnitudes; k may be 0.

        Returns:
            Logits (k), higher for real music.
        """
        y = self.stages(log_scale(tokens))
        return self.head(reduce(y, "k c f g -> k (c f)", "mean"))[:, 0]


class FrameDiscriminator(nn.Module):
    """Judges every frame of a picture, given the generator's input.

    Strided 5x1 convolutions work on each frame's bins; three convolutions over frames then see
    up to three frames on each side.

    Args:
        inputs: audio channels of the picture.
        bins: of the spectrogram, without the Nyquist bin.
        channels: of the first stage; each stage doubles them.
    """

    def __init__(self, inputs: int, bins: int, channels: int = 8) -> None:
        super().__init__()
        self.stages = _FrameStages(2 * inputs, bins, channels)
        sizes = [self.stages.features, 8 * channels, 8 * channels, 1]
        convs = (nn.Conv1d(width, outputs, 3, padding=1) for width, outputs in pairwise(sizes))
        self.context = nn.ModuleList(map(_bounded, convs))

    def forward(self, pair: Tensor) -> Tensor:
        """Judge each frame.

        Args:
            pair: (b 2c f n), the generator's input and the candidate as channels.

        Returns:
            Logits (b n), higher for real music.
        """
        y = self.stages(log_scale(pair))
        for conv in self.context[:-1]:
            y = F.leaky_relu(conv(y), SLOPE)
        return self.context[-1](y)[:, 0]


class FrameTransformerDiscriminator(nn.Module):
    """Judges every frame of a picture, knowing all of the others.

    The same strided convolutions make a token of each frame; transformer blocks with rotary
    positions carry between frames.

    Args:
        inputs: audio channels of the picture.
        bins: of the spectrogram, without the Nyquist bin.
        channels: of the first stage; tokens have sixteen times as many features.
        blocks: transformer blocks.
    """

    def __init__(self, inputs: int, bins: int, channels: int = 8, blocks: int = 2) -> None:
        super().__init__()
        self.stages = _FrameStages(2 * inputs, bins, channels)
        width = 16 * channels
        self.embed = _bounded(nn.Linear(self.stages.features, width))
        self.blocks = nn.ModuleList(_FrameBlock(width) for _ in range(blocks))
        self.head = _bounded(nn.Linear(width, 1))

    def forward(self, pair: Tensor) -> Tensor:
        """Judge each frame.

        Args:
            pair: (b 2c f n), the generator's input and the candidate as channels.

        Returns:
            Logits (b n), higher for real music.
        """
        y = self.embed(self.stages(log_scale(pair)).mT)
        for block in self.blocks:
            y = block(y)
        return self.head(y)[..., 0]


FRAME_KINDS = {"frame": FrameDiscriminator, "frame_transformer": FrameTransformerDiscriminator}


class _FrameStages(nn.Module):
    """Strided 5x1 convolutions over the bins of each frame: (b c f n) to (b d n)."""

    def __init__(self, inputs: int, bins: int, channels: int) -> None:
        super().__init__()
        stages = []
        while not stages or (len(stages) < MAX_STAGES and bins > FEW_BINS):
            outputs = channels * 2 ** len(stages)
            conv = nn.Conv2d(inputs, outputs, (5, 1), (4, 1), (2, 0))
            stages.append(nn.Sequential(_bounded(conv), nn.LeakyReLU(SLOPE)))
            inputs, bins = outputs, -(-bins // 4)
        self.stages, self.features = nn.Sequential(*stages), inputs * bins

    def forward(self, x: Tensor) -> Tensor:
        return rearrange(self.stages(x), "b c f n -> b (c f) n")


class _FrameBlock(nn.Module):
    """Self-attention over frames and a feed-forward, each added to its input (b n d)."""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.rotary = heads, Rotary(width // heads)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = _bounded(nn.Linear(width, 3 * width))
        self.out = _bounded(nn.Linear(width, width))
        self.up = _bounded(nn.Linear(width, 2 * width))
        self.down = _bounded(nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(self.norm1(x))
        q, k, v = rearrange(qkv, "b n (three h d) -> three b h n d", three=3, h=self.heads)
        y = F.scaled_dot_product_attention(self.rotary(q), self.rotary(k), v)
        x = x + self.out(rearrange(y, "b h n d -> b n (h d)"))
        return x + self.down(F.leaky_relu(self.up(self.norm2(x)), SLOPE))


class _Stage(nn.Module):
    """Two convolutions beside an averaging shortcut: (k c f g) to (k c' f/2 g/2).

    Args:
        inputs: channels.
        outputs: channels.
        wide: whether it works on frames as well, or on bins alone and leaves their number.
    """

    def __init__(self, inputs: int, outputs: int, wide: bool) -> None:
        super().__init__()
        sizes = ((3, 3), (1, 1), (2, 2)) if wide else ((3, 1), (1, 0), (2, 1))
        kernel, padding, self.stride = sizes
        self.first = _bounded(nn.Conv2d(inputs, outputs, kernel, self.stride, padding))
        self.second = _bounded(nn.Conv2d(outputs, outputs, kernel, 1, padding))
        # not a strided 1x1 convolution: torch 2.11's crashes on CPUs, in channels-last layout
        self.shortcut = _bounded(nn.Conv2d(inputs, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(F.leaky_relu(self.first(x), SLOPE))
        return F.leaky_relu(y + self.shortcut(F.avg_pool2d(x, self.stride, ceil_mode=True)), SLOPE)


def _bounded(layer: nn.Module) -> nn.Module:
    """Normalise a layer spectrally. Random orthogonal weights then pass on signals undiminished."""
    nn.init.orthogonal_(layer.weight)
    nn.init.zeros_(layer.bias)
    return spectral_norm(layer)


def _half(size: int) -> int:
    return -(-size // 2)

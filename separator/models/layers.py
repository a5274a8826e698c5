"""The parts of the frame transformer: norms, Nx1 convolutions, attention over frames.

Feature maps are (b n f c) in memory: a frame's bins and channels lie side by side, so an Nx1
convolution is the channels-last kernel (twice as fast on a CPU as the default layout, or more) and
the bottleneck to one channel is a matrix product whose result is already the frame's token.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from separator.dsp.kernels import RescaleByRMS
from separator.models.base import MEAN_MAGNITUDE_LOGIT


class RMSNorm(nn.Module):
    """Divide by the root mean square over the last `dims` axes; one gain per last-axis entry.

    Values below 1e-3 are amplified less. Unlike LayerNorm it distinguishes a constant frame from
    silence: a frame of ones stays ones, a silent one stays zero.
    """

    def __init__(self, size: int, dims: int = 1) -> None:
        super().__init__()
        self.dims = dims
        # Over several axes no gain: the linear layer that follows has one.
        self.gain = nn.Parameter(torch.ones(size)) if dims == 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """Return x (… size), normalised."""
        y = RescaleByRMS.apply(x.flatten(-self.dims), 1e-6).view(x.shape)
        return y if self.gain is None else y * self.gain


class LayerNorm(nn.Module):
    """Mean 0 and variance 1 over the last `dims` axes; gain and bias per last-axis entry."""

    def __init__(self, size: int, dims: int = 1) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size))
        self.dims = dims

    def forward(self, x: Tensor) -> Tensor:
        """Return x (… size), normalised."""
        return F.layer_norm(x, x.shape[-self.dims :]) * self.gain + self.bias


class BatchNorm(nn.Module):
    """Batch normalisation of the last axis over all the others."""

    def __init__(self, size: int, dims: int = 1) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(size)

    def forward(self, x: Tensor) -> Tensor:
        """Return x (… size), normalised."""
        return self.norm(x.reshape(-1, x.shape[-1])).reshape(x.shape)


NORMS = {"rms": RMSNorm, "layer": LayerNorm, "batch": BatchNorm}


class FrameConv(nn.Module):
    """An Nx1 convolution over the bins of each frame, an optional norm, leaky ReLU.

    (b n f c) to (b n f/stride c'): frames stay apart, unless `time_stride` of them become one.
    """

    def __init__(
        self, inputs: int, outputs: int, norm: str | None, stride: int = 1, time_stride: int = 1
    ) -> None:
        super().__init__()
        sizes = (time_stride, 3), (time_stride, stride), (0, 1)
        self.conv = nn.Conv2d(inputs, outputs, *sizes, bias=False)
        self.conv.to(memory_format=torch.channels_last)
        self.norm = NORMS[norm](outputs, dims=2) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        """Return (b n f' c') from x (b n f c)."""
        y = self.conv(rearrange(x, "b n f c -> b c n f"))
        if self.norm is not None:
            return F.leaky_relu(self.norm(rearrange(y, "b c n f -> b n f c")), 0.1)
        y = F.leaky_relu(y, 0.1, inplace=True)  # before the view: behind one, autograd copies
        return rearrange(y, "b c n f -> b n f c")


class BinLinear(nn.Linear):
    """A linear layer over the channels of each bin: (b n f c) to (b n f c')."""

    # For the few channels of full resolution a CPU's 1x1 convolution takes a seventh to a half of
    # the time of a matrix product, forward and backward; with 16 channels or more they are about
    # equal. Each frame counts as an image: in one thread PyTorch uses oneDNN for 16 images or more.
    def forward(self, x: Tensor) -> Tensor:
        """Return (b n f c') from x (b n f c)."""
        if x.device.type != "cpu" or torch.compiler.is_exporting():
            return super().forward(x)
        images = x.flatten(0, 1).mT.unsqueeze(2)  # (b·n c 1 f)
        y = F.conv2d(images, self.weight[:, :, None, None], self.bias)
        return y.squeeze(2).mT.unflatten(0, x.shape[:2])


class FrameUpsample(nn.Module):
    """Twice the bins: each bin's channels are mapped to those of two bins, of `frames` frames.

    A transposed convolution whose kernel is its stride, which in this layout is a reshape.
    """

    def __init__(self, inputs: int, outputs: int, frames: int = 1) -> None:
        super().__init__()
        self.frames = frames
        self.linear = BinLinear(inputs, 2 * frames * outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return (b n·frames 2f c') from x (b n f c)."""
        return rearrange(self.linear(x), "b n f (t k c) -> b (n t) (f k) c", t=self.frames, k=2)


class DepthwiseConv(nn.Module):
    """A convolution over frames for each feature on its own, symmetric about the frame."""

    def __init__(self, features: int, kernel: int) -> None:
        super().__init__()
        sizes = (kernel, 1), 1, (kernel // 2, 0)
        self.conv = nn.Conv2d(features, features, *sizes, groups=features)
        self.conv.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """Return (b n d) from x (b n d)."""
        y = self.conv(rearrange(x, "b n d -> b d n 1"))
        return rearrange(y, "b d n 1 -> b n d")


class Rotary(nn.Module):
    """Rotary position embedding (Su et al. 2021, arXiv 2104.09864) for any number of frames."""

    def __init__(self, head_features: int) -> None:
        super().__init__()
        # On the CPU even under torch.device("meta"): no file holds this buffer.
        exponent = torch.arange(0, head_features, 2, device="cpu") / head_features
        self.register_buffer("frequency", 10000.0**-exponent, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return x (b h n d), rotated by angles that grow with n: products depend on distance."""
        angle = torch.arange(x.shape[-2], device=x.device)[:, None] * self.frequency
        cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
        a, b = x.chunk(2, dim=-1)
        return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


class RelativeBias(nn.Module):
    """Relative attention logits q_i · e_(j-i) (Huang et al. 2018, arXiv 1809.04281), both ways.

    Distances beyond `max_distance` share the outermost embeddings, so that the table does not
    depend on the number of frames.
    """

    def __init__(self, heads: int, head_features: int, max_distance: int) -> None:
        super().__init__()
        self.max_distance = max_distance
        self.table = nn.Parameter(torch.empty(heads, 2 * max_distance + 1, head_features))
        nn.init.normal_(self.table, std=head_features**-0.5)

    def forward(self, q: Tensor) -> Tensor:
        """Return logits (b h n n) of queries q (b h n d), not yet divided by sqrt(d)."""
        n = q.shape[-2]
        distance = torch.arange(1 - n, n, device=q.device)
        rows = distance.clamp(-self.max_distance, self.max_distance) + self.max_distance
        return skew(q @ self.table[:, rows].transpose(-1, -2))


def skew(logits: Tensor) -> Tensor:
    """Turn columns that count distances into columns that count positions.

    Args:
        logits: (… n 2n-1), column k holds distance k - (n - 1).

    Returns:
        (… n n) with [i, j] taken from distance j - i.
    """
    n = logits.shape[-2]
    flat = F.pad(logits, (0, 1)).flatten(-2)  # rows of 2n: each row starts one further to the left
    flat = F.pad(flat, (0, n - 1)).unflatten(-1, (n + 1, 2 * n - 1))
    return flat[..., :n, n - 1 :]


class Attention(nn.Module):
    """Attention over frames; heads are frequency bands of the projected bins.

    Primer's three separate depthwise convolutions (So et al. 2021, arXiv 2109.08668) follow the
    projections of queries, keys and values, centred instead of causal.
    """

    def __init__(self, features: int, heads: int, position: str, max_distance: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v = (nn.Linear(features, features) for _ in range(3))
        self.q_conv, self.k_conv, self.v_conv = (DepthwiseConv(features, 3) for _ in range(3))
        self.out = nn.Linear(features, features)
        head = features // heads
        self.rotary = Rotary(head) if position == "rotary" else None
        self.bias = RelativeBias(heads, head, max_distance) if position == "relative" else None

    def forward(self, x: Tensor, memory: Tensor | None = None) -> Tensor:
        """Return (b n d) from frames x (b n d), attending to memory (b n d) or to themselves."""
        memory = x if memory is None else memory
        q, k, v = self.q_conv(self.q(x)), self.k_conv(self.k(memory)), self.v_conv(self.v(memory))
        q, k, v = (rearrange(y, "b n (h d) -> b h n d", h=self.heads) for y in (q, k, v))
        bias = None
        if self.rotary is not None:
            q, k = self.rotary(q), self.rotary(k)
        if self.bias is not None:
            bias = self.bias(q) * q.shape[-1] ** -0.5
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.out(rearrange(y, "b h n d -> b n (h d)"))


class CrossFrameAttention(nn.Module):
    """Attention over frames whose values are the frames' own bins, at full resolution.

    The output is a weighted average of each bin over the frames in which it is visible. The U-Net's
    attention has a fraction of the resolution and cannot give this. Where nothing is masked, the
    output is the part of a song that repeats, more often accompaniment than voice (REPET-SIM, Rafii
    and Pardo 2012, "Music/voice separation using the similarity matrix").

    Args:
        bins: bins of a frame.
        heads: bands of frequency, each with weights of its own; divides `bins`.
        key_features: features of a query and of a key.
    """

    def __init__(self, bins: int, heads: int, key_features: int = 32) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(bins, heads * key_features)
        self.k = nn.Linear(bins, heads * key_features)
        self.rotary = Rotary(key_features)
        for parameter in self.k.parameters():
            nn.init.normal_(parameter)
        for parameter in self.q.parameters():
            nn.init.zeros_(parameter)  # at first all frames have the same weight

    def forward(
        self, x: Tensor, masked: Tensor | None = None, visible: Tensor | None = None
    ) -> Tensor:
        """Average magnitudes, as logits, over frames.

        Args:
            x: (b n f c) magnitudes in [0, 1].
            masked: (b n f 1) boolean: bins that have no weight.
            visible: (b n) log probability that a frame is not masked; all alike if not given.

        Returns:
            (b n f c) logits; near `MEAN_MAGNITUDE_LOGIT` where a bin is masked in most frames.
        """
        logits = torch.logit(x, 1e-3).sub_(MEAN_MAGNITUDE_LOGIT)
        if masked is not None:
            weights = (~masked).to(x.dtype)
            logits = logits * weights
        # Of length 1: on wide inputs of size 1, each of Adam's steps would turn the weights over.
        token = F.normalize(torch.stack(logits.unbind(-1)).sum(0), dim=-1)  # faster than mean(-1)
        v = logits if masked is None else torch.cat([logits, weights], dim=-1)
        v = rearrange(v, "b n (h f) c -> b h n (f c)", h=self.heads)
        with torch.autocast(x.device.type, enabled=False):  # masks start from the output
            q = self.rotary(rearrange(self.q(token), "b n (h d) -> b h n d", h=self.heads))
            k = self.rotary(rearrange(self.k(token), "b n (h d) -> b h n d", h=self.heads))
            scale = q.shape[-1] ** -0.5
            if visible is not None:  # one more feature of the keys, which all queries ask for
                bias = (visible.float() / scale)[:, None, :, None].expand(-1, self.heads, -1, 1)
                q, k = F.pad(q, (0, 1), value=1.0), torch.cat([k, bias], dim=-1)
            y = F.scaled_dot_product_attention(q, k, v, scale=scale)
        y = rearrange(y, "b h n (f c) -> b n (h f) c", h=self.heads, f=x.shape[2] // self.heads)
        if masked is not None:
            y = y[..., :-1] / (y[..., -1:] + 1e-3)
        return MEAN_MAGNITUDE_LOGIT + y


class MaskedFrameDetector(nn.Module):
    """Detect from a spectrogram alone which of its frames were filled with ones.

    One linear map of a frame's bins, scaled to length 1: in a masked frame all bins have the same
    value above `MEAN_MAGNITUDE_LOGIT`. At first every frame has a probability of one half.
    """

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.linear = nn.Linear(bins, 1)
        nn.init.zeros_(self.linear.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (b n) of being masked for magnitudes x (b n f c) in [0, 1]."""
        logits = torch.logit(x, 1e-3).sub_(MEAN_MAGNITUDE_LOGIT).mean(-1)
        return self.linear(F.normalize(logits, dim=-1)).squeeze(-1).float()


class FeedForward(nn.Module):
    """Two linear layers around Primer's squared ReLU."""

    def __init__(self, features: int, ffn_dim: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(features, ffn_dim), nn.Linear(ffn_dim, features)

    def forward(self, x: Tensor) -> Tensor:
        """Return (b n d) from x (b n d)."""
        return self.down(F.relu(self.up(x)).square())

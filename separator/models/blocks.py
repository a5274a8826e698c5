"""Transformer blocks over frames: those of Primer-EZ and of the Evolved Transformer."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from separator.models.layers import NORMS, Attention, DepthwiseConv, FeedForward


@dataclass(frozen=True)
class BlockSizes:
    """Sizes that all blocks of one level share.

    Attributes:
        features: bins of the level, the width of a token.
        ffn_dim: width inside the feed-forward.
        heads: attention heads.
        norm: a key of NORMS.
        position: "rotary" or "relative".
        max_distance: frames after which relative distances are clipped.
        dropout: share of features dropped after each part.
    """

    features: int
    ffn_dim: int
    heads: int
    norm: str
    position: str
    max_distance: int
    dropout: float

    def attention(self) -> Attention:
        """Build an attention of these sizes."""
        return Attention(self.features, self.heads, self.position, self.max_distance)

    def feed_forward(self) -> FeedForward:
        """Make the feed-forward layers of a block."""
        return FeedForward(self.features, self.ffn_dim)

    def make_norm(self, features: int | None = None) -> nn.Module:
        """Build a norm over tokens of this many features, by default the tokens' own."""
        return NORMS[self.norm](features or self.features)


class PrimerEncoder(nn.Module):
    """Self-attention and feed-forward, each after a norm and added to its input."""

    def __init__(self, sizes: BlockSizes) -> None:
        super().__init__()
        self.norm1, self.attention = sizes.make_norm(), sizes.attention()
        self.norm2, self.feed_forward = sizes.make_norm(), sizes.feed_forward()
        self.dropout = nn.Dropout(sizes.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return (b n d) from frames x (b n d)."""
        x = x + self.dropout(self.attention(self.norm1(x)))
        return x + self.dropout(self.feed_forward(self.norm2(x)))


class PrimerDecoder(nn.Module):
    """Self-attention, attention to a memory, feed-forward."""

    def __init__(self, sizes: BlockSizes) -> None:
        super().__init__()
        self.norm1, self.attention = sizes.make_norm(), sizes.attention()
        self.norm2, self.memory_attention = sizes.make_norm(), sizes.attention()
        self.memory_norm = sizes.make_norm()
        self.norm3, self.feed_forward = sizes.make_norm(), sizes.feed_forward()
        self.dropout = nn.Dropout(sizes.dropout)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """Return (b n d) from frames x (b n d) and the encoder's, memory (b n d)."""
        x = x + self.dropout(self.attention(self.norm1(x)))
        x = x + self.dropout(self.memory_attention(self.norm2(x), self.memory_norm(memory)))
        return x + self.dropout(self.feed_forward(self.norm3(x)))


class EvolvedEncoder(nn.Module):
    """The Evolved Transformer's encoder block (So et al. 2019, arXiv 1901.11117), Primer's parts.

    A gated linear unit; a wide branch beside a temporal convolution, joined by a grouped
    convolution over 9 frames; self-attention; a squared-ReLU feed-forward.
    """

    def __init__(self, sizes: BlockSizes) -> None:
        super().__init__()
        d, ffn_dim = sizes.features, sizes.ffn_dim
        self.norm1, self.gate = sizes.make_norm(), nn.Linear(d, 2 * d)
        self.norm2, self.wide = sizes.make_norm(), nn.Linear(d, ffn_dim)
        self.narrow = nn.Conv1d(d, d // 2, 3, padding=1)
        self.norm_branches = sizes.make_norm(ffn_dim)
        self.mix = nn.Conv1d(ffn_dim, ffn_dim // 2, 9, padding=4, groups=ffn_dim // 2)
        self.join = nn.Linear(ffn_dim // 2, d)
        self.norm3, self.attention = sizes.make_norm(), sizes.attention()
        self.norm4, self.feed_forward = sizes.make_norm(), sizes.feed_forward()
        self.dropout = nn.Dropout(sizes.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return (b n d) from frames x (b n d)."""
        x = x + self.dropout(F.glu(self.gate(self.norm1(x))))
        y = self.norm2(x)
        narrow = self.narrow(y.transpose(1, 2)).transpose(1, 2)
        wide = F.relu(self.wide(y))
        y = self.norm_branches(wide + F.pad(narrow, (0, wide.shape[-1] - narrow.shape[-1])))
        y = self.join(self.mix(y.transpose(1, 2)).transpose(1, 2))
        x = x + self.dropout(y)
        x = x + self.dropout(self.attention(self.norm3(x)))
        return x + self.dropout(self.feed_forward(self.norm4(x)))


class EvolvedDecoder(nn.Module):
    """The Evolved Transformer's decoder block; its memory is the encoder's output at this depth."""

    def __init__(self, sizes: BlockSizes) -> None:
        super().__init__()
        d, ffn_dim = sizes.features, sizes.ffn_dim
        self.memory_norm = sizes.make_norm()
        self.norm1 = sizes.make_norm()
        self.attention1, self.memory_attention1 = sizes.attention(), sizes.attention()
        self.norm2 = sizes.make_norm()
        self.left = nn.Sequential(DepthwiseConv(d, 11), nn.Linear(d, ffn_dim // 2), nn.ReLU())
        self.right = nn.Sequential(DepthwiseConv(d, 7), nn.Linear(d, ffn_dim // 4))
        self.norm_branches = sizes.make_norm(ffn_dim // 2)
        self.join = nn.Sequential(DepthwiseConv(ffn_dim // 2, 7), nn.Linear(ffn_dim // 2, d))
        self.norm3, self.attention2 = sizes.make_norm(), sizes.attention()
        self.norm4, self.memory_attention2 = sizes.make_norm(), sizes.attention()
        self.norm5 = sizes.make_norm()
        self.feed_forward = nn.Sequential(nn.Linear(d, ffn_dim), nn.SiLU(), nn.Linear(ffn_dim, d))
        self.dropout = nn.Dropout(sizes.dropout)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """Return (b n d) from frames x (b n d) and the encoder's, memory (b n d)."""
        memory = self.memory_norm(memory)
        y = self.norm1(x)
        x = x + self.dropout(self.attention1(y) + self.memory_attention1(y, memory))
        y = self.norm2(x)
        left, right = self.left(y), self.right(y)
        y = self.norm_branches(left + F.pad(right, (0, left.shape[-1] - right.shape[-1])))
        x = x + self.dropout(self.join(y))
        x = x + self.dropout(self.attention2(self.norm3(x)))
        x = x + self.dropout(self.memory_attention2(self.norm4(x), memory))
        return x + self.dropout(self.feed_forward(self.norm5(x)))


class Tokens(nn.Module):
    """Densely connected transformer blocks: each sees all channels and adds one.

    (b n f c) to (b n f c + blocks). The bottleneck to one channel is linear.
    """

    def __init__(
        self, channels: int, blocks: list[nn.Module], memory: int, recompute: bool = False
    ) -> None:
        super().__init__()
        self.blocks, self.recompute = nn.ModuleList(blocks), recompute
        self.squeeze = nn.ModuleList(nn.Linear(channels + i, 1) for i in range(len(blocks)))
        self.squeeze_memory = nn.ModuleList(nn.Linear(memory, 1) for _ in blocks if memory)

    def forward(self, x: Tensor, memory: Tensor | None = None) -> Tensor:
        """Return (b n f c + blocks) from x (b n f c) and the encoder's, memory (b n f c')."""
        for i, block in enumerate(self.blocks):
            seen = [self.squeeze[i](x).squeeze(-1)]
            if memory is not None:
                seen.append(self.squeeze_memory[i](memory).squeeze(-1))
            if self.recompute and torch.is_grad_enabled():
                token = checkpoint(block, *seen, use_reentrant=False)
            else:
                token = block(*seen)
            x = torch.cat([x, token.unsqueeze(-1)], dim=-1)
        return x


BLOCKS = {"primer": (PrimerEncoder, PrimerDecoder), "evolved": (EvolvedEncoder, EvolvedDecoder)}

"""Transformer cells over frames: Primer-EZ, and the Evolved Transformer's as the seed uses them."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from separator.models.layers import NORMS, Attention, DepthwiseConv, FeedForward


@dataclass(frozen=True)
class CellShape:
    """Sizes that all cells of one level share.

    Attributes:
        features: bins of the level, the width of a token.
        hidden: width inside the feed-forward.
        heads: attention heads.
        norm: a key of NORMS.
        position: "rotary" or "relative".
        max_distance: frames after which relative distances are clipped.
        dropout: share of features dropped after each part.
    """

    features: int
    hidden: int
    heads: int
    norm: str
    position: str
    max_distance: int
    dropout: float

    def attention(self) -> Attention:
        """Build an attention of these sizes."""
        return Attention(self.features, self.heads, self.position, self.max_distance)

    def make_norm(self, features: int | None = None) -> nn.Module:
        """Build a norm over tokens."""
        return NORMS[self.norm](features or self.features)


class PrimerEncoder(nn.Module):
    """Self-attention and feed-forward, each after a norm and added to its input."""

    def __init__(self, shape: CellShape) -> None:
        super().__init__()
        self.norm1, self.attention = shape.make_norm(), shape.attention()
        self.norm2, self.feed_forward = shape.make_norm(), FeedForward(shape.features, shape.hidden)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map frames (b n d) to (b n d)."""
        x = x + self.dropout(self.attention(self.norm1(x)))
        return x + self.dropout(self.feed_forward(self.norm2(x)))


class PrimerDecoder(nn.Module):
    """Self-attention, attention to a memory, feed-forward."""

    def __init__(self, shape: CellShape) -> None:
        super().__init__()
        self.norm1, self.attention = shape.make_norm(), shape.attention()
        self.norm2, self.memory_attention = shape.make_norm(), shape.attention()
        self.memory_norm = shape.make_norm()
        self.norm3, self.feed_forward = shape.make_norm(), FeedForward(shape.features, shape.hidden)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """Map frames (b n d) and the memory's (b n d) to (b n d)."""
        x = x + self.dropout(self.attention(self.norm1(x)))
        x = x + self.dropout(self.memory_attention(self.norm2(x), self.memory_norm(memory)))
        return x + self.dropout(self.feed_forward(self.norm3(x)))


class EvolvedEncoder(nn.Module):
    """The Evolved Transformer's encoder cell (So et al. 2019, arXiv 1901.11117), Primer's parts.

    A gated linear unit; a wide branch beside a temporal convolution, joined by a grouped
    convolution over 9 frames; self-attention; a squared-ReLU feed-forward.
    """

    def __init__(self, shape: CellShape) -> None:
        super().__init__()
        d, hidden = shape.features, shape.hidden
        self.norm1, self.gate = shape.make_norm(), nn.Linear(d, 2 * d)
        self.norm2, self.wide = shape.make_norm(), nn.Linear(d, hidden)
        self.narrow = nn.Conv1d(d, d // 2, 3, padding=1)
        self.norm_branches = shape.make_norm(hidden)
        self.mix = nn.Conv1d(hidden, hidden // 2, 9, padding=4, groups=hidden // 2)
        self.join = nn.Linear(hidden // 2, d)
        self.norm3, self.attention = shape.make_norm(), shape.attention()
        self.norm4, self.feed_forward = shape.make_norm(), FeedForward(d, hidden)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map frames (b n d) to (b n d)."""
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
    """The Evolved Transformer's decoder cell with the level's skip as memory."""

    def __init__(self, shape: CellShape) -> None:
        super().__init__()
        d, hidden = shape.features, shape.hidden
        self.memory_norm = shape.make_norm()
        self.norm1 = shape.make_norm()
        self.attention1, self.memory_attention1 = shape.attention(), shape.attention()
        self.norm2 = shape.make_norm()
        self.left = nn.Sequential(DepthwiseConv(d, 11), nn.Linear(d, hidden // 2), nn.ReLU())
        self.right = nn.Sequential(DepthwiseConv(d, 7), nn.Linear(d, hidden // 4))
        self.norm_branches = shape.make_norm(hidden // 2)
        self.join = nn.Sequential(DepthwiseConv(hidden // 2, 7), nn.Linear(hidden // 2, d))
        self.norm3, self.attention2 = shape.make_norm(), shape.attention()
        self.norm4, self.memory_attention2 = shape.make_norm(), shape.attention()
        self.norm5 = shape.make_norm()
        self.feed_forward = nn.Sequential(nn.Linear(d, hidden), nn.SiLU(), nn.Linear(hidden, d))
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """Map frames (b n d) and the memory's (b n d) to (b n d)."""
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
    """Densely connected transformer cells: each sees all channels and adds one.

    (b n f c) to (b n f c + blocks). The bottleneck to one channel is linear.
    """

    def __init__(
        self, channels: int, cells: list[nn.Module], memory: int, recompute: bool = False
    ) -> None:
        super().__init__()
        self.cells, self.recompute = nn.ModuleList(cells), recompute
        self.squeeze = nn.ModuleList(nn.Linear(channels + i, 1) for i in range(len(cells)))
        self.squeeze_memory = nn.ModuleList(nn.Linear(memory, 1) for _ in cells if memory)

    def forward(self, x: Tensor, memory: Tensor | None = None) -> Tensor:
        """Map (b n f c), and the memory's (b n f c'), to (b n f c + blocks)."""
        for i, cell in enumerate(self.cells):
            seen = [self.squeeze[i](x).squeeze(-1)]
            if memory is not None:
                seen.append(self.squeeze_memory[i](memory).squeeze(-1))
            if self.recompute and torch.is_grad_enabled():
                token = checkpoint(cell, *seen, use_reentrant=False)
            else:
                token = cell(*seen)
            x = torch.cat([x, token.unsqueeze(-1)], dim=-1)
        return x


CELLS = {
    "primer": (PrimerEncoder, PrimerDecoder),
    "evolved": (EvolvedEncoder, EvolvedDecoder),
}

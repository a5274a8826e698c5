"""Cells: frame groups, split into frequency bands or not, that are hidden or kept as one word."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Grid:
    """How a spectrogram is cut into cells.

    Attributes:
        bins: bins of the spectrogram, the Nyquist bin included; it goes with the topmost band.
        frames: frames of the spectrogram.
        bands: cells on top of each other, which divide `bins - 1`; 1 makes whole frames.
        size: frames in a cell; the last cell of a row may be cut short.
    """

    bins: int
    frames: int
    bands: int
    size: int

    @property
    def groups(self) -> int:
        """Cells in a row."""
        return -(-self.frames // self.size)

    @property
    def cells(self) -> int:
        """Cells in all."""
        return self.bands * self.groups

    def expand(self, cells: Tensor) -> Tensor:
        """Spread one value for each cell (b k m) over the spectrogram, (b 1 f n).

        Whole frames give (b 1 1 n), which lies over (b c f n) as well. Bins are innermost in
        memory, as in spectrograms.
        """
        wide = cells.mT.repeat_interleave(self.size, dim=1)[:, None, : self.frames]
        if self.bands == 1:
            return wide.mT
        tall = wide.repeat_interleave((self.bins - 1) // self.bands, dim=3)
        return torch.cat([tall, tall[..., -1:]], dim=3).mT

    def frames_of(self, cells: Tensor) -> Tensor:
        """Mark the frames in which any of the cells lies: boolean (b k m) to boolean (b n)."""
        return cells.any(dim=1).repeat_interleave(self.size, dim=1)[:, : self.frames]

    def deviation(self, values: Tensor) -> Tensor:
        """Mean absolute deviation within each cell: (b c f n) to (b k m).

        The Nyquist bin counts for nothing. Values above the mean deviate by as much as those below.
        """
        parts = values[:, :, :-1].mT.unflatten(3, (self.bands, -1))  # (b c n k f)
        centre = group_mean(parts.mean(dim=4).mean(dim=1).mT, self.size)
        wide = centre.mT.repeat_interleave(self.size, dim=1)[:, None, : self.frames, :, None]
        above = torch.maximum(parts, wide).mean(dim=4).mean(dim=1).mT
        return 2 * (group_mean(above, self.size) - centre).clamp(min=0)


def channel_mean(values: Tensor) -> Tensor:
    """Mean over channels, (b c f n) to (b 1 f n), of one channel itself.

    One pass for each: over so few, mean() is several times slower.
    """
    mean, *others = values.split(1, dim=1)
    for number, channel in enumerate(others, start=2):
        mean = torch.lerp(mean, channel, 1 / number)
    return mean


def lowest(scores: Tensor, number: Tensor) -> Tensor:
    """Mark the lowest scores of each row, as many as `number` (b) says: (b l) to boolean (b l)."""
    order = scores.argsort(dim=1)
    place = torch.arange(scores.shape[1]).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, place) < number[:, None]


def wanted(share: float, cells: int, batch: int, generator: torch.Generator) -> Tensor:
    """Draw how many cells to choose in each crop: whole numbers (b) whose mean is share · cells.

    The fraction is rounded up as often as it says: 15 % of 9 groups are 1 or 2. At least one is
    chosen and one is left, for without context there is nothing to learn. Independent draws for
    each cell would choose none of 16 at 15 % in 7 % of the crops.
    """
    draw = torch.rand(batch, generator=generator)
    return (share * cells + draw).long().clamp(max=cells - 1).clamp(min=1)


def first_of_run(values: Tensor, chosen: Tensor) -> Tensor:
    """Give every cell of a run of chosen ones its first cell's value: (b k m), boolean (b k m)."""
    place = torch.arange(chosen.shape[-1])
    begins = chosen & ~torch.cat([torch.zeros_like(chosen[..., :1]), chosen[..., :-1]], dim=-1)
    first = torch.where(begins, place, 0).cummax(dim=-1).values
    return values.gather(-1, first)


def group_mean(values: Tensor, size: int) -> Tensor:
    """Mean over groups of frames, the last of which may be cut short: (… n) to (… m)."""
    missing = -values.shape[-1] % size
    sums = F.pad(values, (0, missing)).unflatten(-1, (-1, size)).sum(-1)
    counts = values.new_full((sums.shape[-1],), size)
    counts[-1] -= missing
    return sums / counts

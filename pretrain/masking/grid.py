"""Patches: frame groups, split into frequency bands or not, that are masked or kept as a whole."""

from dataclasses import dataclass

from separator.pretrain.lazy_torch import F, Generator, Tensor, torch


@dataclass(frozen=True)
class PatchGrid:
    """The division of a spectrogram into patches.

    Attributes:
        bins: bins of the spectrogram, the Nyquist bin included; it goes with the topmost band.
        frames: frames of the spectrogram.
        bands: patches on top of each other, which divide `bins - 1`; 1 makes whole frames.
        size: frames in a patch; the last patch of a row may be cut short.
    """

    bins: int
    frames: int
    bands: int
    size: int

    @property
    def groups(self) -> int:
        """Patches in a row."""
        return -(-self.frames // self.size)

    @property
    def patches(self) -> int:
        """Patches in all."""
        return self.bands * self.groups

    def expand(self, patches: Tensor) -> Tensor:
        """Repeat the value of each patch over its bins and frames.

        Args:
            patches: (b k m).

        Returns:
            (b 1 f n), or (b 1 1 n) where patches are whole frames; both broadcast to (b c f n).
            Bins are innermost in memory, as in spectrograms.
        """
        wide = patches.mT.repeat_interleave(self.size, dim=1)[:, None, : self.frames]
        if self.bands == 1:
            return wide.mT
        tall = wide.repeat_interleave((self.bins - 1) // self.bands, dim=3)
        return torch.cat([tall, tall[..., -1:]], dim=3).mT

    def frames_of(self, patches: Tensor) -> Tensor:
        """Mark the frames that have any of the patches.

        Args:
            patches: boolean (b k m).

        Returns:
            Boolean (b n).
        """
        return patches.any(dim=1).repeat_interleave(self.size, dim=1)[:, : self.frames]

    def deviation(self, values: Tensor) -> Tensor:
        """Compute the mean absolute deviation within each patch, without the Nyquist bin.

        The values above the mean deviate by as much as those below it, so only the former are
        summed, and the sum is doubled.

        Args:
            values: (b c f n).

        Returns:
            (b k m).
        """
        parts = values[:, :, :-1].mT.unflatten(3, (self.bands, -1))  # (b c n k f)
        centre = group_mean(parts.mean(dim=4).mean(dim=1).mT, self.size)
        wide = centre.mT.repeat_interleave(self.size, dim=1)[:, None, : self.frames, :, None]
        above = torch.maximum(parts, wide).mean(dim=4).mean(dim=1).mT
        return 2 * (group_mean(above, self.size) - centre).clamp(min=0)


def channel_mean(values: Tensor) -> Tensor:
    """Compute the mean over channels.

    It adds one channel at a time: over so few channels, mean() is several times slower.

    Args:
        values: (b c f n).

    Returns:
        (b 1 f n); of one channel, that channel itself.
    """
    mean, *others = values.split(1, dim=1)
    for number, channel in enumerate(others, start=2):
        mean = torch.lerp(mean, channel, 1 / number)
    return mean


def lowest(scores: Tensor, number: Tensor) -> Tensor:
    """Mark the lowest scores of each row.

    Args:
        scores: (b l).
        number: (b) how many to mark in each row.

    Returns:
        Boolean (b l).
    """
    order = scores.argsort(dim=1)
    place = torch.arange(scores.shape[1]).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, place) < number[:, None]


def wanted(share: float, patches: int, batch: int, generator: Generator) -> Tensor:
    """Draw how many patches to choose in each crop.

    The number is rounded up with the probability of its fraction: 15 % of 9 groups are 1 or 2. At
    least one patch is chosen and at least one is left, for without context there is nothing to
    learn. Independent draws for each patch would choose none of 16 at 15 % in 7 % of the crops.

    Args:
        share: part of the patches, in [0, 1].
        patches: number of patches in a crop.
        batch: b, number of crops.
        generator: on the CPU.

    Returns:
        Integers (b) whose mean is share · patches.
    """
    draw = torch.rand(batch, generator=generator)
    return (share * patches + draw).long().clamp(max=patches - 1).clamp(min=1)


def first_of_run(values: Tensor, chosen: Tensor) -> Tensor:
    """Give every chosen patch the value of the first patch of its run in time.

    Args:
        values: (b k m).
        chosen: boolean (b k m).

    Returns:
        (b k m); patches that are not chosen have any value.
    """
    place = torch.arange(chosen.shape[-1])
    begins = chosen & ~torch.cat([torch.zeros_like(chosen[..., :1]), chosen[..., :-1]], dim=-1)
    first = torch.where(begins, place, 0).cummax(dim=-1).values
    return values.gather(-1, first)


def group_mean(values: Tensor, size: int) -> Tensor:
    """Compute the mean over groups of frames; the last group may be shorter.

    Args:
        values: (… n).
        size: frames in a group.

    Returns:
        (… m), m groups.
    """
    missing = -values.shape[-1] % size
    sums = F.pad(values, (0, missing)).unflatten(-1, (-1, size)).sum(-1)
    counts = values.new_full((sums.shape[-1],), size)
    counts[-1] -= missing
    return sums / counts


def masked_mean(values: Tensor, where: Tensor) -> Tensor:
    """Return the mean of values where a boolean holds; 0, with a graph, where it never does."""
    return (values * where).sum() / where.sum().clamp(min=1)

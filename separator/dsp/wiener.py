"""A stereo Wiener filter: it passes the directions of the stereo image in which a stem is.

The filter may be computed from one spectrogram and applied to another one of the same sound with a
smaller hop: where the windows overlap more, the errors at their edges average out.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from separator.dsp.config import COVARIANCE_SHRINKAGE, POWER_FLOOR


def wiener(
    spectrogram: Tensor, mask: Tensor, target: Tensor | None = None, finer: int = 1
) -> Tensor:
    """Estimate one of two stems with a stereo Wiener filter (Duong et al. 2010, arXiv 0912.0171).

    A stem has a power v in each bin and frame (the mask's part of the mixture's) and one spatial
    covariance R in each bin (that of its masked frames). The filter v R (v R + v' R')⁻¹ passes the
    directions in which this stem outweighs the other one; where R = R', as in mono, it is the mask
    itself. With 1 - mask it gives the other stem: the two add up to the mixture.

    Args:
        spectrogram: (b 2 f n) complex mixture, scaled to about 1.
        mask: (b 2 f n) in [0, 1], the stem's part of the magnitudes.
        target: (b 2 f m) the spectrogram to filter, by default the first one.
        finer: the first one's hop by the target's, so that m is (n - 1) · finer + 1; between
            frames, powers are interpolated.

    Returns:
        (b 2 f m), the stem.
    """
    mixture, masks = spectrogram.mT, mask.mT.unbind(1)  # (b n f): how transforms lie in memory
    powers, cross = _moments(mixture)
    part = _power(masks, powers) / (powers[0] + powers[1])  # v / (v + v')
    if target is not None:
        mixture = target.mT
    if finer > 1:
        part = _interpolate(part, finer)
    stem = _covariance(powers, cross, masks)
    other = _covariance(powers, cross, [1 - m for m in masks])
    # In the basis in which both are diagonal the filter is a mask for each of two directions:
    # there is no inverse in each frame, and of what is left one direction tells the other.
    # On the CPU, since not every device decomposes matrices.
    lower = torch.linalg.cholesky(other.cpu())
    inverse = torch.linalg.inv(lower)
    ratio, turn = torch.linalg.eigh(inverse @ stem.cpu() @ inverse.mH)
    # the constants of a bin beside each other in memory, as bins are: others take twice as long
    to = (turn.mH @ inverse)[..., 0, :].mT.contiguous().to(cross).unbind(1)
    back = (lower @ turn)[..., 0].mT.contiguous().to(cross)
    ratios = ratio.mT.contiguous()[:, :, None].to(part).unbind(1)
    first, second = (part * r / (1 + part * (r - 1)) for r in ratios)
    left, right = mixture.unbind(1)
    along = (to[0][:, None] * left).addcmul_(to[1][:, None], right).mul_(first.sub_(second))
    result = second[:, None] * mixture
    return result.addcmul_(back[:, :, None], along[:, None]).mT


def wiener_stems(
    spectrogram: Tensor, masks: Tensor, target: Tensor | None = None, finer: int = 1
) -> Tensor:
    """Estimate any number of stems with the filter of `wiener`, v R (Σ v R)⁻¹ for each.

    Args:
        spectrogram: (b 2 f n) complex mixture, scaled to about 1.
        masks: (b s 2 f n) in [0, 1], the stems' parts of the magnitudes, which add up to 1.
        target: (b 2 f m) the spectrogram to filter, by default the first one.
        finer: the first one's hop by the target's, so that m is (n - 1) · finer + 1; between
            frames, powers are interpolated.

    Returns:
        (b s 2 f m), the stems, which add up to the target.
    """
    powers, cross = _moments(spectrogram.mT)
    channels = [mask.unbind(1) for mask in masks.mT.unbind(1)]
    shares = torch.stack([_power(pair, powers) for pair in channels], dim=1)
    shares = shares / shares.sum(dim=1, keepdim=True)  # a loud frame rules no quiet neighbour
    mixture = spectrogram.mT if target is None else target.mT
    if finer > 1:
        shares = _interpolate(shares, finer)
    left, right = mixture.unbind(1)
    stems = []  # of each, the entries of v R: left, right, and left by right's conjugate
    for pair, share in zip(channels, shares.unbind(1), strict=True):
        matrix = _covariance(powers, cross, pair)[:, None]
        parts = matrix[..., 0, 0].real, matrix[..., 1, 1].real, matrix[..., 0, 1]
        stems.append([share * part for part in parts])
    first, second, both = (torch.stack(parts).sum(0) for parts in zip(*stems, strict=True))
    # the inverse of the 2x2 sum, times the mixture
    scale = 1 / (first * second - both.real.square() - both.imag.square())
    x = (second * left - both * right) * scale
    y = (first * right - both.conj() * left) * scale
    estimates = [torch.stack([a * x + c * y, c.conj() * x + b * y], 1) for a, b, c in stems]
    return torch.stack(estimates, dim=1).mT


def _moments(mixture: Tensor) -> tuple[list[Tensor], Tensor]:
    """Return both channels' power, never 0, and left times right's conjugate, of (b 2 n f)."""
    left, right = mixture.unbind(1)
    powers = [x.real.square() + x.imag.square() + POWER_FLOOR for x in (left, right)]
    return powers, left * right.conj()


def _power(masks: Sequence[Tensor], powers: Sequence[Tensor]) -> Tensor:
    """Return the power v of masked channels."""
    return torch.addcmul(masks[0] * powers[0], masks[1], powers[1])


def _interpolate(values: Tensor, finer: int) -> Tensor:
    """Interpolate (… n f) linearly to (… m f), m = (n - 1) · finer + 1."""
    steps = torch.arange(finer, device=values.device)[:, None] / finer
    between = torch.lerp(values[..., :-1, None, :], values[..., 1:, None, :], steps)
    return torch.cat([between.flatten(-3, -2), values[..., -1:, :]], dim=-2)


def _covariance(powers: Sequence[Tensor], cross: Tensor, masks: Sequence[Tensor]) -> Tensor:
    """Spatial covariance of masked channels, with a trace of 2: (b f 2 2).

    From each channel's power and mask (b n f), and left times right's conjugate (b n f).
    """
    left, right = ((m.square() * p).mean(1) for m, p in zip(masks, powers, strict=True))
    both = masks[0] * masks[1]
    across = torch.complex((both * cross.real).mean(1), (both * cross.imag).mean(1))
    rows = [left.to(cross), across, across.conj(), right.to(cross)]
    matrix = torch.stack(rows, dim=-1).unflatten(-1, (2, 2))
    power = (left + right)[..., None, None] / 2 + POWER_FLOOR
    identity = torch.eye(2, device=matrix.device)
    return (matrix / power + COVARIANCE_SHRINKAGE * identity) / (1 + COVARIANCE_SHRINKAGE)

"""What two channels tell that their magnitudes do not: where in the stereo image a stem is."""

from collections.abc import Sequence

import torch
from torch import Tensor

COVARIANCE_SHRINKAGE = 0.1  # weight of the identity beside a stem's measured covariance
TINY = 1e-12  # 120 dB below full scale, as a power


def wiener(spectrogram: Tensor, mask: Tensor) -> Tensor:
    """Estimate one of two stems with a stereo Wiener filter (Duong et al. 2010, arXiv 0912.0171).

    A stem has a power v in each bin and frame (the mask's part of the mixture's) and one spatial
    covariance R in each bin (that of its masked frames). The filter v R (v R + v' R')⁻¹ passes the
    directions in which this stem outweighs the other one; where R = R', as in mono, it is the mask
    itself. With 1 - mask it gives the other stem: the two add up to the mixture.

    Args:
        spectrogram: (b 2 f n) complex mixture, scaled to about 1.
        mask: (b 2 f n) in [0, 1], the stem's part of the magnitudes.

    Returns:
        (b 2 f n), the stem.
    """
    mixture, masks = spectrogram.mT, mask.mT.unbind(1)  # (b n f): how transforms lie in memory
    left, right = mixture.unbind(1)
    powers = [x.real.square() + x.imag.square() for x in (left, right)]
    masked = torch.addcmul(masks[0] * powers[0], masks[1], powers[1])
    part = (masked + TINY) / (powers[0] + powers[1] + 2 * TINY)  # v / (v + v')
    cross = left * right.conj()
    stem = _covariance(powers, cross, masks)
    other = _covariance(powers, cross, [1 - m for m in masks])
    # In the basis in which both are diagonal the filter is a mask for each of two directions:
    # there is no inverse in each frame, and of what is left one direction tells the other.
    # On the CPU, since not every device decomposes matrices.
    lower = torch.linalg.cholesky(other.cpu())
    inverse = torch.linalg.inv(lower)
    ratio, turn = torch.linalg.eigh(inverse @ stem.cpu() @ inverse.mH)
    to, back = (turn.mH @ inverse)[..., 0, :].to(cross), (lower @ turn)[..., 0].to(cross)
    first, second = (part * r / (1 + part * (r - 1)) for r in ratio[:, None].to(part).unbind(-1))
    along = torch.addcmul(to[:, None, :, 0] * left, to[:, None, :, 1], right).mul_(first - second)
    result = second[:, None] * mixture
    return result.addcmul_(back.mT[:, :, None], along[:, None]).mT


def _covariance(powers: Sequence[Tensor], cross: Tensor, masks: Sequence[Tensor]) -> Tensor:
    """Spatial covariance of masked channels, with a trace of 2: (b f 2 2).

    From each channel's power and mask (b n f), and left times right's conjugate (b n f).
    """
    left, right = ((m.square() * p).mean(1) for m, p in zip(masks, powers, strict=True))
    both = masks[0] * masks[1]
    across = torch.complex((both * cross.real).mean(1), (both * cross.imag).mean(1))
    rows = [left.to(cross), across, across.conj(), right.to(cross)]
    matrix = torch.stack(rows, dim=-1).unflatten(-1, (2, 2))
    power = (left + right)[..., None, None] / 2 + TINY
    identity = torch.eye(2, device=matrix.device)
    return (matrix / power + COVARIANCE_SHRINKAGE * identity) / (1 + COVARIANCE_SHRINKAGE)

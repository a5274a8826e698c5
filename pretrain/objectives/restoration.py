"""The masked error, and the trivial answers that it is compared with."""

import torch
from torch import Tensor

from separator.pretrain.masking.corruption import KINDS, Corrupted
from separator.pretrain.masking.grid import channel_mean


def masked_error(
    restored: Tensor,
    target: Tensor,
    corrupted: Corrupted,
    masked_weight: float,
    unmasked_weight: float,
    squared: bool = False,
) -> dict[str, Tensor]:
    """Compute the weighted error on chosen and on other patches (as in HuBERT, arXiv 2106.07447).

    Each crop's mean counts alike, so the loss does not depend on how crops are spread over
    micro-batches and ranks.

    Args:
        restored: (b c f n) the model's answer.
        target: (b c f n) the uncorrupted magnitudes.
        corrupted: where patches were chosen.
        masked_weight: weight of the chosen patches' mean error.
        unmasked_weight: weight of the others'.
        squared: mean squared error instead of L1.

    Returns:
        "loss" and its parts, the mean error of each kind of chosen patch, NaN where there is none,
        and the part of the chosen patches' whole error that is of this kind.
    """
    error = restored - target
    error = channel_mean(error.square() if squared else error.abs())
    if corrupted.kinds.shape[2] == 1:
        error = error.mean(dim=2, keepdim=True)
    where = corrupted.chosen, corrupted.untouched
    masked, unmasked = (_crop_mean(error, patches) for patches in where)
    scalars = {"loss": masked_weight * masked + unmasked_weight * unmasked}
    scalars |= {"loss/masked": masked.detach(), "loss/unmasked": unmasked.detach()}
    whole = (error * corrupted.chosen).sum().clamp(min=1e-12)
    for index, kind in enumerate(KINDS):
        where = corrupted.kinds == index
        amount = (error * where).sum().detach()
        scalars[f"loss/{kind}"] = amount / where.sum()
        scalars[f"loss_share/{kind}"] = amount / whole.detach()
    return scalars


def _crop_mean(error: Tensor, where: Tensor) -> Tensor:
    """Mean over the patches of each crop, then over crops: (b 1 f n) to a scalar.

    A crop without such patches counts as 0, so micro-batches and ranks give the same as one batch.
    """
    return ((error * where).sum(dim=(1, 2, 3)) / where.sum(dim=(1, 2, 3)).clamp(min=1)).mean()


def baselines(target: Tensor, chosen: Tensor) -> dict[str, Tensor]:
    """Compute answers that need no learning, for the masked patches.

    Args:
        target: (b c f n) the uncorrupted magnitudes.
        chosen: boolean (b 1 f n) or (b 1 1 n), the masked patches.

    Returns:
        (b c f n) for each of "zero", "bin_mean" (the mean of the crop's visible frames in each bin
        and channel) and "interpolation" (linear between the nearest visible frames; beyond the
        outermost one, its value). Of bins with no visible frame both say 0.
    """
    visible = (~chosen).to(target.dtype)
    mean = (target * visible).sum(-1, keepdim=True) / visible.sum(-1, keepdim=True).clamp(min=1)
    return {
        "zero": torch.zeros_like(target),
        "bin_mean": mean.expand_as(target),
        "interpolation": _interpolated(target, chosen),
    }


def _interpolated(target: Tensor, masked: Tensor) -> Tensor:
    """Interpolate (b c f n) linearly across masked patches, boolean (b 1 f n) or (b 1 1 n)."""
    frames = target.shape[-1]
    position = torch.arange(frames, device=target.device).expand_as(masked)
    before = torch.where(masked, -1, position).cummax(dim=-1).values
    after = torch.where(masked, frames, position).flip(-1).cummin(dim=-1).values.flip(-1)
    left = torch.where(before < 0, after, before).clamp(0, frames - 1)
    right = torch.where(after >= frames, before, after).clamp(0, frames - 1)
    share = (position - left) / (right - left).clamp(min=1)
    first, second = (target.gather(-1, frame.expand_as(target)) for frame in (left, right))
    line = first + (second - first) * share.to(target.dtype).clamp(0, 1)
    return torch.where(masked.all(dim=-1, keepdim=True), 0.0, line)

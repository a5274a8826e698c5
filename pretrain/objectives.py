"""The pretext task's loss, and the trivial answers it is measured against."""

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
    """Error on chosen and on other cells, weighted (HuBERT's two knobs, arXiv 2106.07447).

    Each crop's mean counts alike, so the loss does not depend on how crops are spread over
    micro-batches and ranks.

    Args:
        restored: (b c f n) the model's answer.
        target: (b c f n) the uncorrupted magnitudes.
        corrupted: where cells were chosen.
        masked_weight: weight of the chosen cells' mean error.
        unmasked_weight: weight of the others'.
        squared: mean squared error instead of L1.

    Returns:
        "loss" and its parts, the mean error of each kind of chosen cell, NaN where there is none,
        and the part of the chosen cells' whole error that is of this kind.
    """
    error = restored - target
    error = channel_mean(error.square() if squared else error.abs())
    if corrupted.kinds.shape[2] == 1:
        error = error.mean(dim=2, keepdim=True)
    where = corrupted.chosen, corrupted.untouched
    masked, unmasked = (_crop_mean(error, at) for at in where)
    scalars = {"loss": masked_weight * masked + unmasked_weight * unmasked}
    scalars |= {"loss/masked": masked.detach(), "loss/unmasked": unmasked.detach()}
    whole = (error * corrupted.chosen).sum().clamp(min=1e-12)
    for index, kind in enumerate(KINDS):
        where = corrupted.kinds == index
        amount = (error * where).sum().detach()
        scalars[f"loss/{kind}"] = amount / where.sum()
        scalars[f"loss_share/{kind}"] = amount / whole.detach()
    return scalars


def masked_mean(values: Tensor, where: Tensor) -> Tensor:
    """Mean of values where a boolean of their shape holds; 0, with a graph, where it never does."""
    return (values * where).sum() / where.sum().clamp(min=1)


def _crop_mean(error: Tensor, where: Tensor) -> Tensor:
    """Mean over the cells of each crop, then over crops: (b 1 f n) to a scalar.

    A crop without such cells counts as 0: so micro-batches and ranks give what one batch gives.
    """
    return ((error * where).sum(dim=(1, 2, 3)) / where.sum(dim=(1, 2, 3)).clamp(min=1)).mean()


def baselines(target: Tensor, chosen: Tensor) -> dict[str, Tensor]:
    """Answers that need no learning, for the cells that were hidden.

    Args:
        target: (b c f n) the uncorrupted magnitudes.
        chosen: boolean (b 1 f n) or (b 1 1 n), the hidden cells.

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


def _interpolated(target: Tensor, hidden: Tensor) -> Tensor:
    """Draw straight lines across hidden cells: (b c f n), (b 1 f n) or (b 1 1 n) to (b c f n)."""
    frames = target.shape[-1]
    position = torch.arange(frames, device=target.device).expand_as(hidden)
    before = torch.where(hidden, -1, position).cummax(dim=-1).values
    after = torch.where(hidden, frames, position).flip(-1).cummin(dim=-1).values.flip(-1)
    left = torch.where(before < 0, after, before).clamp(0, frames - 1)
    right = torch.where(after >= frames, before, after).clamp(0, frames - 1)
    share = (position - left) / (right - left).clamp(min=1)
    first, second = (target.gather(-1, at.expand_as(target)) for at in (left, right))
    line = first + (second - first) * share.to(target.dtype).clamp(0, 1)
    return torch.where(hidden.all(dim=-1, keepdim=True), 0.0, line)

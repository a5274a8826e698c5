"""Exponential moving average of the weights, the model that is validated and exported."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

Tensors = tuple[Tensor, ...] | list[Tensor]


def decay_at(updates: int, decay: float) -> float:
    """Return the decay after so many updates: min(decay, (1 + n) / (10 + n)).

    The short memory at the start keeps the random initial weights out of the average, so that an
    early validation sees a trained model.
    """
    return min(decay, (1 + updates) / (10 + updates))


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """Return an average of a model, at first a copy; `.update_parameters(model)` after each step.

    Args:
        model: trained.
        decay: share of the average that a step keeps, later in the run.

    Parameters and floating-point buffers (running statistics) are averaged, other buffers
    (counters) copied. The copy, `.module`, is in evaluation mode and takes no gradient.

    Raises:
        ValueError: a buffer holds NaN or Inf, whose average would be NaN; build it in forward.
    """
    for name, buffer in model.named_buffers():
        if buffer.is_floating_point() and not torch.isfinite(buffer).all():
            raise ValueError(f"buffer {name!r} is not finite and cannot be averaged")
    average = AveragedModel(model, use_buffers=True)
    average.module.eval().requires_grad_(False)

    def blend(mine: Tensors, theirs: Tensors, _: Tensor | int) -> None:
        if mine[0].is_floating_point():
            # the count on the CPU, not the argument: reading that one would wait for the device
            torch._foreach_lerp_(mine, theirs, 1 - decay_at(int(average.n_averaged), decay))
        else:
            torch._foreach_copy_(mine, theirs)

    average.multi_avg_fn = blend
    return average

"""Balance of objectives: each has a given share of the masked error's gradient.

Weights of losses are not comparable: an L1 of 0.01 beside a cross-entropy of 5. EnCodec (Defossez
et al. 2022, arXiv 2210.13438) scales gradients at the output to given shares. Here they are scaled
at the tensor from which both an objective and the masked error are computed, for each batch on its
own, so there is no running average to save.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from separator.pretrain.batch import Example
from separator.pretrain.model import Pretrainer
from separator.pretrain.objectives import Objective, Prediction, meeting_point


@dataclass(frozen=True)
class Weighted:
    """A loss beside the masked error, with its weight.

    Attributes:
        loss: scalar, not weighted.
        weight: norm of its gradient, as a share of the masked error's.
        point: the tensor in which the gradients are compared.
    """

    loss: Tensor
    weight: float
    point: Tensor


def auxiliary_losses(
    objectives: Iterable[Objective], model: Pretrainer, batch: Example, prediction: Prediction
) -> tuple[dict[str, Weighted], dict[str, Tensor]]:
    """Compute the losses beside the masked error.

    Args:
        objectives: in the order in which they draw random numbers.
        model: the trained or the averaged one, with the objectives' heads.
        batch: crops, targets and where they are masked.
        prediction: the model's answer.

    Returns:
        The losses that count at this step, and what to log of all, by name.
    """
    losses: dict[str, Weighted] = {}
    logs: dict[str, Tensor] = {}
    for objective in objectives:
        key = objective.key
        loss, more = objective.loss(model.head(objective), batch, prediction)
        point = meeting_point(objective, prediction)
        if loss is None:
            logged = prediction.restored.new_tensor(math.nan)  # a gap in the curve
        else:
            losses[key] = Weighted(loss, objective.weight(prediction.step), point)
            logged = loss.detach()
        logs |= {f"loss/{key}": logged, **more}
    return losses, logs


def total(main: Tensor, objectives: dict[str, Weighted], balance: bool = True) -> Tensor:
    """Add objectives to the masked error.

    Args:
        main: the masked error.
        objectives: by name.
        balance: scale each one's gradient to `weight` times the masked error's at its point;
            otherwise `weight` is a plain factor.

    Returns:
        The scalar to differentiate.
    """
    result, references = main, {}
    for objective in objectives.values():
        factor: Tensor | float = objective.weight
        if balance:
            key = id(objective.point)
            if key not in references:
                references[key] = _norm(main, objective.point)
            norm = _norm(objective.loss, objective.point)
            factor = objective.weight * references[key] / norm.clamp(min=1e-12)
        result = result + factor * objective.loss
    return result


def _norm(loss: Tensor, tensor: Tensor) -> Tensor:
    """Norm of a loss's gradient at a tensor.

    Of this micro-batch alone: so ranks and accumulated micro-batches give the same step.
    """
    with torch.autocast(tensor.device.type, enabled=False):  # a backward pass belongs outside of it
        gradient = torch.autograd.grad(loss, tensor, retain_graph=True)[0]
    return torch.linalg.vector_norm(gradient.float())

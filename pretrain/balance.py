"""How much each objective may pull: a share of the masked error's own gradient.

The losses' sizes say nothing: an L1 of 0.01 beside a cross-entropy of 5. EnCodec (Defossez et al.
2022, arXiv 2210.13438) scales gradients at the output to given shares; here it is done at the
tensor in which an objective and the masked error meet, for each batch on its own, so that nothing
has to be kept.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Objective:
    """A loss beside the masked error.

    Attributes:
        loss: scalar, not weighted.
        weight: size of its gradient, as a share of the masked error's.
        meets: the tensor in which the gradients are compared.
    """

    loss: Tensor
    weight: float
    meets: Tensor


def total(main: Tensor, objectives: dict[str, Objective], balance: bool = True) -> Tensor:
    """Add objectives to the masked error.

    Args:
        main: the masked error.
        objectives: by name.
        balance: scale each one's gradient to `weight` times the masked error's, where both meet;
            otherwise `weight` is a plain factor.

    Returns:
        The scalar to differentiate.
    """
    result, references = main, {}
    for objective in objectives.values():
        factor = objective.weight
        if balance:
            key = id(objective.meets)
            if key not in references:
                references[key] = _norm(main, objective.meets)
            own = _norm(objective.loss, objective.meets)
            factor = objective.weight * references[key] / own.clamp(min=1e-12)
        result = result + factor * objective.loss
    return result


def _norm(loss: Tensor, at: Tensor) -> Tensor:
    """Norm of a loss's gradient at a tensor.

    Of this micro-batch alone: so ranks and accumulated micro-batches give the same step.
    """
    with torch.autocast(at.device.type, enabled=False):  # a backward pass belongs outside of it
        gradient = torch.autograd.grad(loss, at, retain_graph=True)[0]
    return torch.linalg.vector_norm(gradient.float())

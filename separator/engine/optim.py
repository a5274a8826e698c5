"""AdamW and Muon, and learning rates that are pure functions of the step."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from separator.engine.muon import Muon
from separator.engine.run_config import OptimConfig

MIN_SIZE = 16  # rows and columns of what Muon is for; narrower matrices mix a few channels


def schedule(config: OptimConfig, step: int, steps: int) -> float:
    """Return the learning rate of a step as a fraction of `config.lr`.

    Linear warm-up, then cosine decay (Loshchilov & Hutter 2017, arXiv:1608.03983, without
    restarts), polynomial decay, or none.

    Args:
        config: warm-up, kind and end of the schedule.
        step: updates done so far in the run, from 0.
        steps: length of the run.
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    length = max(1, steps - 1 - config.warmup_steps)  # so that the last step has exactly final_lr
    progress = min(1.0, (step - config.warmup_steps) / length)
    match config.schedule:
        case "constant":
            return 1.0
        case "cosine":
            remaining = 0.5 * (1 + math.cos(math.pi * progress))
        case "polynomial":
            remaining = (1 - progress) ** config.power
    return config.final_lr + (1 - config.final_lr) * remaining


class Chain:
    """Optimizers of different weights that are used as one."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts

    @property
    def param_groups(self) -> list[dict]:
        """Groups of all parts; what is changed in them holds."""
        return [group for part in self.parts for group in part.param_groups]

    def step(self) -> None:
        """Make a step of each."""
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients, or set them to 0 if not `set_to_none`."""
        for part in self.parts:
            part.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """Return the parts' states as plain values and tensors."""
        return {"parts": [part.state_dict() for part in self.parts]}


def set_rate(
    optimizer: torch.optim.Optimizer | Chain, config: OptimConfig, step: int, steps: int
) -> None:
    """Give each group its learning rate for a step.

    Args:
        optimizer: of `build`.
        config: rate and schedule.
        step: updates done so far in the run.
        steps: length of the run.
    """
    rate = config.lr * schedule(config, step, steps)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"] if step >= group["from_step"] else 0.0


def build(groups: Sequence[dict], config: OptimConfig) -> torch.optim.Optimizer | Chain:
    """Build AdamW over groups of parameters, or Muon and AdamW.

    AdamW is that of Loshchilov & Hutter 2019 (arXiv:1711.05101); biases and norms do not decay,
    see `decays`. Muon is for matrices of at least 16 rows and columns; convolutions, biases and
    norms stay with AdamW.

    Args:
        groups: each {"params": parameters}, with "lr_scale", a factor on the learning rate (1 if
            absent), and "from_step", the step before which they do not change (0 if absent).
        config: kind and rates.

    Raises:
        ValueError: a parameter is in two groups.
    """
    matrices: list[dict] = []
    others: list[dict] = []
    for group in groups:
        pace = {"lr_scale": group.get("lr_scale", 1.0), "from_step": group.get("from_step", 0)}
        trained = [weight for weight in group["params"] if weight.requires_grad]
        large = [weight for weight in trained if config.kind == "muon" and _is_matrix(weight)]
        taken = set(map(id, large))
        rest = [weight for weight in trained if id(weight) not in taken]
        wide = [weight for weight in rest if weight.ndim >= 2]
        vectors = [weight for weight in rest if weight.ndim < 2]
        parts = [(matrices, large)] if large else []
        # runs of one kind, not two lists: the order of the weights is that of earlier checkpoints
        parts += [(others, list(run)) for _, run in itertools.groupby(wide, decays)]
        parts += [(others, vectors)] if vectors else []
        for part, weights in parts:
            decay = config.weight_decay if decays(weights[0]) else 0.0
            part.append({"params": weights, "weight_decay": decay, **pace})
    # on two CPU cores the fused kernel was 3 to 13 times faster than foreach
    first, second = config.betas
    adamw = torch.optim.AdamW(others, lr=config.lr, betas=(first, second), eps=1e-10, fused=True)
    if not matrices:
        return adamw
    return Chain(Muon(matrices, config.lr), adamw)


def _is_matrix(weight: Tensor) -> bool:
    """Whether a weight is one that Muon is for."""
    return weight.ndim == 2 and min(weight.shape) >= MIN_SIZE and decays(weight)


def decays(weight: Tensor) -> bool:
    """Whether weight decay applies: to weights of two axes or more that are not marked as biases.

    A bias of several axes, such as one for each bin and channel, has the attribute
    `no_weight_decay`, set to true by the module that makes it.
    """
    return weight.ndim >= 2 and not getattr(weight, "no_weight_decay", False)


def load(optimizer: torch.optim.Optimizer | Chain, state: dict[str, Any]) -> None:
    """Load a state into an optimizer; its groups may divide the same weights differently.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is of other weights, or no state.
    """
    parts = optimizer.parts if isinstance(optimizer, Chain) else [optimizer]
    states = state["parts"] if isinstance(optimizer, Chain) else [state]
    for part, saved in zip(parts, states, strict=True):
        groups = part.state_dict()["param_groups"]
        count = sum(len(group["params"]) for group in saved["param_groups"])
        if count != sum(len(group["params"]) for group in groups):
            raise ValueError(f"the state is of {count} weights")
        part.load_state_dict({"state": saved["state"], "param_groups": groups})
        for weight, values in part.state.items():
            for value in values.values():
                if isinstance(value, Tensor) and value.ndim and value.shape != weight.shape:
                    raise ValueError("the state is of weights of other shapes")

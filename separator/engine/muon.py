"""Muon, with the matrices of one shape made orthogonal together."""

from collections.abc import Iterable

import torch
from torch import Tensor

STEPS = 5  # Newton-Schulz iterations
QUINTIC = 3.4445, -4.7750, 2.0315  # of Jordan et al.: takes 0.003 to 1 into 0.68 to 1.2
MAX_ENTRIES = 2**24  # entries made orthogonal at once, if not one matrix has more: up to 200 MB


class Muon(torch.optim.Optimizer):
    """Nesterov momentum whose singular values are made 1 (Jordan et al. 2024).

    kellerjordan.github.io/posts/muon, with the factor of Liu et al. 2025 (arXiv:2502.16982), after
    which a step is as large as AdamW's at the same rate. It does what torch.optim.Muon does, to
    which the tests hold it, in a few large products instead of many small ones.

    Args:
        groups: each {"params": matrices}, with "lr" and "weight_decay" of their own if given.
        lr: step size.
        weight_decay: decoupled, as a factor on `lr`.
        momentum: decay of the running mean of gradients.
    """

    def __init__(
        self, groups: Iterable[dict], lr: float, weight_decay: float = 0.0, momentum: float = 0.95
    ) -> None:
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:
        """Move every matrix that has a gradient."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[Tensor]] = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    shapes.setdefault(weight.shape, []).append(weight)
            for shape, weights in shapes.items():
                count = max(1, MAX_ENTRIES // shape.numel())
                for first in range(0, len(weights), count):
                    self._move(weights[first : first + count], group)

    def _move(self, weights: list[Tensor], group: dict) -> None:
        """Move matrices of one shape."""
        updates = []
        for weight in weights:
            state = self.state[weight]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(weight.grad)
            mean = state["momentum_buffer"].lerp_(weight.grad, 1 - group["momentum"])
            updates.append(weight.grad.lerp(mean, group["momentum"]).to(_dtype(weight.device)))
        rate = 0.2 * max(weights[0].shape) ** 0.5 * group["lr"]
        for weight, update in zip(weights, orthogonal(torch.stack(updates)), strict=True):
            weight.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-rate)


def _dtype(device: torch.device) -> torch.dtype:
    """Return bfloat16, as torch.optim.Muon uses, but float32 on processors without it.

    Measured on one core, in GFLOP/s: an AMD EPYC with avx512_bf16 215 in bfloat16 and 91 in
    float32; other processors with AVX-512 85 and 108 to 159; without AVX-512 0.4 and 16.
    """
    if device.type != "cpu":
        return torch.bfloat16
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # PyTorch 2.11 may lack it
    native = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return torch.bfloat16 if native else torch.float32


def orthogonal(matrices: Tensor) -> Tensor:
    """Return matrices (k m n) with their singular values set to about 1, in the same dtype."""
    a, b, c = QUINTIC
    x = matrices.mT if matrices.shape[1] > matrices.shape[2] else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if matrices.shape[1] > matrices.shape[2] else x

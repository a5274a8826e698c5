"""Means of what a step reports, over micro-batches and ranks."""

from collections.abc import Mapping

import torch
from torch import Tensor

from separator.engine import distributed

ALWAYS = ("loss", "optim/norm")  # NaN in one of these is a fault, and stays NaN


class StepMeans:
    """Means of scalars over the micro-batches of a step.

    NaN says that something did not occur in a micro-batch, which then does not count; what
    occurred in none is NaN. In `ALWAYS` a single NaN makes the mean NaN.
    """

    def __init__(self) -> None:
        self._names: list[str] = []
        self._sums = self._counts = torch.zeros(())

    def add(self, scalars: Mapping[str, Tensor]) -> None:
        """Take the scalars of a micro-batch, which have the same names each time."""
        values = torch.stack([value.detach().float() for value in scalars.values()])
        names = list(scalars)
        occurs = _occurs(names, values)
        values = torch.where(occurs, values, 0)
        if self._names:
            self._sums, self._counts = self._sums + values, self._counts + occurs
        else:
            self._names, self._sums, self._counts = names, values, occurs.float()

    def values(self) -> dict[str, Tensor]:
        """Return the means by name."""
        return dict(zip(self._names, (self._sums / self._counts).unbind(), strict=True))


def mean_over_ranks(scalars: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the means over the ranks that a scalar occurs on, the same on each rank."""
    names, values = list(scalars), torch.stack([value.float() for value in scalars.values()])
    occurs = _occurs(names, values)
    sums, counts = distributed.mean(torch.stack([torch.where(occurs, values, 0), occurs.float()]))
    return dict(zip(names, (sums / counts).tolist(), strict=True))


def _occurs(names: list[str], values: Tensor) -> Tensor:
    occurs = ~values.isnan()
    for index, name in enumerate(names):
        if name in ALWAYS:
            occurs[index] = True
    return occurs

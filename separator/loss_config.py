"""Weights of the losses, apart from `separator.losses`, which lists them: these need no torch."""

from collections.abc import Mapping

from separator.errors import SeparatorError
from separator.ranges import Within

DEFAULT_LOSS = {"magnitude_l1": 1.0}


def check_weights(loss: Mapping[str, float]) -> None:
    """Refuse weights that are negative, too large, or all 0.

    Args:
        loss: weights by the losses' names.

    Raises:
        SeparatorError: names the key.
    """
    for name, weight in loss.items():
        Within("[0, 1000000]").check(f"loss.{name}", weight)
    if not any(loss.values()):
        raise SeparatorError("loss: all weights are 0; give one, such as loss.magnitude_l1=1")

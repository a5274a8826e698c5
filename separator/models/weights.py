"""Weights that must fit a model exactly."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from separator.errors import SeparatorError


def load_weights(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load a state dict that must fit exactly.

    Raises:
        SeparatorError: a weight is missing, unknown or of another shape; names the first.
    """
    own = module.state_dict()
    for name in [*own, *state]:
        if name not in state:
            raise other_architecture(path, f"it has no {name!r}")
        if name not in own:
            raise other_architecture(path, f"it has {name!r}, this model does not")
        if state[name].shape != own[name].shape:
            there, here = list(state[name].shape), list(own[name].shape)
            raise other_architecture(path, f"{name!r} is {there} there and {here} here")
    module.load_state_dict(dict(state))


def other_architecture(path: Path, reason: str) -> SeparatorError:
    """Make the error for weights of another model."""
    return SeparatorError(
        f"{path}: another architecture ({reason}); use the configuration it was made with"
    )

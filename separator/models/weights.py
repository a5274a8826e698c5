"""Weights that must fit a model exactly: compared by name, shape and type before they are taken."""

import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from separator.errors import SeparatorError

FLOATS = ("float16", "bfloat16", "float32", "float64")  # any of these is widened or narrowed

Path = str | os.PathLike


class TensorForm(NamedTuple):
    """Type of numbers, as torch names it, and shape of a tensor that need not be in memory."""

    kind: str
    shape: tuple[int, ...]


Layout = Mapping[str, TensorForm]


def layout_of(state: object, path: Path) -> Layout:
    """Return the form of each tensor of a state dict.

    Args:
        state: the state dict.
        path: of its file, for messages.

    Raises:
        SeparatorError: it is no mapping of names to plain tensors.
    """
    tensors = state if isinstance(state, Mapping) else {"": state}
    for name, value in tensors.items():
        plain = isinstance(value, Tensor) and value.layout == torch.strided
        if not isinstance(name, str) or not plain or value.device.type == "meta":
            raise SeparatorError(f"{path}: holds other things than weights; choose another file")
    return {name: _form(value) for name, value in tensors.items()}


def misfit(module: nn.Module, layout: Layout) -> str | None:
    """Return the first weight of a layout that does not fit a module, and why; None if all do.

    All weights of the module must be there and no other, in its shapes, and of its type or, for
    floating point, another one of `FLOATS`.
    """
    needed = {name: _form(value) for name, value in module.state_dict().items()}
    for name in [*needed, *layout]:
        if name not in layout:
            return f"it has no {name!r}"
        if name not in needed:
            return f"it has {name[:100]!r}, this model does not"
        given, expected = layout[name], needed[name]
        if given.shape != expected.shape:
            shapes = f"{list(given.shape)[:8]} there and {list(expected.shape)} here"
            return f"{name!r} is {shapes}"
        if given.kind not in (FLOATS if expected.kind in FLOATS else (expected.kind,)):
            return f"{name!r} is {given.kind} there and {expected.kind} here"
    return None


def load_weights(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Copy a state dict that must fit exactly into a model.

    Args:
        module: the model.
        state: its weights by name.
        path: of their file, for messages.

    Raises:
        SeparatorError: a weight is missing, unknown, or of another shape or type; names the first.
    """
    if reason := misfit(module, layout_of(state, path)):
        raise other_architecture(path, reason)
    module.load_state_dict(dict(state))


class Uninitialised(TorchFunctionMode):
    """Leaves tensors on the meta device, which have no values, as they are made.

    On them torch initialises in Python, which takes as long for a model as reading its file.
    """

    def __torch_function__(
        self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        name = getattr(function, "__name__", "")
        changes = name.endswith("_") and not name.endswith("__") and name != "requires_grad_"
        kwargs = kwargs or {}
        target = args[0] if args else kwargs.get("tensor")  # so named in torch.nn.init
        if changes and isinstance(target, Tensor) and target.is_meta:
            return target
        return function(*args, **kwargs)


def fill(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give a module on the meta device the weights of a state, in its tensor types and layout."""
    filled = {}
    for name, tensor in module.state_dict().items():
        empty = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
        filled[name] = empty.copy_(state[name])
    module.load_state_dict(filled, assign=True)


def other_architecture(path: Path, reason: str) -> SeparatorError:
    """Make the error for weights at a path that are of another model, for this reason."""
    return SeparatorError(
        f"{path}: another architecture ({reason}); use the configuration it was made with"
    )


def _form(value: Tensor) -> TensorForm:
    return TensorForm(str(value.dtype).removeprefix("torch."), tuple(value.shape))

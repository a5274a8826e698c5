"""Where a model runs."""

import torch

from separator.errors import SeparatorError


def find_device(name: str, auto: tuple[str, ...] = ("cuda", "mps")) -> torch.device:
    """Turn "auto", "cpu", "cuda", "cuda:1" or "mps" into a device that this machine has.

    Args:
        name: what was asked for.
        auto: what "auto" takes, the first that is here; the CPU when none is.

    Raises:
        SeparatorError: an unknown or absent device.
    """
    here = ["cpu"]
    if torch.cuda.is_available():
        here.append("cuda")
    if torch.backends.mps.is_available():
        here.append("mps")
    if name == "auto":
        return torch.device(next((kind for kind in auto if kind in here), "cpu"))
    kind, _, index = name.partition(":")
    if kind not in here or not (index.isdecimal() or name == kind):
        raise SeparatorError(f"device: {name!r} is not on this machine; it has {', '.join(here)}")
    return torch.device(name)

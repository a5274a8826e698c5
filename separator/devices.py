"""The device on which a model runs."""

import torch

from separator.errors import UsageError


def find_device(name: str, auto: tuple[str, ...] = ("cuda", "mps")) -> torch.device:
    """Return the device for "auto", "cpu", "cuda", "cuda:1" or "mps", if this machine has it.

    Args:
        name: what was asked for.
        auto: what "auto" takes, the first that is available; the CPU when none is.

    Raises:
        UsageError: an unknown or absent device.
    """
    available = ["cpu"]
    if torch.cuda.is_available():
        available.append("cuda")
    if torch.backends.mps.is_available():
        available.append("mps")
    if name == "auto":
        return torch.device(next((kind for kind in auto if kind in available), "cpu"))
    kind, _, index = name.partition(":")
    if kind not in available or not (index.isdecimal() or name == kind):
        raise UsageError(f"device: {name!r} is not on this machine; it has {', '.join(available)}")
    return torch.device(name)

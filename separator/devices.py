"""The device on which a model runs."""

import torch

from separator.errors import ArgumentError


def find_device(name: str, argument: str = "device") -> torch.device:
    """Return the device for "auto", "cpu", "cuda", "cuda:1" or "mps", if this machine has it.

    Args:
        name: what was asked for; "auto" takes a GPU where there is one.
        argument: that asked for it, for the message.

    Raises:
        ArgumentError: an unknown or absent device.
    """
    kinds = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    available = [*(kind for kind in kinds if kinds[kind]), "cpu"]
    if name == "auto":
        return torch.device(available[0])
    kind, _, index = name.partition(":")
    if kind not in available or not (index.isdecimal() or name == kind):
        names = ", ".join(available)
        raise ArgumentError(f"{argument}: {name!r} is not on this machine; it has {names}")
    return torch.device(name)

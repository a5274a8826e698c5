"""Names of torch for files that `--help` reads: `torch` and `F` are imported at their first use.

Such files define configurations beside the functions that they configure, and `--help` should not
wait two seconds for torch. The types are for annotations only.
"""

import importlib
from typing import TYPE_CHECKING, Any


class Lazy:
    """A module that is imported when a name of it is first used.

    Args:
        module: its full name.
    """

    def __init__(self, module: str) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self._module), name)


if TYPE_CHECKING:
    import torch
    import torch.nn.functional as F
    from torch import Generator, Tensor, nn
else:
    torch, nn, F = Lazy("torch"), Lazy("torch.nn"), Lazy("torch.nn.functional")
    Generator, Tensor = type("Generator", (), {}), type("Tensor", (), {})

__all__ = ["F", "Generator", "Lazy", "Tensor", "nn", "torch"]

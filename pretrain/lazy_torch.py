"""Names of torch for files that `--help` reads: `torch` and `F` are imported at their first use.

Such files define configurations beside the functions that they configure, and `--help` should not
wait two seconds for torch. The types are for annotations only.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    import torch.nn.functional as F
    from torch import Generator, Tensor, nn
else:

    class _Lazy:
        def __init__(self, module: str) -> None:
            self._module = module

        def __getattr__(self, name: str) -> Any:
            return getattr(importlib.import_module(self._module), name)

    torch, nn, F = _Lazy("torch"), _Lazy("torch.nn"), _Lazy("torch.nn.functional")
    Generator, Tensor = type("Generator", (), {}), type("Tensor", (), {})

__all__ = ["F", "Generator", "Tensor", "nn", "torch"]

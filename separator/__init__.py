"""Music source separation: pretrain on a music library, fine-tune on stems, write instrumentals.

Axes, everywhere: `b` batch, `s` stem, `c` channel, `t` sample, `f` bin, `n` frame, `d` feature,
`h` head. `import separator` is light: torch, if it is installed, is imported when `Separator`
or `separate` is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from separator.errors import SeparatorError, explain
from separator.machine import wait_passively

if TYPE_CHECKING:
    from separator.api import separate
    from separator.ensemble import Ensemble
    from separator.onnx_separator import OnnxSeparator
    from separator.separation import Separator

__version__ = "0.3.0"
MODULES = {
    "Ensemble": "ensemble",
    "OnnxSeparator": "onnx_separator",
    "Separator": "separation",
    "separate": "api",
}
__all__ = ["Ensemble", "OnnxSeparator", "Separator", "SeparatorError", "__version__", "separate"]


def __getattr__(name: str) -> object:
    """Import the public names on first use."""
    if name not in MODULES:
        raise AttributeError(f"module 'separator' has no attribute {name!r}")
    wait_passively()
    try:
        return getattr(import_module(f"separator.{MODULES[name]}"), name)
    except ModuleNotFoundError as error:
        raise SeparatorError(f"separator.{name} {explain(error)}") from error


def __dir__() -> list[str]:
    """List what a user may use, whether it was imported yet or not."""
    return sorted({*__all__, "__doc__", "__name__"})

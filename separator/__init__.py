"""Music source separation: pretrain on a music library, fine-tune on stems, write instrumentals.

Axes, everywhere: `b` batch, `s` stem, `c` channel, `t` sample, `f` bin, `n` frame, `d` feature,
`h` head. `import separator` is light: torch is imported when a name below is first used.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from separator.api import Separator, separate

__version__ = "0.1.0"
__all__ = ["Separator", "separate"]


def __getattr__(name: str) -> object:
    """Import the public names on first use."""
    if name in __all__:
        from separator import api

        return getattr(api, name)
    raise AttributeError(f"module 'separator' has no attribute {name!r}")

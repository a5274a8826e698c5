"""Masking strategies by name, with their settings and needs."""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from separator.pretrain.lazy_torch import Tensor
from separator.pretrain.masking import strategies


@dataclass(frozen=True)
class Strategy:
    """A way to choose patches.

    Attributes:
        choose: the registered function, called with the spectrogram (b c f n), the `PatchGrid`, the
            settings of `config`, the finished steps of the run and a generator on the CPU. It
            returns the chosen patches, boolean (b k m). All randomness comes from the generator,
            and everything that changes during a run from the step, so that a resumed run is equal.
        config: dataclass of the keys of `mask` that the strategy reads.
        one_draw_per_run: one corruption draw decides for a whole run of patches.
        longest_run: longest run of groups, as a multiple of `mask.span`; it must leave context.
        bands: it needs patches of less than all bins.
        predicted_error: `choose` gets the predicted errors (b k m) instead of the spectrogram.
    """

    choose: Callable[..., Tensor]
    config: type
    one_draw_per_run: bool = False
    longest_run: int = 0
    bands: bool = False
    predicted_error: bool = False


STRATEGIES: dict[str, Strategy] = {}


def register(config: type, **needs: Any) -> Callable[[Callable], Callable]:
    """Make a decorator that adds a function to the strategies, under its own name.

    Args:
        config: dataclass of its settings; a setting that several strategies share has one default.
        needs: other attributes of its `Strategy`.
    """

    def add(choose: Callable) -> Callable:
        STRATEGIES[choose.__name__] = Strategy(choose, config, **needs)
        return choose

    return add


def load() -> dict[str, Strategy]:
    """Import every file of `strategies`, so that its functions are registered.

    Returns:
        The strategies by name.
    """
    for module in pkgutil.iter_modules(strategies.__path__, f"{strategies.__name__}."):
        importlib.import_module(module.name)
    return STRATEGIES

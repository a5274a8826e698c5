"""Settings that several masking strategies share."""

from dataclasses import dataclass
from typing import ClassVar

from separator.errors import SeparatorError
from separator.ranges import require

MIN_SHARE, MAX_SHARE = 0.05, 0.95  # as in MaskSpec (arXiv 2204.12768)


@dataclass(frozen=True)
class Options:
    """Base class of a strategy's settings.

    Attributes:
        limits: the interval of each number, as `separator.ranges.require` takes it.
    """

    limits: ClassVar[dict[str, str]] = {}

    def __post_init__(self) -> None:
        for cls in type(self).__mro__:
            for name, interval in vars(cls).get("limits", {}).items():
                require(self, interval, name)


@dataclass(frozen=True)
class ShareOptions(Options):
    """Settings of strategies that choose a given number of patches.

    Attributes:
        share: part of the patches that is chosen, for the strategies that count.
    """

    share: float = 0.15
    limits: ClassVar[dict[str, str]] = {"share": f"[{MIN_SHARE}, {MAX_SHARE}]"}


@dataclass(frozen=True)
class SpanOptions(Options):
    """Settings of strategies that choose runs of frame groups.

    Attributes:
        span: groups in a run of the strategies that choose runs (for some: at most).
    """

    span: int = 40
    limits: ClassVar[dict[str, str]] = {"span": "[1, 65536]"}


@dataclass(frozen=True)
class BandSpanOptions(Options):
    """Settings of strategies that choose runs of bands.

    Attributes:
        band_span: bands in a run, at most.
    """

    band_span: int = 15
    limits: ClassVar[dict[str, str]] = {"band_span": "[0, 65536]"}


@dataclass(frozen=True)
class WeightedOptions(ShareOptions):
    """Settings of strategies that are uniform at first and follow weights later.

    Attributes:
        uniform_steps: steps before weighted strategies begin to weigh.
        weighted_steps: step from which they follow their weights alone.
    """

    uniform_steps: int = 0
    weighted_steps: int = 10_000
    limits: ClassVar[dict[str, str]] = {"uniform_steps": "[0, inf)", "weighted_steps": "[0, inf)"}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.uniform_steps > max(1, self.weighted_steps):
            raise SeparatorError(
                f"uniform_steps: {self.uniform_steps} is above weighted_steps, "
                f"{self.weighted_steps}; a sixth of it is usual"
            )

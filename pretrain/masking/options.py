"""Settings that several masking strategies share."""

from dataclasses import dataclass
from typing import Annotated

from separator.ranges import CheckedConfig, Within


@dataclass(frozen=True)
class ShareOptions(CheckedConfig):
    """Settings of strategies that choose a given number of patches.

    Attributes:
        share: share of the patches that is chosen, for strategies that choose a given number.
    """

    share: Annotated[float, Within("[0.05, 0.95]")] = 0.15  # as in MaskSpec (arXiv 2204.12768)


@dataclass(frozen=True)
class SpanOptions(CheckedConfig):
    """Settings of strategies that choose runs of frame groups.

    Attributes:
        span: groups in a run, for strategies that choose runs; for some of them the largest number.
    """

    span: Annotated[int, Within("[1, 65536]")] = 40


@dataclass(frozen=True)
class BandSpanOptions(CheckedConfig):
    """Settings of strategies that choose runs of bands.

    Attributes:
        band_span: largest number of bands in a run.
    """

    band_span: Annotated[int, Within("[0, 65536]")] = 15


@dataclass(frozen=True)
class WeightedOptions(ShareOptions):
    """Settings of strategies that are uniform at first and follow weights later.

    Attributes:
        uniform_steps: number of first steps in which `dispersion` and `hard` choose uniformly.
        weighted_steps: step from which `dispersion` and `hard` no longer change how they choose.
    """

    uniform_steps: Annotated[int, Within("[0, inf)")] = 0
    weighted_steps: Annotated[int, Within("[0, inf)")] = 10_000

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.uniform_steps > max(1, self.weighted_steps):
            raise self.invalid(
                "uniform_steps",
                f"{self.uniform_steps} is above {{}}weighted_steps, {self.weighted_steps}; a sixth "
                "of it is usual",
            )

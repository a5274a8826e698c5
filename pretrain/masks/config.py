"""Which cells are hidden, and what becomes of them."""

from dataclasses import dataclass

from separator.errors import SeparatorError
from separator.ranges import require

LEAST, MOST = 0.05, 0.95  # share of the cells, as in MaskSpec (arXiv 2204.12768)


@dataclass(frozen=True)
class MaskConfig:
    """Which cells are hidden, and how.

    Attributes:
        strategy: how cells are chosen, a key of `separator.pretrain.masks.STRATEGIES`.
        group: frames in a cell once warmed up.
        band: bins in a cell; 0 makes cells of whole frames.
        share: part of the cells that is chosen, for the strategies that count.
        span: groups in a run of the strategies that choose runs (for some: at most).
        band_span: bands in a run, at most.
        fill: part of the chosen cells filled with 1.0, which a sigmoid mask can only lower.
        noise: part of them raised to noise.
        other: part of them covered by another crop of the batch; what is left is kept as it is.
        clean_share: part of the crops that stay as they are and are to be passed through.
        warmup_steps: steps over which cells grow from 1 frame to `group`.
        uniform_steps: steps before weighted strategies begin to weigh.
        weighted_steps: step from which they follow their weights alone.
    """

    strategy: str = "uniform"
    group: int = 16
    band: int = 0
    share: float = 0.15
    span: int = 40
    band_span: int = 15
    fill: float = 0.8
    noise: float = 0.1
    other: float = 0.0
    clean_share: float = 0.0
    warmup_steps: int = 0
    uniform_steps: int = 0
    weighted_steps: int = 10_000

    def __post_init__(self) -> None:
        require(self, f"[{LEAST}, {MOST}]", "mask.share")
        require(self, "[0, 1]", "mask.fill", "mask.noise", "mask.other", "mask.clean_share")
        if self.fill + self.noise + self.other > 1 + 1e-9:
            raise SeparatorError("mask.fill, mask.noise, mask.other: together they are over 1")
        require(self, "[1, 65536]", "mask.group", "mask.span")
        require(self, "[0, 65536]", "mask.band", "mask.band_span")
        require(self, "[0, inf)", "mask.warmup_steps", "mask.uniform_steps", "mask.weighted_steps")

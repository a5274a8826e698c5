"""Which cells are hidden, and what becomes of them."""

from dataclasses import dataclass, replace
from typing import Literal, Self

from separator.errors import SeparatorError
from separator.ranges import require

LEAST, MOST = 0.05, 0.95  # share of the cells, as in MaskSpec (arXiv 2204.12768)


@dataclass(frozen=True)
class MaskConfig:
    """Which cells are hidden, and how.

    Attributes:
        strategy: how cells are chosen, a key of `separator.pretrain.masks.STRATEGIES`.
        group: frames in a cell once warmed up; 0 leaves it to `group_seconds`.
        group_seconds: length of a cell where `group` is 0, so that a preset fits any hop.
        band: bins in a cell; 0 makes cells of whole frames.
        share: part of the cells that is chosen, for the strategies that count.
        span: groups in a run of the strategies that choose runs (for some: at most).
        band_span: bands in a run, at most.
        fill: part of the chosen cells filled with 1.0, which a sigmoid mask can only lower.
        noise: part of them raised to noise.
        noise_level: "local" draws noise from 0 to twice the bin's mean in the crop, "full" from 0
            to 1, which is far above most music.
        other: part of them covered by another crop of the batch; what is left is kept as it is.
        clean_share: part of the crops that stay as they are and are to be passed through: they
            teach what fine-tuning begins with, but leave fewer crops with masked cells.
        warmup_steps: steps over which cells grow from 1 frame to `group`.
        uniform_steps: steps before weighted strategies begin to weigh.
        weighted_steps: step from which they follow their weights alone.
    """

    strategy: str = "uniform"
    group: int = 16
    group_seconds: float = 0.0
    band: int = 0
    share: float = 0.15
    span: int = 40
    band_span: int = 15
    fill: float = 0.8
    noise: float = 0.1
    noise_level: Literal["local", "full"] = "local"
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
        require(self, "[1, 65536]", "mask.span")
        require(self, "[0, 65536]", "mask.group", "mask.band", "mask.band_span")
        require(self, "[0, 60]", "mask.group_seconds")
        if not self.group and not self.group_seconds:
            raise SeparatorError("mask.group: is 0, and so is mask.group_seconds; give one of them")
        require(self, "[0, inf)", "mask.warmup_steps", "mask.uniform_steps", "mask.weighted_steps")
        if self.uniform_steps > max(1, self.weighted_steps):
            raise SeparatorError(
                f"mask.uniform_steps: {self.uniform_steps} is above mask.weighted_steps, "
                f"{self.weighted_steps}; a sixth of it is usual"
            )
        if self.noise_level not in ("local", "full"):
            raise SeparatorError(f"mask.noise_level: {self.noise_level!r} is not local or full")

    @property
    def kinds(self) -> set[str]:
        """What becomes of chosen cells: the names among `corrupt.KINDS` that occur in the run."""
        shares = {"mask": self.fill, "noise": self.noise, "other": self.other}
        shares |= {"kept": 1 - sum(shares.values()), "clean": self.clean_share}
        return {kind for kind, share in shares.items() if share > 1e-9}

    def in_frames(self, frames_per_second: float) -> Self:
        """Return this with `group` in frames, made of `group_seconds` where it is 0."""
        group = self.group or max(1, round(self.group_seconds * frames_per_second))
        return replace(self, group=group, group_seconds=0.0)

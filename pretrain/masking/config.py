"""Which patches are masked, and how."""

import dataclasses
from dataclasses import dataclass, replace
from typing import Literal, Self

from separator.errors import SeparatorError
from separator.help_format import sentence
from separator.pretrain.masking.options import Options
from separator.pretrain.masking.registry import STRATEGIES, Strategy, load
from separator.ranges import require


def _all_options() -> type:
    """Make a dataclass of the settings of all strategies.

    Raises:
        TypeError: two strategies have different defaults for one key.
    """
    fields: dict[str, dataclasses.Field] = {}
    lines = ["Settings of all strategies.", "", "Attributes:"]
    for strategy in load().values():
        for field in dataclasses.fields(strategy.config):
            known = fields.setdefault(field.name, field)
            if (known.type, known.default) != (field.type, field.default):
                raise TypeError(f"mask.{field.name} has two defaults, in {strategy.config}")
            if known is field:
                told = (sentence(cls, field.name) for cls in strategy.config.__mro__)
                lines.append(f"    {field.name}: {next(filter(None, told), '')}")
    rows = [(name, field.type, field.default) for name, field in fields.items()]
    made = dataclasses.make_dataclass("StrategyOptions", rows, frozen=True)
    made.__doc__ = "\n".join(lines)
    return made


@dataclass(frozen=True)
class MaskConfig(_all_options()):
    """Which patches are masked, and how.

    Attributes:
        strategy: how patches are chosen, a function in `separator.pretrain.masking.strategies`.
        group: frames in a patch once warmed up; 0 leaves it to `group_seconds`.
        group_seconds: length of a patch where `group` is 0, so that a preset fits any hop.
        band: bins in a patch; 0 makes patches of whole frames.
        mask: part of the chosen patches filled with 1.0, which a sigmoid mask can only lower.
        noise: part of them raised to noise.
        noise_level: "local" draws noise from 0 to twice the bin's mean in the crop, "full" from 0
            to 1, which is far above most music.
        mix: part of them mixed with another crop of the batch; the rest is kept as it is.
        clean_share: part of the crops that stay as they are and are to be passed through: they
            teach what fine-tuning begins with, but leave fewer crops with masked patches.
        warmup_steps: steps over which patches grow from 1 frame to `group`.
    """

    strategy: str = "uniform"
    group: int = 16
    group_seconds: float = 0.0
    band: int = 0
    mask: float = 0.8
    noise: float = 0.1
    noise_level: Literal["local", "full"] = "local"
    mix: float = 0.0
    clean_share: float = 0.0
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise SeparatorError(
                f"mask.strategy: {self.strategy!r} is not one of {', '.join(STRATEGIES)}"
            )
        for strategy in STRATEGIES.values():  # the settings of other strategies are checked too
            try:
                self.options_of(strategy)
            except SeparatorError as error:
                raise SeparatorError(f"mask.{error}") from error
        require(self, "[0, 1]", "mask.mask", "mask.noise", "mask.mix", "mask.clean_share")
        if self.mask + self.noise + self.mix > 1 + 1e-9:
            raise SeparatorError("mask.mask, mask.noise, mask.mix: together they are over 1")
        require(self, "[0, 65536]", "mask.group", "mask.band")
        require(self, "[0, 60]", "mask.group_seconds")
        require(self, "[0, inf)", "mask.warmup_steps")
        if not self.group and not self.group_seconds:
            raise SeparatorError("mask.group: is 0, and so is mask.group_seconds; give one of them")
        if self.noise_level not in ("local", "full"):
            raise SeparatorError(f"mask.noise_level: {self.noise_level!r} is not local or full")

    @property
    def chosen_strategy(self) -> Strategy:
        """The strategy that `strategy` names."""
        return STRATEGIES[self.strategy]

    def options_of(self, strategy: Strategy) -> Options:
        """Return the settings that a strategy reads.

        Raises:
            SeparatorError: one of them is out of its limits.
        """
        names = [field.name for field in dataclasses.fields(strategy.config)]
        return strategy.config(**{name: getattr(self, name) for name in names})

    @property
    def kinds(self) -> set[str]:
        """Corruptions that occur in the run: names among `corruption.KINDS`."""
        shares = {"mask": self.mask, "noise": self.noise, "mix": self.mix}
        shares |= {"keep": 1 - sum(shares.values()), "clean": self.clean_share}
        return {kind for kind, share in shares.items() if share > 1e-9}

    def in_frames(self, frames_per_second: float) -> Self:
        """Return this with `group` in frames, made of `group_seconds` where it is 0."""
        group = self.group or max(1, round(self.group_seconds * frames_per_second))
        return replace(self, group=group, group_seconds=0.0)

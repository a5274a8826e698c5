"""Settings of masking: the choice of patches, and their corruption."""

import dataclasses
from dataclasses import dataclass, replace
from typing import Annotated, Literal, Self

from separator.help_format import sentence
from separator.pretrain.masking.strategy import STRATEGIES, Strategy, load
from separator.ranges import CheckedConfig, SettingError, Within

Share = Annotated[float, Within("[0, 1]")]


def _all_options() -> type:
    """Make a dataclass of the settings of all strategies.

    Raises:
        TypeError: two strategies have different defaults for one key.
    """
    fields: dict[str, dataclasses.Field] = {}
    lines = ["Settings of all strategies.", "", "Attributes:"]
    for strategy in load().values():
        for field in dataclasses.fields(strategy.config):
            first = fields.setdefault(field.name, field)
            if (first.type, first.default) != (field.type, field.default):
                raise TypeError(f"mask.{field.name} has two defaults, in {strategy.config}")
            if first is field:
                sentences = (sentence(cls, field.name) for cls in strategy.config.__mro__)
                lines.append(f"    {field.name}: {next(filter(None, sentences), '')}")
    rows = [(name, field.type, field.default) for name, field in fields.items()]
    made = dataclasses.make_dataclass("StrategyOptions", rows, bases=(CheckedConfig,), frozen=True)
    made.__doc__ = "\n".join(lines)
    return made


@dataclass(frozen=True)
class MaskConfig(_all_options()):  # type: ignore[misc]
    """The choice of patches, and their corruption.

    Attributes:
        strategy: rule that chooses patches; any other word, such as `list`, prints all names.
        group: frames in a patch, after the warm-up; with 0, `group_seconds` gives the length.
        group_seconds: length of a patch in seconds where `group` is 0, so that a preset fits any
            hop.
        band: bins in a patch; 0 makes patches of whole frames.
        mask: share of the chosen patches that is filled with 1.0; a sigmoid mask restores them by
            lowering them.
        noise: share of the chosen patches that is raised to noise.
        noise_level: "local" draws noise from 0 to twice the bin's mean in the crop, "full" from 0
            to 1, which is far above most music.
        mix: share of the chosen patches that is mixed with another crop of the batch, or with a
            voice; the rest is kept as it is.
        voices: folders with isolated voices, or with songs with stems, of which the vocals are
            taken; each as an entry of data.roots. Voices and songs are then changed at random, as
            the keys of `remix` say.
        voice_share: share of the mixed patches that is mixed with a voice instead of another crop,
            where there are voices.
        clean_share: share of the crops that is not corrupted, so that the network learns to return
            them unchanged; fine-tuning begins with such input, but fewer crops then have masked
            patches.
        warmup_steps: steps over which patches grow from 1 frame to `group`.
    """

    strategy: str = "uniform"
    group: Annotated[int, Within("[0, 65536]")] = 16
    group_seconds: Annotated[float, Within("[0, 60]")] = 0.0
    band: Annotated[int, Within("[0, 65536]")] = 0
    mask: Share = 0.8
    noise: Share = 0.1
    noise_level: Literal["local", "full"] = "local"
    mix: Share = 0.0
    voices: list[str] = dataclasses.field(default_factory=list)
    voice_share: Share = 0.5
    clean_share: Share = 0.0
    warmup_steps: Annotated[int, Within("[0, inf)")] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.strategy not in STRATEGIES:
            choices = ", ".join(STRATEGIES)
            raise self.invalid("strategy", f"{self.strategy!r} is not one of {choices}")
        try:  # the settings of other strategies are checked too
            for strategy in STRATEGIES.values():
                self.options_of(strategy)
        except SettingError as error:
            raise self.invalid(error.keys, error.reason) from error
        if self.mask + self.noise + self.mix > 1 + 1e-9:
            raise self.invalid("mask, noise, mix", "together they are over 1")
        if not self.group and not self.group_seconds:
            raise self.invalid("group", "is 0, and so is {}group_seconds; give one of them")

    @property
    def chosen_strategy(self) -> Strategy:
        """The strategy that `strategy` names."""
        return STRATEGIES[self.strategy]

    def options_of(self, strategy: Strategy) -> CheckedConfig:
        """Return the settings that a strategy reads.

        Raises:
            SettingError: one of them is out of its limits.
        """
        names = [field.name for field in dataclasses.fields(strategy.config)]
        return strategy.config(**{name: getattr(self, name) for name in names})

    @property
    def voice(self) -> float:
        """Share of the chosen patches that is mixed with a voice."""
        return self.mix * self.voice_share if self.voices else 0.0

    @property
    def kinds(self) -> set[str]:
        """Corruptions that occur in the run: names among `corruption.KINDS`."""
        shares = {"mask": self.mask, "noise": self.noise}
        shares |= {"mix": self.mix - self.voice, "voice": self.voice}
        shares |= {"keep": 1 - sum(shares.values()), "clean": self.clean_share}
        return {kind for kind, share in shares.items() if share > 1e-9}

    def in_frames(self, frames_per_second: float) -> Self:
        """Return these settings with `group` in frames; `group_seconds` gives it where it is 0.

        Args:
            frames_per_second: sample rate divided by the hop.
        """
        group = self.group or max(1, round(self.group_seconds * frames_per_second))
        return replace(self, group=group, group_seconds=0.0)

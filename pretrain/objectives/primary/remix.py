"""Take isolated voices out of songs that they were mixed with."""

from dataclasses import dataclass, field
from typing import Annotated

from separator.pretrain.objectives import PrimaryObjective, register
from separator.ranges import CheckedConfig, Within

Level = Annotated[float, Within("[-100, 100]")]


@dataclass(frozen=True)
class RemixConfig(CheckedConfig):
    """Songs without voices are mixed with isolated voices; the network removes the voices.

    Isolated voices are often dry, mono and band-limited, so a network could learn that wide or
    bright sound is music. The changes below take these cues away.

    Attributes:
        voices: folders with isolated voices, or with songs with stems, of which the vocals are
            taken; each as an entry of data.roots.
        detector: a model that separates vocals, a file or "tiny-vocals"; songs without stems in
            which it finds a voice are not used. Empty: all songs are.
        detector_db: level of the estimated vocals relative to the song, in decibels, that tells a
            voice: the highest in three excerpts of 8 s counts. Songs that are shorter, silent in
            one of them or unreadable are not used.
        level_db: lowest and highest level of a voice relative to its accompaniment, in decibels;
            the level of each mix is uniform between them.
        reverb: share of the voices that get reverberation.
        pan_db: a voice's left and right channels are moved apart by up to this much each way.
        narrow: share of the accompaniments whose left and right channels are brought nearer to
            each other, by a uniform amount.
        equalise_db: each stem's spectrum is raised and lowered by up to this much, smoothly.
        lowpass: share of the mixes whose stems both go through the same low-pass filter.
    """

    voices: list[str] = field(default_factory=list)
    detector: str = ""
    detector_db: Level = -15.0
    level_db: tuple[Level, Level] = (-12.0, 3.0)
    reverb: Annotated[float, Within("[0, 1]")] = 0.5
    pan_db: Annotated[float, Within("[0, 40]")] = 3.0
    narrow: Annotated[float, Within("[0, 1]")] = 0.5
    equalise_db: Annotated[float, Within("[0, 40]")] = 6.0
    lowpass: Annotated[float, Within("[0, 1]")] = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.level_db[0] > self.level_db[1]:
            raise self.invalid("level_db", f"{list(self.level_db)}; give the lower number first")


@register
class Remix(PrimaryObjective[RemixConfig]):
    """Songs without voices are mixed with isolated voices; the network removes the voices."""

    key = "remix"
    task_class = "separator.pretrain.remix_task:RemixTask"
    separates = True

    def check(self) -> None:
        """Refuse to remix without voices."""
        if not self.config.voices:
            raise self.config.invalid(
                "voices", "there are none; give folders with isolated voices or with stems"
            )

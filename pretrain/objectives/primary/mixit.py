"""Split sums of two songs."""

from dataclasses import dataclass, field
from typing import Annotated

from separator.errors import SeparatorError
from separator.pretrain.objectives import PrimaryObjective, register
from separator.ranges import CheckedConfig, Within


@dataclass(frozen=True)
class MixitConfig(CheckedConfig):
    """The sum of two songs is split into parts; those of each song must add up to it again.

    Attributes:
        sources: number of masks into which a sum of two songs is split.
        voices: folders of songs with stems; the mask that estimates their vocals best becomes the
            last layer of the file, negated, so that it keeps the accompaniment. Without any, the
            file has no such layer: fine-tune it with head=reset.
        voice_songs: number of the songs of `voices` that are used, up to 10 s of each.
        snr_db: signal-to-noise ratio in decibels above which a song counts as restored.
    """

    sources: Annotated[int, Within("[2, 12]")] = 8
    voices: list[str] = field(default_factory=list)
    voice_songs: Annotated[int, Within("[1, 10000]")] = 8
    snr_db: Annotated[float, Within("[1, 100]")] = 30.0


@register
class Mixit(PrimaryObjective[MixitConfig]):
    """The sum of two songs is split into parts; those of each song must add up to it again."""

    key = "mixit"
    task_class = "separator.pretrain.mixit_task:MixitTask"

    def check(self) -> None:
        """Refuse other architectures, and batches of a single crop."""
        if self.run.architecture != "frame_transformer":
            raise SeparatorError("architecture: mixit needs frame_transformer")
        if self.run.data.batch < 2:
            raise SeparatorError("data.batch: mixit adds two crops of a batch; give 2 or more")

"""Learn from the stems that trained models estimate."""

from dataclasses import dataclass, field
from typing import Annotated

from separator.errors import SeparatorError
from separator.pretrain.objectives import PrimaryObjective, register
from separator.ranges import CheckedConfig, Within


@dataclass(frozen=True)
class TeacherConfig(CheckedConfig):
    """The network learns from the stems that trained models estimate, in new mixtures.

    Attributes:
        models: model files that separate; the network learns from the mean of their estimates.
            Without any, data.roots are folders of stems that another program estimated.
        agreement_db: with two models or more, crops are left out where the SDR of one model's
            vocals (of all stems but the accompaniment or `other`) against the mean is below this,
            in decibels.
        sounding_db: crops are left out where one stem is louder than all others by more than this,
            in decibels (0 keeps all).
        contrast_db: crops are left out that have no tenth of a second in which one stem is louder
            than all others by this many decibels (0 keeps all).
        drop: share of the crops of each batch with the largest losses that are left out; crops of
            songs with stems stay.
        labels: folders of songs with stems, each as an entry of data.roots; part of each batch is
            crops of them, with their true stems.
        label_share: share of data.batch that comes from `labels`.
        label_fraction: share of the songs of `labels` that are used, chosen as by data.fraction.
    """

    models: list[str] = field(default_factory=list)
    agreement_db: Annotated[float, Within("[-100, 100]")] = 0.0
    sounding_db: Annotated[float, Within("[0, 200]")] = 30.0
    contrast_db: Annotated[float, Within("[0, 200]")] = 0.0
    drop: Annotated[float, Within("[0, 1)")] = 0.0
    labels: list[str] = field(default_factory=list)
    label_share: Annotated[float, Within("(0, 1)")] = 0.5
    label_fraction: Annotated[float, Within("(0, 1]")] = 1.0


@register
class Teacher(PrimaryObjective[TeacherConfig]):
    """Trained models separate songs; the network learns from their stems."""

    key = "teacher"
    task_class = "separator.pretrain.teacher_task:TeacherTask"
    Config = TeacherConfig
    separates = True
    any_stems = True

    def check(self) -> None:
        """Refuse batches too small for labels."""
        if self.config.labels and self.run.data.batch < 2:
            raise SeparatorError("data.batch: teacher.labels need a part of it; give 2 or more")

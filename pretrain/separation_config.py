"""Settings of the pretrainings that separate: remixing, and learning from a teacher."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from separator.errors import SeparatorError
from separator.ranges import CheckedConfig, Within

if TYPE_CHECKING:
    from separator.pretrain.config import PretrainConfig

Level = Annotated[float, Within("[-100, 100]")]


@dataclass(frozen=True)
class RemixConfig(CheckedConfig):
    """Songs without voices are mixed with isolated voices; the network removes the voices.

    Isolated voices are often dry, mono and band-limited, so a network could learn that wide or
    bright sound is music. The changes below take these cues away.

    Attributes:
        voices: folders with isolated voices, or with songs with stems, of which the vocals are
            taken; each as an entry of data.roots.
        level_db: lowest and highest level of a voice relative to its accompaniment, in decibels;
            the level of each mix is uniform between them.
        reverb: share of the voices that get reverberation.
        pan_db: a voice's left and right channels are moved apart by up to this much each way.
        narrow: share of the accompaniments whose left and right channels are brought nearer to
            each other, by a uniform amount.
        equalise_db: each stem's spectrum is raised and lowered by up to this much, smoothly.
        lowpass: share of the mixes of which both stems go through the same low-pass filter.
    """

    voices: list[str] = field(default_factory=list)
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

    def check(self, run: "PretrainConfig") -> None:
        """Refuse to remix without voices."""
        if not self.voices:
            raise self.invalid(
                "voices", "there are none; give folders with isolated voices or with stems"
            )


@dataclass(frozen=True)
class TeacherConfig(CheckedConfig):
    """Trained models separate songs; the network learns from their stems, shuffled anew.

    Attributes:
        models: model files that can separate; the mean of their estimates counts.
        agreement_db: with two models or more, crops are left out where the SDR of one model's
            vocals against the mean is below this.
        sounding_db: crops are left out where one stem is softer than the other by more than this
            (0 keeps all).
        contrast_db: crops are left out where the stems never differ by this much within a tenth of
            a second, in which one of them is known to sound alone (0 keeps all).
        drop: share of the crops of each batch with the largest losses that are left out; crops of
            songs with stems stay.
        labels: folders of songs with stems, each as an entry of data.roots; part of each batch is
            crops of them, with their true stems.
        label_share: this part, a share of data.batch.
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

    def check(self, run: "PretrainConfig") -> None:
        """Refuse to learn without a teacher, and batches too small for labels."""
        if not self.models:
            raise self.invalid("models", "there is none; give a model file of `separator train`")
        if self.labels and run.data.batch < 2:
            raise SeparatorError("data.batch: teacher.labels need a part of it; give 2 or more")


@dataclass(frozen=True)
class MixitConfig(CheckedConfig):
    """Two songs are mixed and split into several parts, which must add up to either song again.

    Attributes:
        sources: number of masks.
        voices: folders of songs with stems; the mask that estimates their vocals best becomes the
            last layer of the file, negated, so that it keeps the accompaniment. Without any, the
            file has no such layer: fine-tune it with head=reset.
        voice_songs: number of these songs that are looked at, up to 10 s of each.
        snr_db: signal-to-noise ratio beyond which a song counts as restored.
    """

    sources: Annotated[int, Within("[2, 12]")] = 8
    voices: list[str] = field(default_factory=list)
    voice_songs: Annotated[int, Within("[1, 10000]")] = 8
    snr_db: Annotated[float, Within("[1, 100]")] = 30.0

    def check(self, run: "PretrainConfig") -> None:
        """Refuse other architectures, and batches of a single crop."""
        if run.architecture != "frame_transformer":
            raise SeparatorError("architecture: mixit needs frame_transformer")
        if run.data.batch < 2:
            raise SeparatorError("data.batch: mixit adds two crops of a batch; give 2 or more")

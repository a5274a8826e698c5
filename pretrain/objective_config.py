"""Settings of the objectives beside the masked error."""

from dataclasses import dataclass, replace
from typing import Literal, Self

from separator.errors import SeparatorError
from separator.pretrain import schedules
from separator.pretrain.schedules import Schedule
from separator.ranges import require

LARGEST_WEIGHT = 0.2  # beyond, textures sharpen at the cost of the error that is to be learned


@dataclass(frozen=True)
class NextConfig:
    """Half of the crops go on with another song, or another place of the song; tell which.

    Attributes:
        weight: weight of this objective; 0 leaves it and the separator out.
        token: frames of the separator, half of them on each side of the joint; 0 leaves it to
            `token_seconds`.
        token_seconds: length of the separator where `token` is 0, so that a preset fits any hop.
        same: part of the negatives that go on with the same song, at least half a crop away from
            the true continuation, which is harder to tell; the rest goes on with another song.
        bands: add what 64 bands of the bare input tell of the two halves to the answer; without,
            the answer is the network's own and the bands are only measured beside it.
        gain_db: each half is raised or lowered by up to this much, and so is, once more, that in
            which its channels differ.
        tilt_db: each half's spectrum is tilted, and bent, by up to this much per octave.
        lowpass: part of the crops of which both halves go through the same low-pass.
    """

    weight: Schedule = 0.0
    token: int = 16
    token_seconds: float = 0.0
    same: float = 0.0
    bands: bool = False
    gain_db: float = 6.0
    tilt_db: float = 1.0
    lowpass: float = 0.5

    def __post_init__(self) -> None:
        schedules.check("next.weight", self.weight)
        if self.token < 0 or self.token % 2 or not (self.token or self.token_seconds):
            raise SeparatorError(
                f"next.token: {self.token} frames; give an even number of at least 2, or 0 and "
                "next.token_seconds"
            )
        require(self, "[0, 65536]", "next.token")
        require(self, "[0, 60]", "next.token_seconds")
        require(self, "[0, 1]", "next.same", "next.lowpass")
        require(self, "[0, 100]", "next.gain_db", "next.tilt_db")

    def in_frames(self, frames_per_second: float) -> Self:
        """Return this with `token` in frames, made of `token_seconds` where it is 0."""
        token = self.token or 2 * max(1, round(self.token_seconds * frames_per_second / 2))
        return replace(self, token=token, token_seconds=0.0)


@dataclass(frozen=True)
class LabelConfig:
    """Predicting the cluster of what is hidden (HuBERT, arXiv 2106.07447).

    Attributes:
        weight: weight of the objective; 0 leaves it out.
        clusters: number of labels.
        group: frames that share a label; a crop's last frames that fill no group have none.
        crops: training crops that the clusters are fitted on when a run starts.
        source: what is clustered, "spectrum" (log-mel) or "deep" (deepest features of `model`).
        model: a pretrained model's file, for "deep": HuBERT's second iteration.
        unmasked_weight: weight of the groups that are heard, beside 1 of the hidden ones.
    """

    weight: Schedule = 0.0
    clusters: int = 128
    group: int = 16
    crops: int = 256
    source: Literal["spectrum", "deep"] = "spectrum"
    model: str = ""
    unmasked_weight: float = 0.0

    def __post_init__(self) -> None:
        schedules.check("labels.weight", self.weight)
        require(self, "[2, 65536]", "labels.clusters")
        require(self, "[1, 65536]", "labels.group", "labels.crops")
        require(self, "[0, inf)", "labels.unmasked_weight")
        if self.source not in ("spectrum", "deep"):
            raise SeparatorError(f"labels.source: {self.source!r} is not spectrum or deep")
        if (self.source == "deep") != bool(self.model):
            raise SeparatorError(
                f"labels.model: {self.model!r} with labels.source {self.source}; "
                "deep needs a pretrained model's file, and spectrum takes none"
            )


@dataclass(frozen=True)
class ContrastConfig:
    """Telling the hidden cells of a crop apart.

    Attributes:
        weight: weight of the cross-entropy.
        features: numbers in which a cell is compared.
        temperature: what cosines are divided by.
        most: hidden cells of a crop that are compared; of more, so many are drawn.
    """

    weight: Schedule = 0.0
    features: int = 256
    temperature: float = 0.1
    most: int = 256

    def __post_init__(self) -> None:
        schedules.check("contrast.weight", self.weight)
        require(self, "[1, 16384]", "contrast.features")
        require(self, "[2, 65536]", "contrast.most")
        require(self, "(0, inf)", "contrast.temperature")


@dataclass(frozen=True)
class HardConfig:
    """Prediction of the error of each cell, which `mask.strategy=hard` needs.

    Attributes:
        weight: weight of the ranking loss of the predictor.
    """

    weight: Schedule = 0.0

    def __post_init__(self) -> None:
        schedules.check("hard.weight", self.weight)


@dataclass(frozen=True)
class AdversaryConfig:
    """The adversarial objective.

    Attributes:
        weight: norm of the adversarial gradient at the restored spectrogram, as a share of the
            masked error's: at most 0.2; 0 is off. It counts from `start` on.
        kind: token judges the hidden frame groups as a batch of their own, with nothing around
            them (and needs cells of whole frames); frame judges every hidden frame in its place,
            with three frames on each side, frame_transformer with all frames of the crop.
        loss: hinge, least_squares or bce (binary cross-entropy).
        channels: of the discriminator's first stage; each stage doubles them.
        lr: learning rate of the discriminator, at most the generator's.
        ceiling: the discriminator waits while its running accuracy is above this; one that is
            always right teaches nothing (Wu et al. 2016, arXiv 1610.07584). 1 never waits.
        betas: decay of its optimizer's running mean and square.
        start: step from which the discriminator trains.
    """

    weight: Schedule = 0.0
    kind: Literal["token", "frame", "frame_transformer"] = "token"
    loss: Literal["hinge", "least_squares", "bce"] = "hinge"
    channels: int = 8
    lr: float = 3e-5
    ceiling: float = 0.72
    betas: tuple[float, float] = (0.5, 0.99)
    start: int = 1000

    def __post_init__(self) -> None:
        schedules.check("adversary.weight", self.weight)
        largest = schedules.highest(self.weight)
        if largest > LARGEST_WEIGHT:
            raise SeparatorError(
                f"adversary.weight: {largest} is over {LARGEST_WEIGHT}, the largest "
                "share of the masked error's gradient; 0.1 is usual"
            )
        require(self, "[1, 4096]", "adversary.channels")
        require(self, "(0, inf)", "adversary.lr")
        require(self, "[0, 1)", "adversary.betas")
        require(self, "[0, inf)", "adversary.start")
        if not 0.5 < self.ceiling <= 1:
            raise SeparatorError(
                f"adversary.ceiling: {self.ceiling} is not in (0.5, 1]; guessing is right in half "
                "of the cases, and 1 is no ceiling"
            )


def needs_whole_frames(config: AdversaryConfig) -> bool:
    """Whether cells must be whole frames (`mask.band` of 0): a token has all of their bins."""
    return config.kind == "token"

"""An adversarial (GAN) loss on the masked patches."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from separator.errors import SeparatorError
from separator.pretrain import schedules
from separator.pretrain.lazy_torch import nn, torch
from separator.pretrain.objectives import Loss, Objective, ObjectiveConfig, Prediction, register
from separator.ranges import Within

if TYPE_CHECKING:
    from separator.pretrain.batch import Example
    from separator.pretrain.objectives.adversary import Adversary

Fraction = Annotated[float, Within("[0, 1)")]
MAX_WEIGHT = 0.2  # beyond, textures sharpen at the cost of the masked error


@dataclass(frozen=True)
class AdversaryConfig(ObjectiveConfig):
    """Make the restored patches look real to a discriminator (an adversarial loss).

    Attributes:
        weight: norm of the adversarial gradient at the restored spectrogram, as a share of the
            masked error's: at most 0.2; 0 is off. It counts from `start` on.
        kind: token judges the masked frame groups as a batch of their own, without context (and
            needs patches of whole frames); frame judges every masked frame in its place, with three
            frames on each side, frame_transformer with all frames of the crop.
        loss: hinge, least_squares or bce (binary cross-entropy).
        channels: channels of the discriminator's first stage; each further stage has twice as many.
        lr: learning rate of the discriminator, at most optim.lr.
        ceiling: the discriminator is not trained while its running accuracy is above this number,
            since one that is always right teaches nothing (Wu et al. 2016, arXiv 1610.07584). 1
            always trains it.
        betas: decay of the running mean and the running square of the discriminator's gradient.
        start: step from which the discriminator trains.
    """

    kind: Literal["token", "frame", "frame_transformer"] = "token"
    loss: Literal["hinge", "least_squares", "bce"] = "hinge"
    channels: Annotated[int, Within("[1, 4096]")] = 8
    lr: Annotated[float, Within("(0, inf)")] = 3e-5
    ceiling: Annotated[float, Within("(0.5, 1]")] = 0.72  # guessing is right in half of the cases
    betas: tuple[Fraction, Fraction] = (0.5, 0.99)
    start: Annotated[int, Within("[0, inf)")] = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        largest = schedules.highest(self.weight)
        if largest > MAX_WEIGHT:
            raise self.invalid(
                "weight",
                f"{largest} is over {MAX_WEIGHT}, the largest share of the masked error's "
                "gradient; 0.1 is usual",
            )


@register
class Adversarial(Objective[AdversaryConfig]):
    """Add an adversarial loss: a discriminator is trained beside the model."""

    key = "adversary"
    meeting_point = "restored"
    needs_masked = True
    validated = False  # its loss trains the discriminator

    def check(self) -> None:
        """Refuse tokens of a part of the bins, and a learning rate above the model's.

        Raises:
            SeparatorError: names the key and the fix.
        """
        if self.config.kind == "token" and self.run.mask.band:
            raise SeparatorError(
                "adversary.kind: token judges whole frames; give mask.band=0 or "
                "adversary.kind=frame"
            )
        if self.config.lr > self.run.optim.lr:
            raise SeparatorError(
                f"adversary.lr: {self.config.lr} is above optim.lr, {self.run.optim.lr}; the "
                "discriminator is not to learn faster"
            )

    def create_discriminator(self, device: "torch.device") -> "Adversary":
        """Return the discriminator, with its optimizer and losses."""
        from separator.pretrain.objectives.adversary import Adversary

        sizes = 2, self.run.stft.bins, self.run.mask.group
        self.discriminator = Adversary(self.config, *sizes).to(device)
        return self.discriminator

    def weight(self, step: int) -> float:
        """Return the weight at a step: 0 before the discriminator trains."""
        return super().weight(step) if step >= self.config.start else 0.0

    def loss(self, head: "nn.Module", batch: "Example", prediction: Prediction) -> Loss:
        """Train the discriminator for one micro-batch; return the generator's loss.

        The discriminator's learning rate follows the model's schedule: a discriminator that goes on
        learning while the model no longer does would win.
        """
        adversary, size = self.discriminator, batch.corrupted.grid.size
        adversary.set_rate(prediction.rate)
        restored, corrupted = prediction.restored, batch.corrupted
        logs = adversary.discriminate(batch.target, restored, corrupted, size, prediction.step)
        if not self.weight(prediction.step):
            return None, logs
        return adversary.generator_loss(restored, corrupted, size), logs

"""The backbone and the heads of all that is asked of it beside restoring."""

import math

import torch
from torch import Tensor, nn

from separator.models.base import Outputs
from separator.pretrain import schedules
from separator.pretrain.adversary import Adversary, weight_at
from separator.pretrain.balance import Objective
from separator.pretrain.clusters import BackboneFeatures, Labeller, Spectrum
from separator.pretrain.config import PretrainConfig
from separator.pretrain.contrast import ContrastHead
from separator.pretrain.example import Example
from separator.pretrain.hard import LossPredictor, mine
from separator.pretrain.labels import LabelHead, hidden_groups, without_outside
from separator.pretrain.masking.grid import PatchGrid
from separator.pretrain.next import NextHead


class Pretrainer(nn.Module):
    """What is trained: the backbone, which is kept, and the heads, which are not.

    Args:
        backbone: a model of `separator.models`.
        config: which heads there are.
        label_features: what `labels` clusters; 0 without it.
    """

    def __init__(self, backbone: nn.Module, config: PretrainConfig, label_features: int) -> None:
        super().__init__()
        self.backbone, self.heads = backbone, nn.ModuleDict()
        bins, features = config.stft.bins - 1, backbone.bottleneck_features
        band = config.mask.band or bins
        if schedules.enabled(config.next.weight):
            self.heads["next"] = NextHead(features, bins, config.next)
        if schedules.enabled(config.labels.weight):
            self.heads["labels"] = LabelHead(features, config.labels)
            self.labeller = Labeller(label_features, config.labels.clusters)
        if schedules.enabled(config.contrast.weight):
            self.heads["contrast"] = ContrastHead(config.contrast, backbone.pre_head_channels, band)
        if schedules.enabled(config.hard.weight):
            self.heads["hard"] = LossPredictor(features, bins // band)

    def forward(self, x: Tensor, masked: Tensor | None = None) -> Outputs:
        """Return the backbone's mask and features; see `FrameTransformer.features`."""
        return self.backbone.features(x, masked)

    @torch.no_grad()
    def predict(self, target: Tensor, grid: PatchGrid) -> Tensor:
        """Predict the error of each cell from the whole spectrogram: (b c f n) to (b k m)."""
        return self.heads["hard"](self.backbone.features(target).bottleneck, grid)

    def objectives(
        self,
        example: Example,
        outputs: Outputs,
        restored: Tensor,
        config: PretrainConfig,
        step: int,
        generator: torch.Generator,
        extract: Spectrum | BackboneFeatures | None,
    ) -> tuple[dict[str, Objective], dict[str, Tensor]]:
        """Return the loss of every head with its weight at this step, and what to log.

        Args:
            example: the batch.
            outputs: the backbone's answer to `example.corrupted`.
            restored: (b c f n) the corrupted spectrogram under the mask.
            config: weights.
            step: finished steps of the run.
            generator: on the CPU.
            extract: makes what is clustered, where there are labels.
        """
        heads, deep, corrupted = self.heads, outputs.bottleneck, example.corrupted
        found: dict[str, tuple[Tensor, dict[str, Tensor]]] = {}
        if "next" in heads:
            found["next"] = heads["next"].loss(
                deep, corrupted.spectrogram, corrupted.masked, example.continues
            )
        if "labels" in heads:
            group = config.labels.group
            labels = self.labeller(extract(example.spectrogram))
            labels = without_outside(labels, corrupted, group)
            found["labels"] = heads["labels"].loss(deep, labels, hidden_groups(corrupted, group))
        if "contrast" in heads:
            found["contrast"] = heads["contrast"].loss(
                outputs.pre_head, example.target, corrupted, generator
            )
        if "hard" in heads:
            found["hard"] = mine(
                heads["hard"], deep, restored, example.target, corrupted, generator
            )
        objectives, scalars = {}, {}
        for name, (loss, logged) in found.items():
            meets = outputs.pre_head if name == "contrast" else outputs.balance_point
            objectives[name] = Objective(
                loss, schedules.value(getattr(config, name).weight, step), meets
            )
            scalars |= {f"loss/{name}": loss.detach(), **logged}
        return objectives, scalars


def deceive(
    adversary: Adversary, example: Example, restored: Tensor, step: int, pace: float
) -> tuple[dict[str, Objective], dict[str, Tensor]]:
    """Train the discriminator, and return what the model is to fool it with, once it has begun.

    Args:
        adversary: the discriminator.
        example: the batch.
        restored: (b c f n) the model's answer.
        step: finished steps of the run.
        pace: the learning rate's place in its schedule, the same for both sides: a discriminator
            that goes on learning while the model no longer does would win.
    """
    size = example.corrupted.grid.size
    adversary.slow(pace)
    scalars = adversary.discriminate(example.target, restored, example.corrupted, size, step)
    weight = weight_at(adversary.config, step)
    if not weight:
        return {}, scalars | {"loss/adversary": restored.new_tensor(math.nan)}
    loss = adversary.fool(restored, example.corrupted, size)
    objective = Objective(loss, weight, restored)
    return {"adversary": objective}, scalars | {"loss/adversary": loss.detach()}

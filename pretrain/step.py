"""The pretext task: corrupted spectrograms in, the mask that restores them out."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from separator.data.dataset import Batch, batches
from separator.data.identity import song_digests
from separator.data.tracks import training_tracks
from separator.engine import distributed
from separator.engine.optim import schedule
from separator.engine.task import Task, Validation
from separator.errors import SeparatorError
from separator.models.build import create, describe
from separator.pretrain import schedules
from separator.pretrain.adversary import Adversary
from separator.pretrain.balance import total
from separator.pretrain.clusters import extractor, fit_labels
from separator.pretrain.config import PretrainConfig
from separator.pretrain.crop_media import show_crops
from separator.pretrain.example import Example, make_example
from separator.pretrain.heads import Pretrainer, deceive
from separator.pretrain.masking.corruption import KINDS
from separator.pretrain.objectives import masked_error
from separator.pretrain.validate import ValidationCrops


class PretrainTask(Task):
    """What the loop trains: a model, its songs, its pretext task, its score.

    Raises:
        SeparatorError: no songs to train on or to validate with.
    """

    def __init__(self, config: PretrainConfig) -> None:
        self.config = config
        self.device = distributed.own_device(config.device)
        self.extract, features = None, 0
        if schedules.enabled(config.labels.weight):
            self.extract = extractor(config.labels, config.stft, config.rate).to(self.device)
            features = self.extract.features
        torch.manual_seed(config.seed)
        backbone = create(config.sizes, config.stft.bins)
        self.model = Pretrainer(backbone, config, features)
        self.teacher = self.model  # until `attach` gives the average
        if schedules.enabled(config.adversary.weight):
            sizes = 2, config.stft.bins, config.mask.group
            self.companion = Adversary(config.adversary, *sizes).to(self.device)
        self.train, self.valid = training_tracks(config.data)
        if schedules.enabled(config.next.weight) and config.next.same < 1 and len(self.train) < 2:
            raise SeparatorError(
                "next.same: crops go on with other songs, but there is one song to train on; give "
                "next.same=1, which takes another place of the same song, or more songs"
            )
        self.crops = ValidationCrops(self.valid, config)
        begins = self.extract and not (Path(config.run) / "last.pt").exists()
        if begins and distributed.rank() == 0:  # the clusters are sent out with its weights
            waves = (batch.mixture for batch in self.batches(0))
            fit_labels(self.model.labeller, self.extract, waves, config.labels)

    def attach(self, averaged: Pretrainer) -> None:
        """Take the averaged model as the teacher that says which cells are hard."""
        self.teacher = averaged

    def songs(self) -> Tensor:
        """Return what tells the songs trained on and validated with."""
        return song_digests([*self.train, *self.valid])

    def batches(self, start: int, stride: int = 1) -> Iterator[Batch]:
        """Yield micro-batches of mixtures number `start`, `start + stride`, …"""
        config = self.config
        return batches(
            self.train,
            config.items,
            config.rate,
            config.seed,
            start,
            stride,
            mixtures=True,
            device=self.device,
        )

    def example(self, batch: Batch, step: int, generator: torch.Generator) -> Example:
        """Make of a batch what the model is shown at a step, and what it is to answer."""
        config = self.config
        return make_example(
            batch.mixture, config, config.mask, step, generator, batch.valid,
            self.teacher.predict, batch.songs, config.data.batch,
        )  # fmt: skip

    def step(
        self, model: nn.Module, batch: Batch, step: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Return the losses of one micro-batch."""
        config = self.config
        example = self.example(batch, step, generator)
        corrupted = example.corrupted
        outputs = model(corrupted.spectrogram, corrupted.masked)
        restored = corrupted.spectrogram * outputs.mask
        weights = (
            schedules.value(config.masked_weight, step),
            schedules.value(config.unmasked_weight, step),
        )
        squared = config.error == "mse"
        scalars = masked_error(restored, example.target, corrupted, *weights, squared)
        for kind in set(KINDS) - config.mask.kinds:  # a gap in its curve, no zero
            scalars[f"loss_share/{kind}"] = restored.new_tensor(math.nan)
        objectives, logged = self.model.objectives(
            example, outputs, restored, config, step, generator, self.extract
        )
        if self.companion:
            # every micro-batch is a step of it, together as long as one
            pace = schedule(config.optim, step, config.steps) / self.accumulate
            more, numbers = deceive(self.companion, example, restored, step, pace)
            objectives, logged = objectives | more, logged | numbers
        scalars["loss"] = total(scalars["loss"], objectives, config.balance)
        return scalars | logged

    def seconds(self, batch: Batch) -> float:
        """Seconds of audio in a batch; what `next` reads around its crops does not count."""
        if schedules.enabled(self.config.next.weight):
            return self.config.data.batch * self.config.data.segment_seconds
        return batch.seconds(self.config.rate)

    def preview(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Validation:
        """Show the first crops of the training, and what the untrained model makes of them."""
        result = Validation({}, 0.0)
        show_crops(result, "training_crop", model, self.example(batch, 0, generator), self.config)
        return result

    def validate(self, model: nn.Module, step: int) -> Validation:
        """Restore hidden cells of songs not trained on; compare with the trivial answers."""
        return self.crops.validate(model, self.device, step, self.extract)

    def describe(self) -> dict[str, Any]:
        """Return what the model's file says of it."""
        config = self.config
        about = describe(config.sizes, config.stft, config.rate)
        return {"stage": "pretrain", "part": "backbone", **about}

"""The pretext task: a mask restores corrupted spectrograms."""

import math
from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor, nn

from separator.data.config import DataConfig
from separator.data.dataset import Batch
from separator.data.tracks import training_tracks
from separator.engine import distributed
from separator.engine.optim import schedule
from separator.engine.song_task import SongTask
from separator.engine.task import Validation
from separator.pretrain import schedules
from separator.pretrain.batch import Example, make_example
from separator.pretrain.config import PretrainConfig
from separator.pretrain.crop_media import show_crops
from separator.pretrain.masking.corruption import KINDS
from separator.pretrain.masking.grid import PatchGrid
from separator.pretrain.model import Pretrainer, predict_errors
from separator.pretrain.objectives import Prediction
from separator.pretrain.objectives.balance import auxiliary_losses, total
from separator.pretrain.objectives.restoration import masked_error
from separator.pretrain.validate import ValidationCrops


class PretrainTask(SongTask):
    """The pretext task for the training loop: model, songs, loss and validation.

    Raises:
        SeparatorError: no songs to train on or to validate with.
    """

    about: ClassVar = {"stage": "pretrain", "part": "backbone"}

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__(config)
        self.objectives, self.crops = config.objectives, config.crops
        for objective in self.objectives:
            objective.prepare(self.device)
        self.model = Pretrainer(self.make_model(), self.objectives)
        self.teacher = self.model  # until `attach` gives the average
        for objective in self.objectives:
            self.discriminator = objective.create_discriminator(self.device) or self.discriminator
        self.train, self.valid = training_tracks(config.data)
        for objective in self.objectives:
            objective.check_tracks(self.train)
        self.validation = ValidationCrops(self.valid, config, self.objectives)
        if self.begins and distributed.rank() == 0:  # other ranks get the heads with the weights
            for objective in self.objectives:
                objective.start(self.model.head(objective), self._waves())

    def attach(self, averaged: Pretrainer) -> None:
        """Take the averaged model as the teacher that predicts errors."""
        self.teacher = averaged

    def predict_errors(self, target: Tensor, grid: PatchGrid) -> Tensor:
        """Predict the error of each patch with the averaged model.

        Args:
            target: (b c f n) the uncorrupted magnitudes.
            grid: the patches.

        Returns:
            (b k m), higher for patches that are harder to restore.
        """
        return predict_errors(self.teacher, self.objectives, target, grid)

    def data(self) -> DataConfig:
        """Return how batches are read."""
        return self.crops.data()

    def seconds(self, batch: Batch) -> float:
        """Seconds of audio in a batch."""
        return self.crops.seconds(batch)

    def _waves(self) -> Iterator[Tensor]:
        """Yield the waves (b c t) of the first micro-batches."""
        for batch in self.batches(0):
            yield batch.mixture

    def example(self, batch: Batch, step: int, generator: torch.Generator) -> Example:
        """Return the crops of a batch, their targets and their corruption.

        Args:
            batch: segments as read.
            step: finished steps of the run.
            generator: on the CPU; all randomness comes from it.
        """
        config = self.config
        return make_example(
            batch.mixture, config, config.mask, step, generator, batch.valid,
            self.predict_errors, batch.songs, config.data.batch,
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
        # a discriminator makes a step in every micro-batch, together as long as one
        rate = schedule(config.optim, step, config.steps) / self.accumulate
        prediction = Prediction(outputs, restored, step, generator, rate)
        losses, logs = auxiliary_losses(self.objectives, self.model, example, prediction)
        scalars["loss"] = total(scalars["loss"], losses, config.balance)
        return scalars | logs

    def preview(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Validation:
        """Return pictures and sounds of the first training crops and of their restoration."""
        result = Validation({}, 0.0)
        show_crops(result, "training_crop", model, self.example(batch, 0, generator), self.config)
        return result

    def validate(self, model: nn.Module, step: int) -> Validation:
        """Restore masked patches of songs not trained on; compare with the trivial answers."""
        return self.validation.validate(model, self.device, step)

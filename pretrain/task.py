"""The pretext task: a mask restores corrupted spectrograms."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from separator.data.config import DataConfig
from separator.data.dataset import Batch, batches
from separator.data.identity import song_digests
from separator.data.tracks import Track, training_tracks
from separator.engine import distributed
from separator.engine.optim import schedule
from separator.engine.song_task import SongTask
from separator.engine.task import Validation
from separator.errors import SeparatorError
from separator.pretrain import schedules
from separator.pretrain.batch import Example, make_example
from separator.pretrain.config import PretrainConfig
from separator.pretrain.crop_media import show_crops
from separator.pretrain.effects import varied
from separator.pretrain.masking.corruption import KINDS
from separator.pretrain.masking.grid import PatchGrid
from separator.pretrain.model import Pretrainer, predict_errors
from separator.pretrain.objectives import Prediction
from separator.pretrain.objectives.balance import auxiliary_losses, total
from separator.pretrain.objectives.restoration import masked_error
from separator.pretrain.remix_task import find_voices
from separator.pretrain.validate import ValidationCrops
from separator.stems import MIXTURE, VOCALS

VOICES = 0x766F69  # keeps the draws of voices apart from those of songs


class PretrainTask(SongTask):
    """The pretext task for the training loop: model, songs, loss and validation.

    Attributes:
        voices: isolated voices that patches are mixed with, if any.

    Raises:
        SeparatorError: no songs to train on or to validate with, or no voices to train with.
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
        self.voices = self._find_voices()
        for objective in self.objectives:
            objective.check_tracks(self.train)
        self.validation = ValidationCrops(self.valid, config, self.objectives)
        if self.begins and distributed.rank() == 0:  # other ranks get the heads with the weights
            for objective in self.objectives:
                waves = (batch.stems[:, 0] for batch in self.batches(0))
                objective.start(self.model.head(objective), waves)

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

    def songs(self) -> Tensor:
        """Return what tells the songs and voices trained on and validated with."""
        return song_digests([*self.train, *self.valid, *self.voices])

    def batches(self, start: int, stride: int = 1) -> Iterator[Batch]:
        """Yield micro-batches of mixtures, with voices as a second stem if there are any."""
        songs = super().batches(start, stride)
        if not self.voices:
            return songs
        drawn = self.config.rate, self.config.seed ^ VOICES, start, stride
        voices = batches(self.voices, self.data(), *drawn, mixtures=True, device=self.device)
        return map(_with_voices, songs, voices)

    def _find_voices(self) -> list[Track]:
        """Return the voices to train with, each as a song of its own."""
        config = self.config
        if not config.mask.voices:
            return []
        voices = find_voices(config.data, config.mask.voices)
        tracks = [replace(t, stems=((MIXTURE, s),)) for t, s in voices if t.split == "train"]
        if not tracks:
            raise SeparatorError(
                "mask.voices: no voices to train with; give folders with isolated voices or stems"
            )
        return tracks

    def seconds(self, batch: Batch) -> float:
        """Seconds of audio in a batch."""
        return self.crops.seconds(batch)

    def example(self, batch: Batch, step: int, generator: torch.Generator) -> Example:
        """Return the crops of a batch, their targets and their corruption.

        Args:
            batch: mixtures as read, and voices behind them if there are any.
            step: finished steps of the run.
            generator: on the CPU; all randomness comes from it.
        """
        config = self.config
        waves, voices = batch.stems[:, 0], None
        if self.voices:
            waves, voices = varied(batch.stems, config.remix, config.rate, generator).unbind(1)
        return make_example(
            waves, config, config.mask, step, generator, batch.valid,
            self.predict_errors, batch.songs, config.data.batch, voices,
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
        masked = schedules.value(config.masked_weight, step)
        unmasked = schedules.value(config.unmasked_weight, step)
        squared = config.error == "mse"
        scalars = masked_error(restored, example.target, corrupted, masked, unmasked, squared)
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


def _with_voices(songs: Batch, voices: Batch) -> Batch:
    """Return a batch of songs with the voices of another one as second stems."""
    stems = torch.cat([songs.stems, voices.stems], dim=1)
    return replace(songs, stems=stems, names=(*songs.names, VOCALS))

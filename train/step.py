"""The fine-tuning task: mixtures in, the accompaniment's mask out."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from separator.data.identity import song_digests
from separator.data.loader import Batch, batches
from separator.data.sources import training_tracks
from separator.engine import distributed
from separator.engine.task import Task, Validation
from separator.losses import SeparationLoss
from separator.models import create, describe
from separator.stft import istft, normalise, stft
from separator.train.config import TrainConfig
from separator.train.specaugment import blocks_to_keep
from separator.train.transfer import freeze_body, layer_rates, load_pretrained
from separator.train.validate import SHOWN, show_waves, validate


class TrainTask(Task):
    """What the loop trains: a model, its data, its loss, its score.

    Raises:
        SeparatorError: no songs to train on or to validate with, or a pretrained file that does
            not fit.
    """

    def __init__(self, config: TrainConfig, resumes: bool = False) -> None:
        self.config = config
        self.device = distributed.own_device(config.device)
        torch.manual_seed(config.seed)
        self.model = create(config.sizes, config.stft.bins)
        if config.pretrained and not resumes:
            load_pretrained(self.model, config)
        self.loss = SeparationLoss(config.loss, config.stft).to(self.device)
        self.train, self.valid = training_tracks(config.data)

    def parameter_groups(self) -> list[dict]:
        """Return the weights with the factors on their learning rate, and when they begin."""
        groups = super().parameter_groups()
        if self.config.pretrained and self.config.layer_decay < 1:
            groups = layer_rates(self.model, self.config.layer_decay)
        if self.config.pretrained and self.config.frozen_steps:
            groups = freeze_body(self.model, groups, self.config.frozen_steps)
        return groups

    def songs(self) -> Tensor:
        """Return what tells the songs trained on and validated with."""
        return song_digests([*self.train, *self.valid])

    def batches(self, start: int, stride: int = 1) -> Iterator[Batch]:
        """Yield micro-batches number `start`, `start + stride`, …"""
        config = self.config
        return batches(
            self.train, config.data, config.rate, config.seed, start, stride, device=self.device
        )

    def step(
        self, model: nn.Module, batch: Batch, step: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Return the losses of one micro-batch."""
        accompaniment = _accompaniment(batch)
        spectrogram = stft(batch.mixture, self.config.stft)
        magnitude, scale = normalise(spectrogram.abs(), self.config.stft)
        if self.config.specaugment.on:
            keep = self._blocks_to_keep(magnitude, step, generator)
            magnitude = magnitude * keep
            if self.config.specaugment.target == "alike":
                spectrogram = spectrogram * keep
                target = stft(accompaniment, self.config.stft) * keep
                accompaniment = istft(target, self.config.stft, accompaniment.shape[-1])
        mask = model(magnitude)
        return self.loss(mask, spectrogram, scale, accompaniment)

    def _blocks_to_keep(self, magnitude: Tensor, step: int, generator: torch.Generator) -> Tensor:
        """Draw the blocks of a batch (b 1 f n); the network looks without dropout or statistics."""
        config = self.config
        self.model.eval()
        try:
            return blocks_to_keep(
                magnitude,
                self.model,
                config.specaugment,
                config.stft,
                config.rate,
                step / config.steps,
                generator,
            )
        finally:
            self.model.train()

    def seconds(self, batch: Batch) -> float:
        """Seconds of audio in a batch."""
        return batch.seconds(self.config.rate)

    def preview(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Validation:
        """Show the first crops of the training, mixtures and targets."""
        result, targets = Validation({}, 0.0), _accompaniment(batch)
        for index, mixture in enumerate(batch.mixture[:SHOWN]):
            waves = {"mixture": mixture, "target": targets[index]}
            show_waves(result, f"training_crop{index}", waves, self.config)
        return result

    def validate(self, model: nn.Module, step: int) -> Validation:
        """Separate the validation songs and score them."""
        return validate(model, self.valid, self.config, self.device, self.loss)

    def describe(self) -> dict[str, Any]:
        """Return what the model's file says of it."""
        config = self.config
        return {"stage": "train", **describe(config.sizes, config.stft, config.rate)}


def _accompaniment(batch: Batch) -> Tensor:
    """Add up all stems but the vocals, which are last: (b c t)."""
    return batch.stems[:, :-1].sum(dim=1)

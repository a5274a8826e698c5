"""The pretext task: corrupted spectrograms in, the mask that restores them out."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from separator.data.loader import Batch, batches
from separator.data.sources import training_tracks
from separator.engine import distributed
from separator.engine.task import Validation
from separator.models import FrameTransformer, describe
from separator.pretrain.config import PretrainConfig
from separator.pretrain.corrupt import corrupt, covered
from separator.pretrain.objectives import masked_error
from separator.pretrain.validate import ValidationCrops
from separator.stft import compress, normalise, stft


class PretrainTask:
    """What the loop trains: a model, its songs, its pretext task, its score.

    Raises:
        SeparatorError: no songs to train on or to validate with.
    """

    def __init__(self, config: PretrainConfig) -> None:
        self.config = config
        self.device = distributed.resolve(config.device)
        torch.manual_seed(config.seed)
        self.model = FrameTransformer(config.model, config.stft.bins)
        self.train, valid = training_tracks(config.data)
        self.crops = ValidationCrops(valid, config)

    def batches(self, start: int) -> Iterator[Batch]:
        """Yield micro-batches of mixtures from number `start`."""
        config, rank = self.config, distributed.rank()
        return batches(
            self.train,
            config.data,
            config.rate,
            config.seed,
            rank,
            start,
            mixtures=True,
            device=self.device,
        )

    def step(
        self, model: nn.Module, batch: Batch, step: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Return the losses of one micro-batch."""
        config = self.config
        spectrogram = stft(batch.mixture, config.stft)
        target, scale = normalise(spectrogram.abs(), config.stft)
        mixed = None
        if config.mask.other:
            mixed = compress(covered(spectrogram, generator).abs(), scale, config.stft)
        corrupted = corrupt(target, config.mask, step, generator, mixed)
        restored = corrupted.spectrogram * model(corrupted.spectrogram, corrupted.hidden)
        weights = config.masked_weight, config.unmasked_weight
        return masked_error(restored, target, corrupted, *weights, squared=config.error == "mse")

    def seconds(self, batch: Batch) -> float:
        """Seconds of audio in a batch."""
        return batch.stems.shape[0] * batch.stems.shape[-1] / self.config.rate

    def validate(self, model: nn.Module, step: int) -> Validation:
        """Restore hidden cells of songs not trained on; compare with the trivial answers."""
        return self.crops.validate(model, self.device)

    def describe(self) -> dict[str, Any]:
        """Return what the model's file says of it."""
        config = self.config
        return {"stage": "pretrain", **describe(config.model, config.stft, config.rate)}

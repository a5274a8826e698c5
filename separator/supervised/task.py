"""Learning to separate from songs with stems: the step and the validation of every such run.

`separator train` takes stems from files; pretraining by remixing or with a teacher makes them.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from separator.data.dataset import Batch, batches
from separator.data.identity import song_digests
from separator.data.tracks import Track, training_tracks
from separator.dsp.stft import normalise, stft
from separator.engine import distributed
from separator.engine.task import Task, Validation
from separator.losses import SeparationLoss
from separator.models.build import create, describe
from separator.supervised.config import SupervisedConfig
from separator.supervised.validation import SHOWN, show_waves, validate


class SupervisedTask(Task):
    """A model, its songs with stems, its loss, its score.

    Attributes:
        train: songs to train on.
        valid: songs with stems that training does not see.
        mixtures: whether batches hold mixtures only, which songs of any kind can give.

    Raises:
        SeparatorError: no songs to train on or to validate with.
    """

    mixtures = False

    def __init__(self, config: SupervisedConfig) -> None:
        self.config = config
        self.device = distributed.own_device(config.device)
        torch.manual_seed(config.seed)
        self.model = create(config.sizes, config.stft.bins)
        self.initialise()
        self.loss = SeparationLoss(config.loss, config.stft).to(self.device)
        self.train, self.valid = self.find_tracks()

    def initialise(self) -> None:
        """Load what the run needs, such as weights to start from, before its songs are found."""

    def find_tracks(self) -> tuple[Sequence[Track], Sequence[Track]]:
        """Return the songs to train on and those to validate with."""
        return training_tracks(self.config.data)

    def songs(self) -> Tensor:
        """Return what tells the songs trained on and validated with."""
        return song_digests([*self.train, *self.valid])

    def batches(self, start: int, stride: int = 1) -> Iterator[Batch]:
        """Yield micro-batches number `start`, `start + stride`, …"""
        config = self.config
        return batches(
            self.train, config.data, config.rate, config.seed, start, stride,
            mixtures=self.mixtures, device=self.device,
        )  # fmt: skip

    def stems(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return accompaniment and vocals of the crops of a batch: (b 2 c t)."""
        return torch.stack([batch.stems[:, :-1].sum(dim=1), batch.stems[:, -1]], dim=1)

    def step(
        self, model: nn.Module, batch: Batch, step: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Return the losses of one micro-batch."""
        stems = self.stems(batch, generator)
        spectrogram = stft(stems.sum(dim=1), self.config.stft)
        return self.losses(model, spectrogram, stems[:, 0].contiguous())

    def losses(
        self, model: nn.Module, spectrogram: Tensor, accompaniment: Tensor
    ) -> dict[str, Tensor]:
        """Return the losses of the model's estimates.

        Args:
            model: maps magnitudes to masks.
            spectrogram: (b c f n) complex, of the mixtures.
            accompaniment: (b c t) the truth.
        """
        magnitude, scale = normalise(spectrogram.abs(), self.config.stft)
        return self.loss(model(magnitude), spectrogram, scale, accompaniment)

    def seconds(self, batch: Batch) -> float:
        """Seconds of audio in a batch."""
        return batch.seconds(self.config.rate)

    def preview(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Validation:
        """Show the first crops of the training, mixtures and targets."""
        result, stems = Validation({}, 0.0), self.stems(batch, generator)
        for index, crop in enumerate(stems[:SHOWN]):
            waves = {"mixture": crop.sum(dim=0), "target": crop[0]}
            show_waves(result, f"training_crop{index}", waves, self.config)
        return result

    def validate(self, model: nn.Module, step: int) -> Validation:
        """Separate the validation songs and score them."""
        return validate(model, self.valid, self.config, self.device, self.loss)

    def describe(self) -> dict[str, Any]:
        """Return what the model's file says of it."""
        config = self.config
        return {"stage": "train", **describe(config.sizes, config.stft, config.rate)}

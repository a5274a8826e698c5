"""Learning to separate from songs with stems: the step and the validation of every such run.

`separator train` takes stems from files; pretraining by remixing or with a teacher makes them.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from separator.data.dataset import Batch, batches
from separator.data.identity import song_digests
from separator.data.stem_files import check_stems
from separator.data.tracks import Track, training_tracks
from separator.dsp.stft import normalise, stft
from separator.engine import distributed
from separator.engine.task import Task, Validation
from separator.losses import Estimate, SeparationLoss, Target
from separator.models.build import create, describe
from separator.stems import MIXTURE
from separator.supervised.config import SupervisedConfig
from separator.supervised.validation import MAX_SHOWN, named_waves, show_waves, validate


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
        self.loss = SeparationLoss(config.loss).to(self.device)
        self.train, self.valid = self.find_tracks()
        if not self.mixtures:
            fix = "remove it from data.roots, or give other model.stems"
            check_stems([*self.train, *self.valid], config.stems, fix)

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
        """Return the stems of the crops of a batch, in the order of `model.stems`: (b s c t)."""
        waves = dict(zip(batch.names, batch.stems.unbind(1), strict=True))
        parts = self.config.stems.parts(batch.names).values()
        return torch.stack(
            [torch.stack([waves[name] for name in names], dim=1).sum(dim=1) for names in parts],
            dim=1,
        )

    def step(
        self, model: nn.Module, batch: Batch, step: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Return the losses of one micro-batch."""
        stems = self.stems(batch, generator)
        estimate = self.estimate(model, stft(stems.sum(dim=1), self.config.stft), stems.shape[-1])
        return self.loss(estimate, Target(self.targets(stems), estimate))

    def estimate(self, model: nn.Module, mixture: Tensor, samples: int) -> Estimate:
        """Return the model's estimate of stems.

        Args:
            model: maps magnitudes to masks.
            mixture: (b c f n) complex spectrogram.
            samples: length of the waves.
        """
        magnitude, scale = normalise(mixture.abs(), self.config.stft)
        return Estimate(model(magnitude), mixture, scale, self.config.stft, samples)

    def targets(self, stems: Tensor) -> Tensor:
        """Take the stems that masks are of: (b s c t) to (b k c t)."""
        names = self.config.stems.names
        return stems[:, [names.index(name) for name in self.config.stems.estimated]]

    def seconds(self, batch: Batch) -> float:
        """Seconds of audio in a batch."""
        return batch.seconds(self.config.rate)

    def preview(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Validation:
        """Show the first crops of the training, mixtures and targets."""
        result, stems = Validation({}, 0.0), self.stems(batch, generator)
        for index, crop in enumerate(stems[:MAX_SHOWN]):
            waves = {MIXTURE: crop.sum(dim=0)} | named_waves(self.config.stems, crop, "target")
            show_waves(result, f"training_crop{index}", waves, self.config)
        return result

    def validate(self, model: nn.Module, step: int) -> Validation:
        """Separate the validation songs and score them."""
        return validate(model, self.valid, self.config, self.device, self.loss)

    def describe(self) -> dict[str, Any]:
        """Return what the model's file says of it."""
        config = self.config
        return {"stage": "train", **describe(config.sizes, config.stft, config.rate)}

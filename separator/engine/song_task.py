"""What all tasks that train on songs have in common."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from separator.data.config import DataConfig
from separator.data.dataset import Batch, batches
from separator.data.identity import song_digests
from separator.data.tracks import Track
from separator.engine import distributed
from separator.engine.task import Task
from separator.models.build import create, describe


class SongTask(Task):
    """A task with songs and a model that masks spectrograms.

    Args:
        config: settings of the run, with `data`, `stft`, `sizes`, `rate`, `seed` and `device`.

    Attributes:
        train: songs to train on.
        valid: songs that training does not see.
        mixtures: whether batches hold mixtures only, which songs of any kind can give.
        about: what else the model's file says of it.
    """

    train: Sequence[Track]
    valid: Sequence[Track]
    mixtures: bool = True
    about: ClassVar[dict[str, Any]]

    def __init__(self, config: Any) -> None:
        self.config = config
        self.device = distributed.own_device(config.device)

    def make_model(self) -> nn.Module:
        """Make the network, with the weights that the run's seed gives."""
        torch.manual_seed(self.config.seed)
        return create(self.config.sizes, self.config.stft.bins)

    @property
    def begins(self) -> bool:
        """Whether there is no checkpoint yet that the run goes on from."""
        return not (Path(self.config.run) / "last.pt").exists()

    def data(self) -> DataConfig:
        """Return how batches are read."""
        return self.config.data

    def songs(self) -> Tensor:
        """Return digests of the songs trained on and validated with."""
        return song_digests([*self.train, *self.valid])

    def batches(self, start: int, stride: int = 1) -> Iterator[Batch]:
        """Yield micro-batches number `start`, `start + stride`, …"""
        place = self.config.rate, self.config.seed, start, stride
        return batches(self.train, self.data(), *place, self.mixtures, self.device)

    def seconds(self, batch: Batch) -> float:
        """Seconds of audio in a batch."""
        return batch.seconds(self.config.rate)

    def describe(self) -> dict[str, Any]:
        """Return what the model's file says of it."""
        config = self.config
        return self.about | describe(config.sizes, config.stft, config.rate)

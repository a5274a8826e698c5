"""The fine-tuning task: mixtures in, the accompaniment's mask out."""

import torch
from torch import Tensor, nn

from separator.data.dataset import Batch
from separator.dsp.stft import istft, normalise, stft
from separator.supervised.task import SupervisedTask
from separator.train.config import TrainConfig
from separator.train.specaugment import blocks_to_keep
from separator.train.transfer import freeze_body, layer_rates, load_pretrained


class TrainTask(SupervisedTask):
    """Training on songs with stems, from scratch or from a pretrained file.

    Raises:
        SeparatorError: no songs to train on or to validate with, or a pretrained file that does
            not fit.
    """

    def __init__(self, config: TrainConfig, resumes: bool = False) -> None:
        self.resumes = resumes
        super().__init__(config)

    def initialise(self) -> None:
        """Start from the pretrained file, where there is one and the run is new."""
        if self.config.pretrained and not self.resumes:
            load_pretrained(self.model, self.config)

    def parameter_groups(self) -> list[dict]:
        """Return the weights with the factors on their learning rate, and when they begin."""
        groups = super().parameter_groups()
        if self.config.pretrained and self.config.layer_decay < 1:
            groups = layer_rates(self.model, self.config.layer_decay)
        if self.config.pretrained and self.config.frozen_steps:
            groups = freeze_body(self.model, groups, self.config.frozen_steps)
        return groups

    def step(
        self, model: nn.Module, batch: Batch, step: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Return the losses of one micro-batch, with blocks of the input masked if asked."""
        if not self.config.specaugment.on:
            return super().step(model, batch, step, generator)
        stems = self.stems(batch, generator)
        spectrogram = stft(stems.sum(dim=1), self.config.stft)
        accompaniment = stems[:, 0].contiguous()
        magnitude, scale = normalise(spectrogram.abs(), self.config.stft)
        keep = self._blocks_to_keep(magnitude, step, generator)
        if self.config.specaugment.target == "alike":
            spectrogram = spectrogram * keep
            target = stft(accompaniment, self.config.stft) * keep
            accompaniment = istft(target, self.config.stft, accompaniment.shape[-1])
        return self.loss(model(magnitude * keep), spectrogram, scale, accompaniment)

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

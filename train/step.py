"""The fine-tuning task: mixtures in, the masks of stems out."""

import torch
from torch import Tensor, nn

from separator.data.dataset import Batch
from separator.dsp.stft import istft, normalise, stft
from separator.losses import Estimate, Target
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

    config: TrainConfig

    def initialise(self) -> None:
        """Start from the pretrained file, where there is one and the run is new."""
        if self.config.pretrained and self.begins:
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
        magnitude, scale = normalise(spectrogram.abs(), self.config.stft)
        keep = self._blocks_to_keep(magnitude, step, generator)
        targets, samples = self.targets(stems), stems.shape[-1]
        if self.config.specaugment.target == "alike":
            spectrogram = spectrogram * keep
            masked = stft(targets, self.config.stft) * keep[:, None]
            targets = istft(masked, self.config.stft, samples)
        masks = model(magnitude * keep)
        estimate = Estimate(masks, spectrogram, scale, self.config.stft, samples)
        return self.loss(estimate, Target(targets, estimate))

    def _blocks_to_keep(self, magnitude: Tensor, step: int, generator: torch.Generator) -> Tensor:
        """Draw the blocks of a batch (b 1 f n); the network looks without dropout or statistics."""
        self.model.eval()
        try:
            return blocks_to_keep(magnitude, self._rest, self.config, step, generator)
        finally:
            self.model.train()

    def _rest(self, magnitude: Tensor) -> Tensor:
        """Return the mask of one stem, the rest: (b c f n)."""
        masks, stems = self.model(magnitude), self.config.stems
        return masks if stems.masks == 1 else masks[:, stems.names.index(stems.rest)]

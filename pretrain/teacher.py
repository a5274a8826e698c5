"""Pretraining from a teacher: trained models separate a library, and a new network learns from it.

The stems of the batch are shuffled into new mixtures (RemixIT, Tzinis et al. 2022, arXiv
2202.08862), and doubtful crops are left out: those on which several teachers differ, those of one
stem alone (Luo and Yu 2022, arXiv 2209.15174), and those with the largest losses (Kim et al. 2023,
arXiv 2306.09382).
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from separator.api import Separator
from separator.data import augment
from separator.data.loader import Batch, batches
from separator.data.sources import training_tracks
from separator.data.splits import first_by_hash
from separator.data.tracks import Track, load_stems
from separator.engine.task import Validation
from separator.errors import SeparatorError
from separator.pretrain.config import PretrainConfig
from separator.stft import istft, linear_mask, normalise
from separator.supervised.task import SupervisedTask
from separator.supervised.validation import validate

FRAME_SECONDS = 0.1


class TeacherTask(SupervisedTask):
    """Separation learned from the estimates of trained models.

    Raises:
        SeparatorError: a model file that cannot separate, or is of another sample rate.
    """

    config: PretrainConfig

    def initialise(self) -> None:
        """Load the teachers."""
        config = self.config
        self.teachers = [Separator.load(path, str(self.device)) for path in config.teacher.models]
        for path, teacher in zip(config.teacher.models, self.teachers, strict=True):
            if teacher.rate != config.rate:
                raise SeparatorError(
                    f"teacher.models: {path} is a model for {teacher.rate} Hz, this run is for "
                    f"{config.rate} Hz; give rate={teacher.rate}"
                )

    def find_tracks(self) -> tuple[list[Track], list[Track]]:
        """Return songs of any kind to train on, and to validate with: those with stems, if any."""
        train, valid = training_tracks(self.config.data)
        labelled = [track for track in valid if "mixture" not in track.names]
        return train, first_by_hash(labelled or valid, self.config.valid_crops)

    def batches(self, start: int, stride: int = 1) -> Iterator[Batch]:
        """Yield micro-batches of mixtures number `start`, `start + stride`, …"""
        config = self.config
        return batches(
            self.train,
            config.data,
            config.rate,
            config.seed,
            start,
            stride,
            mixtures=True,
            device=self.device,
        )

    def estimates(self, mixture: Tensor) -> Tensor:
        """Return each teacher's accompaniment and vocals of crops (b c t): (k b 2 c t)."""
        found = [teacher.accompaniment(mixture).to(mixture.device) for teacher in self.teachers]
        return torch.stack([torch.stack([wave, mixture - wave], dim=1) for wave in found])

    def stems(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return the teachers' stems of the crops that are kept, in new mixtures: (b 2 c t)."""
        config = self.config
        estimates = self.estimates(batch.mixture)
        stems = estimates.mean(dim=0)[kept(estimates, config)]
        changes = replace(config.data.augment, speed=0.0)  # played faster already
        return augment.apply(stems, augment.draw(generator, *stems.shape[:2], changes))

    def losses(
        self, model: nn.Module, spectrogram: Tensor, accompaniment: Tensor
    ) -> dict[str, Tensor]:
        """Return the losses of the model's estimates, without the worst crops."""
        if not self.config.teacher.drop:
            return super().losses(model, spectrogram, accompaniment)
        magnitude, scale = normalise(spectrogram.abs(), self.config.stft)
        mask = model(magnitude)
        best = self._best(mask.detach(), spectrogram, accompaniment)
        return self.loss(mask[best], spectrogram[best], scale[best], accompaniment[best])

    def _best(self, mask: Tensor, spectrogram: Tensor, accompaniment: Tensor) -> Tensor:
        """Return the places of the crops with the higher SDR, all but the share to be dropped."""
        transform, samples = self.config.stft, accompaniment.shape[-1]
        estimate = istft(spectrogram * linear_mask(mask, transform), transform, samples)
        power = accompaniment.square().sum(dim=(1, 2)).clamp(min=1e-9)
        error = (estimate - accompaniment).square().sum(dim=(1, 2)) / power
        number = max(1, round((1 - self.config.teacher.drop) * len(error)))
        return error.argsort()[:number]

    def validate(self, model: nn.Module, step: int) -> Validation:
        """Score the model on songs with stems, or else on others against the teachers."""
        return validate(model, self.valid, self.config, self.device, self.loss, self._stems_of)

    def _stems_of(self, track: Track, rate: int, start: int, samples: int | None) -> dict:
        """Read a song's stems; where it has none, let the teachers estimate them."""
        stems = load_stems(track, rate, start, samples)
        if "mixture" not in stems:
            return stems
        mixture = stems["mixture"]
        vocals = [teacher.separate_wave(mixture, rate)["vocals"] for teacher in self.teachers]
        voice = torch.stack(vocals).mean(dim=0)
        return {"accompaniment": mixture - voice, "vocals": voice}


def kept(estimates: Tensor, config: PretrainConfig) -> Tensor:
    """Say which crops to learn from: boolean (b); all of them where none would be left.

    Args:
        estimates: (k b 2 c t) each teacher's accompaniment and vocals.
        config: the limits, and the sample rate.
    """
    limits, mean = config.teacher, estimates.mean(dim=0)
    keep = torch.ones(mean.shape[0], dtype=torch.bool, device=mean.device)
    if len(estimates) > 1:
        voice = mean[:, 1].expand_as(estimates[:, :, 1])
        error = (estimates[:, :, 1] - voice).square().sum(dim=(2, 3))
        ratio = voice.square().sum(dim=(2, 3)) / error.clamp(min=1e-12)
        keep &= (10 * ratio.log10() >= limits.agreement_db).all(dim=0)
    if limits.sounding_db:
        keep &= _decibels(mean.square().mean(dim=(2, 3))) <= limits.sounding_db
    if limits.contrast_db:
        frame = max(1, round(FRAME_SECONDS * config.rate))
        whole = mean[..., : mean.shape[-1] // frame * frame]
        power = whole.unflatten(-1, (-1, frame)).square().mean(dim=(2, 4))
        keep &= _decibels(power).amax(dim=-1) >= limits.contrast_db
    return keep if bool(keep.any()) else torch.ones_like(keep)


def _decibels(power: Tensor) -> Tensor:
    """By how much two stems differ, from their powers (b 2 …): (b …) in decibels."""
    level = 10 * power.clamp(min=1e-12).log10()
    return (level[:, 0] - level[:, 1]).abs()

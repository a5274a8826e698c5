"""Pretraining from a teacher: trained models separate a library, and a new network learns from it.

Without a model, the library is folders of stems that another program estimated. The stems of the
batch are shuffled into new mixtures (RemixIT, Tzinis et al. 2022, arXiv 2202.08862), and doubtful
crops are left out: those on which several teachers differ, those of one stem alone (Luo and Yu
2022, arXiv 2209.15174), and those with the largest losses (Kim et al. 2023, arXiv 2306.09382).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from separator.data import augment
from separator.data.dataset import Batch, batches
from separator.data.identity import song_digests
from separator.data.reader import load_stems
from separator.data.roots import fraction_of
from separator.data.splits import first_by_hash
from separator.data.stem_files import MIXTURE_ONLY, check_stems
from separator.data.tracks import Track, config_tracks, training_tracks
from separator.errors import SeparatorError
from separator.losses import Target
from separator.pretrain.config import PretrainConfig
from separator.separation import Separator
from separator.stems import MIXTURE, VOCALS
from separator.supervised.task import SupervisedTask, regrouped

FRAME_SECONDS = 0.1


class TeacherTask(SupervisedTask):
    """Separation learned from the estimates of trained models, or of another program.

    Attributes:
        teachers: the models; none where the songs have estimated stems.
        labelled: songs with stems, of which a part of each batch is.

    Raises:
        SeparatorError: a model file that cannot separate, lacks a stem, or is of another sample
            rate; songs without stems where there is no model.
    """

    config: PretrainConfig

    def initialise(self) -> None:
        """Load the teachers, and find the songs with stems."""
        config = self.config
        self.mixtures = bool(config.teacher.models)
        self.labelled = self._labelled_tracks()
        self.teachers = [Separator.load(path, str(self.device)) for path in config.teacher.models]
        for path, teacher in zip(config.teacher.models, self.teachers, strict=True):
            if teacher.rate != config.rate:
                raise SeparatorError(
                    f"teacher.models: {path} is a model for {teacher.rate} Hz, this run is for "
                    f"{config.rate} Hz; give rate={teacher.rate}"
                )
            if lacking := config.stems.lacking(teacher.stems.names):
                raise SeparatorError(
                    f"teacher.models: {path} has no {' and no '.join(lacking)}; give "
                    f"model.stems=[{','.join(teacher.stems.names)}] or another model"
                )

    def find_tracks(self) -> tuple[list[Track], list[Track]]:
        """Return songs to train on, and to validate with: those with stems, if any."""
        train, valid = training_tracks(self.config.data)
        mixed = next((track for track in train if MIXTURE in track.names), None)
        if mixed and not self.teachers:
            raise SeparatorError(
                f"teacher.models: there is none, and {mixed.root} has songs without stems; give a "
                "model file of `separator train`, or folders of stems only"
            )
        labelled = [track for track in valid if self._has_stems(track)]
        return train, first_by_hash(labelled or valid, self.config.valid_crops)

    def _has_stems(self, track: Track) -> bool:
        return MIXTURE not in track.names and not self.config.stems.lacking(track.names)

    def _labelled_tracks(self) -> list[Track]:
        """Return the songs whose true stems are learned from too."""
        config = self.config
        if not config.teacher.labels:
            return []
        tracks = config_tracks(replace(config.data, roots=config.teacher.labels))
        tracks = [t for t in tracks if t.split == "train" and MIXTURE not in t.names]
        if not tracks:
            raise SeparatorError(
                "teacher.labels: no songs with stems to train on; give folders with some"
            )
        check_stems(tracks, config.stems, "remove it from teacher.labels")
        return fraction_of(tracks, config.teacher.label_fraction)

    def songs(self) -> Tensor:
        """Return what tells the songs trained on and validated with."""
        return song_digests([*self.train, *self.valid, *self.labelled])

    def batches(self, start: int, stride: int = 1) -> Iterator["TeacherBatch"]:
        """Yield micro-batches number `start`, `start + stride`, …"""
        config = self.config
        if not self.labelled:
            yield from map(TeacherBatch, super().batches(start, stride))
            return
        number = round(config.teacher.label_share * config.data.batch)
        number = min(max(number, 1), config.data.batch - 1)
        mixed = replace(config.data, batch=config.data.batch - number)
        drawn = config.rate, config.seed, start, stride
        yield from map(
            TeacherBatch,
            batches(self.train, mixed, *drawn, self.mixtures, self.device),
            batches(self.labelled, replace(config.data, batch=number), *drawn, device=self.device),
        )

    def estimates(self, mixture: Tensor) -> Tensor:
        """Return each teacher's estimates of the stems of `model.stems`: (k b s c t).

        Args:
            mixture: (b c t) crops.
        """
        stems = [
            regrouped(teacher(mixture), teacher.stems.names, self.config.stems)
            for teacher in self.teachers
        ]
        return torch.stack(stems).to(mixture.device)

    def stems(self, batch: "TeacherBatch", generator: torch.Generator) -> Tensor:
        """Return the crops' stems, the labelled ones last: (b s c t).

        The teachers' stems of the mixtures that are kept are shuffled into new mixtures; stems of
        files were shuffled when they were read.
        """
        config = self.config
        if self.teachers:
            estimates = self.estimates(batch.songs.mixture)
            stems = estimates.mean(dim=0)[selected(estimates, config)]
            changes = replace(config.data.augment, speed=0.0)  # played faster already
            names = config.stems.names
            voice = names.index(VOCALS) if VOCALS in names else None
            drawn = augment.draw(generator, *stems.shape[:2], changes, voice=voice)
            stems = augment.apply(stems, drawn)
        else:
            stems = super().stems(batch.songs, generator)
            stems = stems[selected(stems[None], config)]
        if batch.labels is None:
            return stems
        return torch.cat([stems, super().stems(batch.labels, generator)])

    def step(
        self, model: nn.Module, batch: "TeacherBatch", step: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Return the losses of one micro-batch, without the worst of the teachers' crops."""
        stems = self.stems(batch, generator)
        targets = self.targets(stems)
        estimate = self.estimate(model, stems)
        if self.config.teacher.drop:
            labelled = 0 if batch.labels is None else len(batch.labels.stems)
            with torch.no_grad():
                best = self.best(estimate.wave.view_as(targets), targets, labelled)
            estimate, targets = estimate[best], targets[best]
        return self.loss(estimate, Target(targets, estimate))

    def best(self, estimate: Tensor, target: Tensor, labelled: int) -> Tensor:
        """Return the places of the crops to learn from: all but the share with the lowest SDR.

        Args:
            estimate: (b k c t) of the stems that have a mask.
            target: (b k c t) their targets.
            labelled: number of crops with true stems, the last ones, which are all kept.
        """
        power = target.square().flatten(1).sum(dim=1).clamp(min=1e-9)
        error = (estimate - target).square().flatten(1).sum(dim=1) / power
        guessed = len(error) - labelled
        number = max(1, round((1 - self.config.teacher.drop) * guessed))
        places = torch.arange(guessed, len(error), device=error.device)
        return torch.cat([error[:guessed].argsort()[:number], places])

    def read_stems(self, track: Track, samples: int | None) -> dict[str, Tensor]:
        """Return a validation song's stems; where it lacks one, let the teachers estimate them."""
        if self._has_stems(track):
            return super().read_stems(track, samples)
        rate, stems = self.config.rate, self.config.stems
        mixture = load_stems(track, rate, 0, samples, names=MIXTURE_ONLY)[MIXTURE]
        estimates = []
        for teacher in self.teachers:
            waves = torch.stack([*teacher.separate_wave(mixture, rate).values()])[None]
            estimates.append(regrouped(waves, teacher.stems.names, stems)[0])
        return dict(zip(stems.names, torch.stack(estimates).mean(dim=0), strict=True))


@dataclass(frozen=True)
class TeacherBatch:
    """Crops of the library, and crops of songs with true stems beside them, if any."""

    songs: Batch
    labels: Batch | None = None

    def seconds(self, rate: int) -> float:
        """Return the seconds of audio in the batch.

        Args:
            rate: sample rate in hertz.
        """
        return sum(batch.seconds(rate) for batch in (self.songs, self.labels) if batch)


def selected(estimates: Tensor, config: PretrainConfig) -> Tensor:
    """Select the crops whose estimates are good enough to learn from.

    Args:
        estimates: (k b s c t) each teacher's stems, in the order of `model.stems`.
        config: the limits, the stems, and the sample rate.

    Returns:
        Boolean (b); all true where otherwise none would be.
    """
    limits, mean = config.teacher, estimates.mean(dim=0)
    keep = torch.ones(mean.shape[0], dtype=torch.bool, device=mean.device)
    if len(estimates) > 1:
        separated = [name != config.stems.rest for name in config.stems.names]
        wanted, common = estimates[:, :, separated], mean[:, separated]
        error = (wanted - common).square().flatten(2).sum(dim=2)
        ratio = common.square().flatten(1).sum(dim=1) / error.clamp(min=1e-12)
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
    """By how much the loudest stem exceeds the next, from powers (b s …): (b …) in decibels."""
    first, second = (10 * power.clamp(min=1e-12).log10()).topk(2, dim=1).values.unbind(1)
    return first - second

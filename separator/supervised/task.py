"""Learning to separate from songs with stems: the step and the validation of every such run.

`separator train` takes stems from files; pretraining by remixing or with a teacher makes them.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from separator.data.dataset import Batch
from separator.data.reader import fold, load_stems
from separator.data.stem_files import check_stems
from separator.data.tracks import Track, training_tracks
from separator.dsp.stft import stft
from separator.engine.song_task import SongTask
from separator.engine.task import Validation
from separator.losses import Estimate, SeparationLoss, Target
from separator.stems import MIXTURE, StemSet
from separator.supervised.config import SupervisedConfig
from separator.supervised.validation import MAX_SHOWN, named_waves, show_waves, validate


class SupervisedTask(SongTask):
    """A model, its songs with stems, its loss, its score.

    Raises:
        SeparatorError: no songs to train on or to validate with.
    """

    mixtures = False
    about: ClassVar = {"stage": "train"}

    def __init__(self, config: SupervisedConfig) -> None:
        super().__init__(config)
        self.model = self.make_model()
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

    def stems(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return the stems of the crops of a batch, in the order of `model.stems`: (b s c t).

        Args:
            batch: crops as read, with the finest stems that any song has.
            generator: of the random numbers of augmentations.
        """
        return regrouped(batch.stems, batch.names, self.config.stems)

    def step(
        self, model: nn.Module, batch: Batch, step: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Return the losses of one micro-batch."""
        stems = self.stems(batch, generator)
        estimate = self.estimate(model, stems)
        return self.loss(estimate, Target(self.targets(stems), estimate))

    def estimate(self, model: nn.Module, stems: Tensor) -> Estimate:
        """Return the model's estimate of stems from their sum: of (b s c t)."""
        mixture = stft(stems.sum(dim=1), self.config.stft)
        return Estimate.of(model, mixture, self.config.stft, stems.shape[-1])

    def targets(self, stems: Tensor) -> Tensor:
        """Select the stems for which the model gives masks.

        Args:
            stems: (b s c t) in the order of `model.stems`.

        Returns:
            (b k c t); k is 1 for two stems, of which only one has a mask.
        """
        names = self.config.stems.names
        return stems[:, [names.index(name) for name in self.config.stems.estimated]]

    def preview(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Validation:
        """Show the first crops of the training, mixtures and targets."""
        result, stems = Validation({}, 0.0), self.stems(batch, generator)
        for index, crop in enumerate(stems[:MAX_SHOWN]):
            waves = {MIXTURE: crop.sum(dim=0)} | named_waves(self.config.stems, crop, "target")
            show_waves(result, f"training_crop{index}", waves, self.config)
        return result

    def validate(self, model: nn.Module, step: int) -> Validation:
        """Separate the validation songs and score them."""
        return validate(self, model)

    def read_stems(self, track: Track, samples: int | None) -> dict[str, Tensor]:
        """Return the stems of a validation song by name, (c t) each.

        Args:
            track: the song.
            samples: at most so many from its beginning; all if None.
        """
        return load_stems(track, self.config.rate, 0, samples, names=self.config.stems.names)


def regrouped(waves: Tensor, names: Sequence[str], stems: StemSet) -> Tensor:
    """Select or sum stems so that they are those of a set.

    Args:
        waves: (b n c t).
        names: of the n stems.
        stems: the set that is wanted, of which none may be lacking.

    Returns:
        (b s c t), in the order of the set.
    """
    named = dict(zip(names, waves.unbind(1), strict=True))
    folded = fold(named, stems.names)
    return torch.stack([folded[name] for name in stems.names], dim=1)

"""Random changes of stems before they are mixed: drawn first, then applied.

Drawing is apart from applying so that a test, or a picture in the log, can state exactly what was
done. The caller sums the mixture after this, so that stems and mixture always agree.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from separator.errors import SeparatorError


@dataclass(frozen=True)
class AugmentConfig:
    """How much the stems are varied; zeros switch a change off.

    Attributes:
        gain_db: Each stem is made louder or softer by up to this many decibels, uniformly.
        swap: Probability that a stem's left and right channels are exchanged.
        polarity: Probability that a stem's sign is turned.
        remix: Probability that a batch's stems are regrouped into mixtures of different songs.
    """

    gain_db: float = 6.0
    swap: float = 0.5
    polarity: float = 0.5
    remix: float = 0.5

    def __post_init__(self) -> None:
        if self.gain_db < 0:
            raise SeparatorError(f"augment.gain_db: must be 0 or more, got {self.gain_db}")
        for key in ("swap", "polarity", "remix"):
            if not 0 <= getattr(self, key) <= 1:
                value = getattr(self, key)
                raise SeparatorError(f"augment.{key}: a probability from 0 to 1, got {value}")


@dataclass(frozen=True)
class Augmentation:
    """What is done to one batch.

    Attributes:
        song: (b s) which item of the batch each stem is taken from.
        gain: (b s) linear factor; its sign is the polarity.
        swap: (b s) whether left and right are exchanged.
    """

    song: Tensor
    gain: Tensor
    swap: Tensor


def identity(batch: int, stems: int) -> Augmentation:
    """The augmentation that changes nothing."""
    song = torch.arange(batch).unsqueeze(1).repeat(1, stems)
    return Augmentation(song, torch.ones(batch, stems), torch.zeros(batch, stems, dtype=torch.bool))


def draw(generator: torch.Generator, batch: int, stems: int, config: AugmentConfig) -> Augmentation:
    """Draw the changes for a batch of `batch` items with `stems` stems each.

    Every number is drawn whether it is used or not, so that switching one change off leaves the
    others as they were. Remixing (Uhlich et al. 2017, "Improving music source separation based on
    deep neural networks through data augmentation and network blending") is all or nothing within
    a batch, and permutes: each stem is still heard exactly once.
    """
    songs = torch.stack([torch.randperm(batch, generator=generator) for _ in range(stems)], dim=1)
    remix, gain, swap, polarity = (
        torch.rand(shape, generator=generator) for shape in [()] + 3 * [(batch, stems)]
    )
    plain = identity(batch, stems)
    decibels = (2 * gain - 1) * config.gain_db
    sign = torch.where(polarity < config.polarity, -1.0, 1.0)
    song = songs if remix < config.remix else plain.song
    return Augmentation(song, sign * 10 ** (decibels / 20), swap < config.swap)


def apply(stems: Tensor, augmentation: Augmentation) -> Tensor:
    """Return changed stems; the input is not modified.

    Args:
        stems: (b s c t) waves, on any device; with c = 1 exchanging channels does nothing.
        augmentation: What to do, of the same b and s.

    Returns:
        (b s c t), a new tensor; equal to the input bit for bit for the identity.
    """
    song, gain, swap = (
        tensor.to(stems.device).unsqueeze(-1)
        for tensor in (augmentation.song, augmentation.gain, augmentation.swap)
    )
    stem = torch.arange(stems.shape[1], device=stems.device).unsqueeze(-1)
    channel = torch.arange(stems.shape[2], device=stems.device)
    mixed = stems[song, stem, torch.where(swap, channel.flip(0), channel)]  # a copy
    return mixed.mul_(gain.unsqueeze(-1))

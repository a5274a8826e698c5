"""Random changes of stems before they are mixed: drawn first, then applied.

Drawing is apart from applying so that a test, or a picture in the log, can state exactly what was
done. The caller sums the mixture after this, so that stems and mixture always agree.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from separator.data.config import NORMAL, AugmentConfig


@dataclass(frozen=True)
class Augmentation:
    """The random changes of one batch.

    Attributes:
        song: (b s) which item of the batch each stem is taken from.
        gain: (b s) linear factor; its sign is the polarity.
        swap: (b s) whether left and right are exchanged.
        speed: (b s) tenths of the normal speed.
    """

    song: Tensor
    gain: Tensor
    swap: Tensor
    speed: Tensor


def identity(batch: int, stems: int) -> Augmentation:
    """Return the augmentation that changes nothing.

    Args:
        batch: number of segments.
        stems: number of stems.

    Returns:
        Gains 1, own songs, normal speed.
    """
    song = torch.arange(batch).unsqueeze(1).repeat(1, stems)
    swap = torch.zeros(batch, stems, dtype=torch.bool)
    return Augmentation(song, torch.ones(batch, stems), swap, torch.full((batch, stems), NORMAL))


def draw(
    generator: torch.Generator,
    batch: int,
    stems: int,
    config: AugmentConfig,
    whole: Sequence[bool] | None = None,
    voice: int | None = -1,
) -> Augmentation:
    """Draw the changes of a batch.

    Every number is drawn whether it is used or not, so that switching one change off leaves the
    others as they were; new ones are drawn behind the old. Remixing (Uhlich et al. 2017, "Improving
    music source separation based on deep neural networks through data augmentation and network
    blending") is all or nothing within a batch, and permutes: each stem is used exactly once.

    Args:
        generator: source of the numbers.
        batch: number of segments.
        stems: number of stems.
        config: ranges and probabilities.
        whole: of each segment, whether its accompaniment is one stem. Those are regrouped apart
            from the others, so that none gets a second song's drums; the last stem among all.
        voice: place of the vocals among the stems; None where there are none.

    Returns:
        What `apply` does to the batch.
    """
    songs = torch.stack([torch.randperm(batch, generator=generator) for _ in range(stems)], dim=1)
    if whole is not None:
        songs[:, :-1] = _within(songs[:, :-1], torch.tensor(whole))
    draws = [torch.rand(shape, generator=generator) for shape in [()] + 4 * [(batch, stems)]]
    remix, gain, swap, polarity, speed = draws
    plain = identity(batch, stems)
    decibels = (2 * gain - 1) * config.gain_db
    sign = torch.where(polarity < config.polarity, -1.0, 1.0)
    remixed = bool(remix < config.remix)
    song = songs if remixed else plain.song
    speed = NORMAL - config.steps + (speed * (2 * config.steps + 1)).long()
    speed = speed if remixed else speed[:, :1].repeat(1, stems)  # a song's stems stay in time
    gain = sign * 10 ** (decibels / 20)
    if stems > 1 and voice is not None:
        gain[torch.rand(batch, generator=generator) < config.drop_vocals, voice] = 0
    return Augmentation(song, gain, swap < config.swap, speed)


def _within(songs: Tensor, kind: Tensor) -> Tensor:
    """Turn permutations (b s) into ones that exchange segments of one kind (b) only."""
    result = songs.clone()
    for among in (kind, ~kind):
        for stem, order in enumerate(songs.unbind(1)):
            result[among, stem] = order[among[order]]
    return result


def apply(stems: Tensor, augmentation: Augmentation, samples: int | None = None) -> Tensor:
    """Return changed stems; the input is not modified.

    Args:
        stems: (b s c t) waves, on any device; with c = 1 exchanging channels does nothing.
        augmentation: What to do, of the same b and s.
        samples: Length of the result, t by default; what a speed leaves too short ends in zeros.

    Returns:
        (b s c samples), a new tensor; equal to the input bit for bit for the identity.
    """
    changes = augmentation.song, augmentation.gain, augmentation.swap
    song, gain, swap = (change.to(stems.device).unsqueeze(-1) for change in changes)
    stem = torch.arange(stems.shape[1], device=stems.device).unsqueeze(-1)
    channel = torch.arange(stems.shape[2], device=stems.device)
    mixed = stems[song, stem, torch.where(swap, channel.flip(0), channel)]  # a copy
    mixed = mixed.mul_(gain.unsqueeze(-1))
    return _respeed(mixed, augmentation.speed, samples or stems.shape[-1])


def _respeed(stems: Tensor, speed: Tensor, samples: int) -> Tensor:
    """Play (b s c t) at speeds of (b s) tenths: pitch and tempo change together."""
    if samples == stems.shape[-1] and bool((speed == NORMAL).all()):
        return stems
    from separator.torchaudio_import import functional

    resample = functional().resample
    out = stems.new_zeros(*stems.shape[:-1], samples)
    for tenths in speed.unique().tolist():
        where = (speed == tenths).to(stems.device)
        wave = stems[where][..., : -(-samples * tenths // NORMAL)]
        wave = wave if tenths == NORMAL else resample(wave, tenths, NORMAL)
        wave = wave[..., :samples]
        out[where] = torch.nn.functional.pad(wave, (0, samples - wave.shape[-1]))
    return out

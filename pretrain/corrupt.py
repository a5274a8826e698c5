"""What happens to the chosen cells: filled with ones, raised to noise, or kept."""

from dataclasses import dataclass

import torch
from torch import Tensor

from separator.errors import SeparatorError
from separator.pretrain.masks import STRATEGIES
from separator.pretrain.masks.geometry import expand
from separator.pretrain.masks.schedule import group_frames

KINDS = ("mask", "noise", "kept")


@dataclass(frozen=True)
class MaskConfig:
    """Which cells are hidden, and how.

    Attributes:
        strategy: how cells are chosen, a key of `separator.pretrain.masks.STRATEGIES`.
        group: frames in a cell once warmed up.
        share: part of the cells that is chosen.
        fill: part of the chosen cells filled with 1.0, which a sigmoid mask can only lower.
        noise: part of them raised to noise; the rest is kept as it is.
        clean_share: part of the crops that stay as they are and are to be passed through.
        warmup_steps: steps over which cells grow from 1 frame to `group`.
    """

    strategy: str = "frame_groups"
    group: int = 16
    share: float = 0.15
    fill: float = 0.8
    noise: float = 0.1
    clean_share: float = 0.0
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            known = ", ".join(STRATEGIES)
            raise SeparatorError(f"mask.strategy: {self.strategy!r} is not one of {known}")
        for key in ("share", "fill", "noise", "clean_share"):
            if not 0 <= getattr(self, key) <= 1:
                raise SeparatorError(f"mask.{key}: {getattr(self, key)} is not in [0, 1]")
        if self.fill + self.noise > 1:
            raise SeparatorError("mask.fill, mask.noise: together they are over 1")
        if self.group < 1:
            raise SeparatorError(f"mask.group: {self.group} is not at least 1 frame")
        if self.warmup_steps < 0:
            raise SeparatorError(f"mask.warmup_steps: {self.warmup_steps} is negative; 0 is none")


@dataclass(frozen=True)
class Corrupted:
    """A corrupted batch and where it was corrupted.

    Attributes:
        spectrogram: (b c f n) what the model sees.
        chosen: (b 1 1 n) cells to be restored; all of a clean crop.
        kinds: (b 1 1 n) index into KINDS, -1 where nothing was chosen.
    """

    spectrogram: Tensor
    chosen: Tensor
    kinds: Tensor

    @property
    def hidden(self) -> Tensor:
        """Boolean (b 1 1 n): cells filled with ones."""
        return self.kinds == KINDS.index("mask")


def corrupt(target: Tensor, config: MaskConfig, step: int, generator: torch.Generator) -> Corrupted:
    """Hide cells of a batch: 80 % become 1.0, 10 % the larger of noise and themselves, 10 % stay.

    Wherever a cell was chosen the result is at least the target, so that a factor in [0, 1] can
    restore it; elsewhere it is the target bit for bit. The target is not modified.

    Args:
        target: (b c f n) in [0, 1].
        config: the shares.
        step: finished steps of the run, for the growth of the cells.
        generator: on the CPU; all randomness comes from it.
    """
    batch, _, _, frames = target.shape
    size = min(group_frames(step, config.group, config.warmup_steps), frames)
    chosen = STRATEGIES[config.strategy](target, size, config.share, generator)
    draw = torch.rand(chosen.shape, generator=generator)
    kinds = (draw >= config.fill).long() + (draw >= config.fill + config.noise).long()
    clean = torch.rand(batch, 1, generator=generator) < config.clean_share
    kinds = torch.where(clean, KINDS.index("kept"), torch.where(chosen, kinds, -1))
    kinds = expand(kinds, size, frames)
    noise = torch.rand(target.shape, generator=generator).to(target.device)
    kinds = kinds.to(target.device)
    spectrogram = torch.where(kinds == KINDS.index("mask"), torch.ones_like(target), target)
    raised = torch.maximum(target, noise)
    spectrogram = torch.where(kinds == KINDS.index("noise"), raised, spectrogram)
    return Corrupted(spectrogram, kinds >= 0, kinds)

"""BERT's choice of words (Devlin et al. 2018, arXiv 1810.04805) on groups of frames."""

import torch
from torch import Tensor

from separator.pretrain.masks.geometry import choose, count


def frame_groups(
    spectrogram: Tensor, size: int, share: float, generator: torch.Generator
) -> Tensor:
    """Choose a share of the frame groups of each item, uniformly and exactly.

    Args:
        spectrogram: (b c f n); only its shape matters to this strategy.
        size: frames in a group.
        share: part of the groups to choose; at least one is chosen, and one left.
        generator: on the CPU.

    Returns:
        boolean (b m), m groups.
    """
    batch, frames = spectrogram.shape[0], spectrogram.shape[-1]
    groups = count(frames, size)
    number = min(round(share * groups), groups - 1)  # without context there is nothing to learn
    return choose(batch, groups, max(1, number), generator)

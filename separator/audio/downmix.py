"""Fold any number of channels to stereo or mono."""

from typing import TYPE_CHECKING, TypeVar

import numpy as np

from separator.audio.channel_layouts import fold, shares_by_count
from separator.audio.info import AudioError
from separator.ranges import MAX_CHANNELS

if TYPE_CHECKING:
    from torch import Tensor

Wave = TypeVar("Wave", "Tensor", np.ndarray)


def to_channels(wave: Wave, channels: int) -> Wave:
    """Fold a wave to one or two channels.

    Mono is doubled; stereo becomes mono as the mean of the two; 3 to 8 channels (L R C LFE Ls Rs
    and its subsets, four being L R Ls Rs, 6.1 with the centre surround before the sides, 7.1) are
    folded to stereo with the weights of ITU-R BS.775-3, not normalised, the LFE left out. Each
    sample is computed alone: a slice equals that of the whole.

    Args:
        wave: (c t), a tensor or an array.
        channels: 1 or 2.

    Returns:
        (channels t).

    Raises:
        AudioError: more than 8 channels, whose layout is not known.
    """
    if channels not in (1, 2):
        raise ValueError(f"to_channels: channels is 1 or 2, not {channels}")
    have = wave.shape[0]
    if have == channels:
        return wave
    if have == 1:
        return wave[[0, 0]]
    if have > MAX_CHANNELS:
        raise AudioError(f"{have} channels: only 1 to 8 are known; mix down to stereo first")
    if have > 2:
        wave = _folded(wave)
    return wave if channels == 2 else wave.mean(0)[None]


def _folded(wave: Wave) -> Wave:
    """Fold (c t) to (2 t) by the number of channels."""
    weights = shares_by_count(wave.shape[0])
    if isinstance(wave, np.ndarray):
        return fold(wave, weights)
    import torch

    return torch.from_numpy(fold(wave.detach().cpu().numpy(), weights)).to(wave)

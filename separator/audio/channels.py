"""Fold any number of channels to stereo or mono."""

import math

import torch
from torch import Tensor

from separator.audio.formats import AudioError

_LAYOUTS = {3: "LRC", 4: "LRlr", 5: "LRClr", 6: "LRCElr", 7: "LRCESlr", 8: "LRCElrlr"}
_FOLD = {  # ITU-R BS.775-3, table 2: the share of a channel in left and right
    **{"L": (1.0, 0.0), "R": (0.0, 1.0), "C": (math.sqrt(0.5), math.sqrt(0.5)), "E": (0.0, 0.0)},
    **{"l": (math.sqrt(0.5), 0.0), "r": (0.0, math.sqrt(0.5)), "S": (0.5, 0.5)},
}


def to_channels(wave: Tensor, channels: int) -> Tensor:
    """Turn (c t) into one or two channels: (channels t).

    Mono is doubled; stereo becomes mono as the mean of the two; 3 to 8 channels (L R C LFE Ls Rs
    and its subsets, four being L R Ls Rs, 6.1 with the centre surround before the sides, 7.1) are
    folded to stereo with the weights of ITU-R BS.775-3, not normalised, the LFE left out.

    Raises:
        AudioError: more than 8 channels, whose layout is not known.
    """
    if channels not in (1, 2):
        raise ValueError(f"to_channels: channels is 1 or 2, not {channels}")
    have = wave.shape[0]
    if have == channels:
        return wave
    if have == 1:
        return wave.repeat(2, 1)
    if have > 2:
        if have not in _LAYOUTS:
            raise AudioError(f"{have} channels: only 1 to 8 are known; mix down to stereo first")
        weights = torch.tensor([_FOLD[name] for name in _LAYOUTS[have]], dtype=wave.dtype)
        wave = weights.T.to(wave.device) @ wave
    return wave if channels == 2 else wave.mean(dim=0, keepdim=True)

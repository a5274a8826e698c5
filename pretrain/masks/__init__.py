"""Masking strategies by name: (spectrogram, group size, share, generator) to chosen groups."""

from separator.pretrain.masks.bert import frame_groups

STRATEGIES = {"frame_groups": frame_groups}

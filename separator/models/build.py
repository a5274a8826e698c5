"""Make a model from its configuration, or from the description in its file."""

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from separator.config import to_dict
from separator.dsp.config import STFTConfig
from separator.errors import SeparatorError
from separator.machine import memory
from separator.models.config import Sizes
from separator.models.description import FORMAT, refused, settings_of
from separator.models.registry import ARCHITECTURES, architecture_of
from separator.models.weights import Layout, Uninitialised, misfit
from separator.ranges import SettingError


def create(sizes: Sizes, bins: int) -> nn.Module:
    """Make a model with initial weights.

    Args:
        sizes: settings of an architecture.
        bins: bins of the spectrogram, the Nyquist bin included.

    Raises:
        SeparatorError: the sizes do not fit together, or the weights this machine's memory.
    """
    _on_meta_device(sizes, bins)
    return ARCHITECTURES[architecture_of(sizes)].load()(sizes, bins)


def _on_meta_device(sizes: Sizes, bins: int) -> nn.Module:
    """Make a model without memory for its weights.

    Raises:
        SeparatorError: the sizes do not fit together, or the weights this machine's memory.
    """
    entry = ARCHITECTURES[architecture_of(sizes)]
    try:
        with torch.device("meta"), Uninitialised():
            model = entry.load()(sizes, bins)
    except SettingError as error:
        raise error.within(f"{entry.key}.") from error
    needed = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    if needed > memory():
        raise SeparatorError(
            f"{entry.key}: weights of {needed / 1e9:.0f} GB do not fit this machine's "
            f"{memory() / 1e9:.0f} GB of memory; lower the sizes in {entry.key}, or stft.n_fft"
        )
    return model


def describe(sizes: Sizes, stft: STFTConfig, rate: int) -> dict[str, Any]:
    """Return the description from which `build` makes the model again.

    Args:
        sizes: settings of the architecture.
        stft: the transform of its spectrograms.
        rate: sample rate in hertz.
    """
    return {
        "architecture": architecture_of(sizes),
        "format": FORMAT,
        "model": to_dict(sizes),
        "stft": to_dict(stft),
        "rate": rate,
    }


def skeleton(
    description: Mapping[str, Any], layout: Layout, path: str | os.PathLike
) -> tuple[nn.Module, STFTConfig]:
    """Make the model that a file describes, on the meta device, if its weights will fit.

    Args:
        description: what the file says of itself.
        layout: form of each of its tensors, none of which need be in memory.
        path: of the file, for messages.

    Returns:
        The model, with nothing allocated for its weights, and its transform.

    Raises:
        SeparatorError: the description is not one of ours, or the weights are not the model's.
    """
    sizes, stft = settings_of(description, path)
    try:
        if sizes.blocks > len(layout):  # before the time is spent on making them
            raise SeparatorError(f"{sizes.blocks} blocks of {len(layout)} weights")
        model = _on_meta_device(sizes, stft.bins)
    except SeparatorError as error:
        raise refused(path, error) from error
    if reason := misfit(model, layout):
        raise refused(path, f"its weights are not those of its description: {reason}")
    return model, stft

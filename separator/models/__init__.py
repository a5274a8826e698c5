"""The models that a configuration can name, and how one comes back from its file."""

import os
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from separator.config import from_dict, to_dict
from separator.engine.checkpoint import load_weights
from separator.errors import SeparatorError
from separator.models.frame_transformer import FrameTransformer, ModelConfig
from separator.stft import STFTConfig

MODELS = {"frame_transformer": FrameTransformer}
FORMAT = 2  # counts changes after which the same weights would mean something else

__all__ = ["MODELS", "FrameTransformer", "ModelConfig", "build", "check_format", "describe"]


def describe(model: ModelConfig, stft: STFTConfig, rate: int) -> dict[str, Any]:
    """Return what a model's file must say so that `build` can make the model again."""
    return {
        "architecture": "frame_transformer",
        "format": FORMAT,
        "model": to_dict(model),
        "stft": to_dict(stft),
        "rate": rate,
    }


def check_format(description: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Refuse a model's file that this version would misread.

    Raises:
        SeparatorError: an unknown architecture, or weights from before a change of the model.
    """
    architecture, version = description.get("architecture"), description.get("format", 1)
    if architecture not in MODELS or version != FORMAT:
        raise SeparatorError(
            f"{path}: holds {architecture!r} in format {version}; this version reads "
            f"{', '.join(MODELS)} in format {FORMAT}: make the model anew, or use its own version"
        )


def build(
    description: Mapping[str, Any], state: Mapping[str, Tensor], path: str | os.PathLike
) -> tuple[FrameTransformer, STFTConfig]:
    """Make a model from its file's description and weights; returns it and its transform.

    Raises:
        SeparatorError: the weights do not fit, or the description has keys this version lacks.
    """
    check_format(description, path)
    stft = from_dict(STFTConfig, description["stft"])
    config = from_dict(ModelConfig, description["model"])
    model = MODELS[description["architecture"]](config, stft.bins)
    load_weights(model, state, path)
    return model, stft

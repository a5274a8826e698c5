"""The models that a configuration can name, and how one comes back from its file."""

import os
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from separator.config import from_dict, to_dict
from separator.engine.checkpoint import load_weights
from separator.models.frame_transformer import FrameTransformer, ModelConfig
from separator.stft import STFTConfig

MODELS = {"frame_transformer": FrameTransformer}

__all__ = ["MODELS", "FrameTransformer", "ModelConfig", "build", "describe"]


def describe(model: ModelConfig, stft: STFTConfig, rate: int) -> dict[str, Any]:
    """Return what a model's file must say so that `build` can make the model again."""
    return {
        "architecture": "frame_transformer",
        "model": to_dict(model),
        "stft": to_dict(stft),
        "rate": rate,
    }


def build(
    description: Mapping[str, Any], state: Mapping[str, Tensor], path: str | os.PathLike
) -> tuple[FrameTransformer, STFTConfig]:
    """Make a model from its file's description and weights; returns it and its transform.

    Raises:
        SeparatorError: the weights do not fit, or the description has keys this version lacks.
    """
    stft = from_dict(STFTConfig, description["stft"])
    config = from_dict(ModelConfig, description["model"])
    model = MODELS[description["architecture"]](config, stft.bins)
    load_weights(model, state, path)
    return model, stft

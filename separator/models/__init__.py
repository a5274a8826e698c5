"""The models that a configuration can name, and how one comes back from its file."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn

from separator.config import from_dict, to_dict
from separator.errors import SeparatorError
from separator.models.frame_transformer import FrameTransformer, ModelConfig
from separator.models.patch_transformer import PatchConfig, PatchTransformer
from separator.models.weights import load_weights
from separator.stft import STFTConfig

MODELS = {
    "frame_transformer": (FrameTransformer, ModelConfig),
    "patch_transformer": (PatchTransformer, PatchConfig),
}
FORMAT = 3  # counts changes after which the same weights would mean something else

Sizes = ModelConfig | PatchConfig

__all__ = [
    *("MODELS", "FrameTransformer", "ModelChoice", "ModelConfig", "PatchConfig"),
    *("PatchTransformer", "build", "check_format", "create", "describe"),
]


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """Which model a run trains.

    Attributes:
        architecture: the model; its sizes are in `model` or `patch`.
        model: sizes of the frame transformer.
        patch: sizes of the patch transformer.
    """

    architecture: Literal["frame_transformer", "patch_transformer"] = "frame_transformer"
    model: ModelConfig = field(default_factory=ModelConfig)
    patch: PatchConfig = field(default_factory=PatchConfig)

    @property
    def sizes(self) -> Sizes:
        """The sizes of the chosen model."""
        return self.model if self.architecture == "frame_transformer" else self.patch


def create(sizes: Sizes, bins: int) -> nn.Module:
    """Make the model that these sizes are of, for spectrograms of `bins` bins."""
    return MODELS[_architecture(sizes)][0](sizes, bins)


def _architecture(sizes: Sizes) -> str:
    return next(name for name, (_, config) in MODELS.items() if isinstance(sizes, config))


def describe(sizes: Sizes, stft: STFTConfig, rate: int) -> dict[str, Any]:
    """Return what a model's file must say so that `build` can make the model again."""
    return {
        "architecture": _architecture(sizes),
        "format": FORMAT,
        "model": to_dict(sizes),
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
) -> tuple[nn.Module, STFTConfig]:
    """Make a model from its file's description and weights; returns it and its transform.

    Raises:
        SeparatorError: the weights do not fit, or the description has keys this version lacks.
    """
    check_format(description, path)
    stft = from_dict(STFTConfig, description["stft"])
    sizes = from_dict(MODELS[description["architecture"]][1], description["model"])
    model = create(sizes, stft.bins)
    load_weights(model, state, path)
    return model, stft

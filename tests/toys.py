"""Small things that many tests use: a model that takes no time, and randomness with a seed."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from separator.dsp.config import STFTConfig
from separator.models.config import ModelConfig

# a trainer's words for the smallest network that has all parts, on a second of sound
MICRO = [
    *("stft.n_fft=256", "stft.hop=128", "rate=8000", "model.channels=[2,4,4]", "model.convs=1"),
    *("model.encoder_blocks=[0,1,1]", "model.decoder_blocks=[0,1,1]", "model.ffn_dim=[0,32,32]"),
    *("data.batch=2", "data.segment_seconds=1", "data.workers=0", "device=cpu"),
]

# the same kind of network for music at its own rate
STFT = STFTConfig(512, 256)
TINY = ModelConfig(
    channels=(2, 4),
    convs=1,
    encoder_blocks=(0, 1),
    decoder_blocks=(0, 1),
    ffn_dim=(0, 32),
    heads=2,
)


def read_model_file(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights, in 32 bits, and description of a model file, whatever model it is of."""
    with safe_open(path, framework="pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        about = file.metadata()
    wide = {name: value.float() for name, value in state.items() if value.is_floating_point()}
    return state | wide, json.loads(about["separator"]) | {"digest": about["digest"]}


def seeded(seed: int = 0) -> torch.Generator:
    """Randomness that is the same each time."""
    return torch.Generator().manual_seed(seed)

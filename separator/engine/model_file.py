"""Model files: the averaged weights with a description that suffices to use them."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from separator.atomic import replacing
from separator.engine.archive import not_there
from separator.engine.checkpoint import load
from separator.errors import SeparatorError, one_line


def export(path: Path, state: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
    """Write a model file: safetensors, float32, with the description as JSON in its header.

    Args:
        path: where, ending in .safetensors.
        state: the weights.
        description: what is needed to rebuild and use the model; anything JSON takes.

    Raises:
        SeparatorError: the disk is full or cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = {}
    for name, value in state.items():
        value = value.detach().to("cpu", torch.float32 if value.is_floating_point() else None)
        tensors[name] = value.clone(memory_format=torch.contiguous_format)  # no shared storage
    metadata = {"format": "pt", "separator": json.dumps(dict(description))}
    try:
        with replacing(path) as temporary:
            temporary.touch()
            mode = temporary.stat().st_mode  # what the user's umask says; save_file's is 0600
            save_file(tensors, temporary, metadata)
            temporary.chmod(mode)
    except (OSError, SafetensorError) as error:
        raise SeparatorError(
            f"{path}: cannot be written ({one_line(error)}); free space on that disk"
        ) from error


def usable(
    state: Mapping[str, Tensor], description: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Leave out what only training needs: all but the "part" that the description names."""
    prefix = f"{description['part']}." if "part" in description else ""
    inner = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
    return inner, {key: value for key, value in description.items() if key != "part"}


def load_model_file(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a model to use: a `.safetensors` of `export`, or the averaged weights of a checkpoint.

    Returns:
        The state dict (CPU) and the description it was saved with.

    Raises:
        SeparatorError: no such file, broken, or not a model of separator; nothing is executed.
    """
    path = Path(path)
    if path.suffix == ".pt":
        payload = load(path)
        return usable(payload["ema"], payload["description"])
    if path.is_dir() or (path.exists() and path.suffix != ".safetensors"):
        raise SeparatorError(f"{path}: not a model file; choose a .safetensors or a .pt of a run")
    if not path.is_file():
        raise not_there(path)
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise SeparatorError(
            f"{path}: truncated or not a safetensors file; copy or download it again"
        ) from error
    try:
        return state, json.loads(metadata["separator"])
    except (KeyError, ValueError) as error:
        raise SeparatorError(
            f"{path}: no model of separator (its header does not describe one); choose another file"
        ) from error


def load_description(path: str | os.PathLike) -> dict[str, Any]:
    """Read what a `.safetensors` file says of itself, without its weights; {} if it is not ours."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return json.loads((file.metadata() or {}).get("separator", "{}"))
    except (OSError, SafetensorError, ValueError):
        return {}

"""Model files: the averaged weights with a description that suffices to use them.

The description and a digest are text in the header of a safetensors file. A file may come from
anyone: nothing in it is executed, and nothing but its header, up to a limit, is read before all
that the header says has been compared with what the described model needs.
"""

import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from separator.atomic import replacing
from separator.dsp.config import STFTConfig
from separator.engine.checkpoint import load
from separator.errors import SeparatorError, one_line
from separator.model_sources import model_file
from separator.models.build import skeleton
from separator.models.description import from_json, refused
from separator.models.weights import Layout, TensorForm, fill, layout_of

MAX_HEADER = 4_000_000  # bytes; the default model's is 40 kB, and a hundred blocks' below 1 MB
METADATA = {"format", "separator", "digest"}
DTYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64", "I64": "int64"}


def export(
    path: Path,
    state: Mapping[str, Tensor],
    description: Mapping[str, Any],
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a model file: safetensors, with the description as JSON in its header.

    Args:
        path: where, ending in .safetensors.
        state: the weights.
        description: what is needed to rebuild and use the model; anything JSON takes.
        dtype: of the weights in the file.

    Raises:
        SeparatorError: the disk is full or cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = {}
    for name, value in state.items():
        value = value.detach().to("cpu", dtype if value.is_floating_point() else None)
        tensors[name] = value.clone(memory_format=torch.contiguous_format)  # no shared storage
    text = json.dumps(dict(description))
    metadata = {"format": "pt", "separator": text, "digest": digest(tensors, text)}
    try:
        with replacing(path) as temporary:
            temporary.touch()
            mode = temporary.stat().st_mode  # what the user's umask says; save_file's is 0600
            save_file(tensors, temporary, metadata)
            temporary.chmod(mode)
    except (OSError, SafetensorError) as error:
        # safetensors puts its own words and a number around the system's
        reason = str(error).partition("I/O error: ")[2].partition(" (os error")[0]
        reason = reason or one_line(error)
        full = reason == os.strerror(errno.ENOSPC)
        fix = "; free some space on that disk" if full else ""
        raise SeparatorError(f"{path}: cannot be written ({reason}){fix}") from error


def digest(state: Mapping[str, Tensor], text: str) -> str:
    """Return the SHA-256 of a text and of the name, type, shape and bytes of a state's tensors."""
    total = hashlib.sha256(text.encode())
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        total.update(repr((name, str(value.dtype), tuple(value.shape))).encode())
        total.update(value.flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()


def usable(
    state: Mapping[str, Tensor], description: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return a state and its description without what only training needs.

    All of the state but the "part" that the description names is left out.
    """
    prefix = f"{description['part']}." if "part" in description else ""
    inner = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
    return inner, {key: value for key, value in description.items() if key != "part"}


def load_model(path: str | os.PathLike) -> tuple[nn.Module, STFTConfig, dict[str, Any]]:
    """Make the model that a file holds.

    Args:
        path: a `.safetensors` of `export`, or what else `model_sources.model_file` takes; or a
            checkpoint, of which the averaged weights count.

    Returns:
        The model on the CPU, its transform, and the description with the "digest" of the file.

    Raises:
        SeparatorError: no such file, broken, or not a model of separator; nothing is executed.
    """
    path = model_file(path)
    if path.suffix == ".pt":
        state, description = _averaged(path)
        model, stft = skeleton(description, layout_of(state, path), path)
        about = {**description, "digest": digest(state, json.dumps(description))}
    else:
        header = _read_header(path)
        model, stft = skeleton(header.description, header.layout, path)
        state, about = _read_tensors(header)
    fill(model, state)
    return model, stft, about


@dataclass(frozen=True)
class _Header:
    """The header of a safetensors file.

    Attributes:
        path: the file.
        text: the description as it stands there.
        description: the description.
        digest: of description and tensors; None in files written before there was one.
        layout: type and shape of each tensor, by name.
    """

    path: Path
    text: str
    description: dict[str, Any]
    digest: str | None
    layout: Layout


def _averaged(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Averaged weights and description of a checkpoint, without what only training needs."""
    payload = load(path)
    state, description = payload["ema"], payload["description"]
    layout_of(state, path)
    if not isinstance(description, Mapping):
        raise refused(path, "its description is none")
    try:
        json.dumps(description)
    except (TypeError, ValueError, RecursionError) as error:
        raise refused(path, one_line(error)) from error
    return usable(state, description)


def _read_header(path: Path) -> _Header:
    """Read the header of a safetensors file.

    Raises:
        SeparatorError: no such file, no safetensors file, or no model of separator.
    """
    _check_size(path)
    with _opened(path) as file:
        metadata = file.metadata() or {}
        layout = {}
        for name in file.keys():  # noqa: SIM118
            entry = file.get_slice(name)
            kind = DTYPES.get(entry.get_dtype(), str(entry.get_dtype()))
            layout[name] = TensorForm(kind, tuple(entry.get_shape()))
    if "separator" not in metadata:
        raise SeparatorError(
            f"{path}: no model of separator (its header does not describe one); choose another file"
        )
    if unknown := sorted(metadata.keys() - METADATA):
        raise _damaged(path, f"{unknown[0][:40]!r} in its header is not ours")
    description = from_json(metadata["separator"], path)
    return _Header(path, metadata["separator"], description, metadata.get("digest"), layout)


def _check_size(path: Path) -> None:
    """Refuse a file whose header cannot be that of a model, before anything parses it."""
    if path.suffix != ".safetensors":
        raise SeparatorError(f"{path}: not a model file; choose a .safetensors or a .pt of a run")
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
        size = path.stat().st_size
    except OSError as error:
        raise SeparatorError(f"{path}: cannot be read ({one_line(error)})") from error
    if length + 8 > size:
        raise _damaged(path, "truncated or not a safetensors file")
    if length > MAX_HEADER:
        raise refused(path, f"a header of {length / 1e6:.0f} MB")


def _read_tensors(header: _Header) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read all tensors as they are stored; return them and the description with "digest".

    Raises:
        SeparatorError: the file is damaged.
    """
    with _opened(header.path) as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    actual = digest(state, header.text)
    if header.digest not in (None, actual):
        raise _damaged(header.path, "its weights or description are not those it was written with")
    return state, {**header.description, "digest": actual}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a safetensors file; what goes wrong in it becomes one line."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (OSError, SafetensorError, ValueError, AttributeError) as error:
        raise _damaged(path, "truncated or not a safetensors file") from error


def _damaged(path: Path, reason: str) -> SeparatorError:
    return SeparatorError(f"{path}: damaged ({reason}); copy or download it again")

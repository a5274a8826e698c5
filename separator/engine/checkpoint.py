"""Checkpoints and model files: plain dicts and tensors, written whole or not at all.

A run folder holds `last.pt` (what the run resumes from), `best-STEP.pt` for the best validations,
and `model.safetensors` (the averaged weights of the best one, to use and to share).
"""

import json
import math
import os
import pickle
import shutil
import subprocess
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from separator.atomic import replacing
from separator.errors import SeparatorError

FORMAT = 1
KEYS = {
    *("format", "model", "ema", "averaged", "optimizer", "step"),
    *("scores", "skipped", "rollbacks", "config", "description"),
}


@dataclass
class State:
    """All of a run that changes as it goes; the rest is a function of the configuration.

    Attributes:
        model: the trained weights.
        ema: their average.
        optimizer: its running means.
        step: finished steps.
        scores: (step, score) of each validation, in order.
        skipped: steps skipped because the loss or the gradient was not finite.
        rollbacks: times the weights were reloaded because of that.
    """

    model: nn.Module
    ema: AveragedModel
    optimizer: torch.optim.Optimizer
    step: int = 0
    scores: list[tuple[int, float]] = field(default_factory=list)
    skipped: int = 0
    rollbacks: int = 0

    @property
    def best(self) -> float:
        """Highest score so far, minus infinity before the first."""
        return max((score for _, score in self.scores), default=-math.inf)

    def payload(self) -> dict[str, Any]:
        """Return the state as plain dicts, tensors and numbers."""
        return {
            "format": FORMAT,
            "model": self.model.state_dict(),
            "ema": self.ema.module.state_dict(),
            "averaged": int(self.ema.n_averaged),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "scores": [list(pair) for pair in self.scores],
            "skipped": self.skipped,
            "rollbacks": self.rollbacks,
        }

    def load_weights(self, payload: Mapping[str, Any], path: Path) -> None:
        """Take model, average and optimizer from a payload; the counters stay.

        Raises:
            SeparatorError: they belong to another architecture.
        """
        load_weights(self.model, payload["model"], path)
        load_weights(self.ema.module, payload["ema"], path)
        self.ema.n_averaged.fill_(payload["averaged"])
        try:
            self.optimizer.load_state_dict(payload["optimizer"])
        except (ValueError, KeyError, TypeError) as error:
            raise _other_architecture(path, "the optimizer's groups differ") from error

    def load(self, payload: Mapping[str, Any], path: Path) -> None:
        """Take everything from a payload."""
        self.load_weights(payload, path)
        self.step, self.skipped = payload["step"], payload["skipped"]
        self.rollbacks = payload["rollbacks"]
        self.scores = [(step, score) for step, score in payload["scores"]]


def save(path: Path, payload: Mapping[str, Any]) -> None:
    """Write a payload; what stood there stays whole until the new file is on the disk.

    Raises:
        SeparatorError: the disk is full or cannot be written.
    """
    try:
        with replacing(path) as temporary:
            torch.save(dict(payload), temporary)
    except (OSError, RuntimeError) as error:  # torch's zip writer reports a full disk as the latter
        raise SeparatorError(
            f"{path}: cannot be written ({_first_line(error)}); free space on that disk "
            "and give the same command again (the previous checkpoint is intact)"
        ) from error


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint into CPU memory without executing anything in it.

    Raises:
        SeparatorError: no such file, truncated, not plain tensors, or not ours.
    """
    payload = _read(Path(path))
    missing = sorted(KEYS - payload.keys())
    if missing:
        raise SeparatorError(
            f"{path}: not a checkpoint of separator (it has no {missing[0]!r}); choose a .pt file "
            "from a run folder"
        )
    if payload["format"] != FORMAT:
        raise SeparatorError(
            f"{path}: checkpoint format {payload['format']}, this version reads {FORMAT}; "
            "use the version of separator that wrote it"
        )
    return payload


def save_run(folder: Path, payload: Mapping[str, Any], keep_best: int) -> None:
    """Write `last.pt`, and keep `best-STEP.pt` of the best validations.

    When the payload's step is one of the `keep_best` best, it is written under that name and
    `last.pt` becomes a second name of the same file: one write, and neither is ever missing.
    """
    last = folder / "last.pt"
    ranked = sorted(payload["scores"], key=lambda pair: pair[1], reverse=True)
    best = {f"best-{step}.pt" for step, _ in ranked[:keep_best]}
    name = f"best-{payload['step']}.pt"
    if name in best:
        save(folder / name, payload)
        with replacing(last) as temporary:
            _link(folder / name, temporary)
    else:
        save(last, payload)
    for path in folder.glob("best-*.pt"):
        if path.name not in best:
            path.unlink()


def remove_partial(folder: Path) -> None:
    """Delete what a killed process left half written in a run folder."""
    for path in folder.glob(".*.part.*"):
        path.unlink(missing_ok=True)


def load_weights(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load a state dict that must fit exactly.

    Raises:
        SeparatorError: a weight is missing, unknown or of another shape; names the first.
    """
    own = module.state_dict()
    for name in [*own, *state]:
        if name not in state:
            raise _other_architecture(path, f"it has no {name!r}")
        if name not in own:
            raise _other_architecture(path, f"it has {name!r}, this model does not")
        if state[name].shape != own[name].shape:
            there, here = list(state[name].shape), list(own[name].shape)
            raise _other_architecture(path, f"{name!r} is {there} there and {here} here")
    module.load_state_dict(dict(state))


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
            save_file(tensors, temporary, metadata)
    except (OSError, SafetensorError) as error:
        raise SeparatorError(
            f"{path}: cannot be written ({_first_line(error)}); free space on that disk"
        ) from error


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
        return payload["ema"], payload["description"]
    if path.suffix != ".safetensors":
        raise SeparatorError(f"{path}: not a model file; choose a .safetensors or a .pt of a run")
    if not path.is_file():
        raise _not_there(path)
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


def git_id() -> str | None:
    """Return the commit of the code, with "-dirty" if changed since, or None outside a clone."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():  # installed: a repository further up is not ours
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _read(path: Path) -> dict[str, Any]:
    """Unpickle plain tensors only, and turn the many ways that can fail into one line."""
    if not path.is_file():
        raise _not_there(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about foreign pickles, which end in an error anyway
            payload = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise SeparatorError(
            f"{path}: holds something else than plain tensors, so it was not opened (nothing in "
            "it was executed); choose a .pt file that separator wrote"
        ) from error
    except Exception as error:  # damaged bytes raise nearly anything
        raise SeparatorError(
            f"{path}: truncated or damaged; use another .pt file of the run, or delete it"
        ) from error
    if not isinstance(payload, dict):
        raise SeparatorError(f"{path}: not a checkpoint of separator; choose a .pt of a run folder")
    return payload


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _not_there(path: Path) -> SeparatorError:
    return SeparatorError(f"{path}: no such file; give the path of a .safetensors or .pt file")


def _other_architecture(path: Path, reason: str) -> SeparatorError:
    return SeparatorError(
        f"{path}: another architecture ({reason}); use the configuration it was made with"
    )

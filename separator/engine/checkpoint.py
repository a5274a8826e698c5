"""Checkpoints and model files: plain dicts and tensors, written whole or not at all.

A run folder holds `last.pt` (what the run resumes from), `best-STEP.pt` for the best validations,
and `model.safetensors` (the averaged weights of the best one, to use and to share).
"""

import math
import os
import pickle
import shutil
import subprocess
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from separator.atomic import replacing
from separator.engine.optim import Chain
from separator.errors import SeparatorError, one_line
from separator.models.weights import load_weights, other_architecture

FORMAT = 1
KEYS = {
    *("format", "model", "ema", "averaged", "optimizer", "step"),
    *("scores", "skipped", "rollbacks", "config", "description"),
}


class Companion(Protocol):
    """What a task trains beside its model: a discriminator with an optimizer of its own."""

    def state_dict(self) -> dict[str, Any]:
        """Return its state as plain dicts, tensors and numbers."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take what `state_dict` returned."""


@dataclass
class State:
    """All of a run that changes as it goes; the rest is a function of the configuration.

    Attributes:
        model: the trained weights.
        ema: their average.
        optimizer: its running means.
        companion: what the task trains beside the model, if anything.
        step: finished steps.
        scores: (step, score) of each validation, in order.
        skipped: steps skipped because the loss or the gradient was not finite.
        rollbacks: times the weights were reloaded because of that.
    """

    model: nn.Module
    ema: AveragedModel
    optimizer: torch.optim.Optimizer | Chain
    companion: Companion | None = None
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
            "companion": self.companion.state_dict() if self.companion else None,
            "step": self.step,
            "scores": [list(pair) for pair in self.scores],
            "skipped": self.skipped,
            "rollbacks": self.rollbacks,
        }

    def load_weights(self, payload: Mapping[str, Any], path: Path) -> None:
        """Take model, average, optimizer and companion from a payload; the counters stay.

        Raises:
            SeparatorError: they belong to another architecture.
        """
        load_weights(self.model, payload["model"], path)
        load_weights(self.ema.module, payload["ema"], path)
        self.ema.n_averaged.fill_(payload["averaged"])
        try:
            self.optimizer.load_state_dict(payload["optimizer"])
        except (ValueError, KeyError, TypeError) as error:
            raise other_architecture(path, "the optimizer's groups differ") from error
        if self.companion:
            try:
                self.companion.load_state_dict(payload["companion"])
            except (RuntimeError, ValueError, KeyError, TypeError) as error:
                raise other_architecture(path, "the discriminator differs") from error

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
            f"{path}: cannot be written ({one_line(error)}); free space on that disk "
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


def git_id(root: Path = Path(__file__).parents[2]) -> str | None:
    """Return the commit of the code, with "-dirty" if changed since, or None outside a clone."""
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
        raise not_there(path)
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


def not_there(path: Path) -> SeparatorError:
    """Make the error for a model file that is missing."""
    return SeparatorError(f"{path}: no such file; give the path of a .safetensors or .pt file")

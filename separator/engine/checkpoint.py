"""Checkpoints and model files: plain dicts and tensors, written whole or not at all.

A run folder holds `last.pt` (what the run resumes from), `best-STEP.pt` for the best validations,
and `model.safetensors` (the averaged weights of the best one, to use and to share).
"""

import errno
import math
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from separator.atomic import replacing
from separator.engine import optim
from separator.engine.archive import damaged, read_archive
from separator.engine.optim import Chain
from separator.errors import SeparatorError, one_line
from separator.models.weights import load_weights, other_architecture

CHECKPOINT_FORMAT = 1
FIXES: dict[int | None, str] = {
    errno.ENOSPC: "free space on that disk",
    errno.EDQUOT: "free space in that quota",
    errno.EFBIG: "allow larger files (ulimit -f)",
}
PAYLOAD_TYPES = {
    **{"format": int, "model": dict, "ema": dict, "averaged": int, "optimizer": dict, "step": int},
    **{"scores": list, "skipped": int, "rollbacks": int, "config": dict, "description": dict},
    **{"micro_batches": int, "songs": Tensor},
}


# what a state that fits nothing raises, from wherever it is read
WRONG_STATE = (ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError)


class Discriminator(Protocol):
    """A discriminator with an optimizer of its own, which a task trains beside its model."""

    def state_dict(self) -> dict[str, Any]:
        """Return its state as plain dicts, tensors and numbers."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take a state that `state_dict` returned."""


@dataclass
class State:
    """The part of a run that changes with each step; the rest follows from the configuration.

    Attributes:
        model: the trained weights.
        ema: their average.
        optimizer: its running means.
        discriminator: of an adversarial loss, if the task has one.
        step: finished steps.
        scores: (step, score) of each validation, in order.
        skipped: steps skipped because the loss or the gradient was not finite.
        rollbacks: times the weights were reloaded because of that.
    """

    model: nn.Module
    ema: AveragedModel
    optimizer: torch.optim.Optimizer | Chain
    discriminator: Discriminator | None = None
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
            "format": CHECKPOINT_FORMAT,
            "model": self.model.state_dict(),
            "ema": self.ema.module.state_dict(),
            "averaged": int(self.ema.n_averaged),
            "optimizer": self.optimizer.state_dict(),
            "discriminator": self.discriminator.state_dict() if self.discriminator else None,
            "step": self.step,
            "scores": [list(pair) for pair in self.scores],
            "skipped": self.skipped,
            "rollbacks": self.rollbacks,
        }

    def load_weights(self, payload: Mapping[str, Any], path: Path) -> None:
        """Take model, average, optimizer and discriminator from a payload; the counters stay.

        Args:
            payload: of a checkpoint.
            path: of the checkpoint, for messages.

        Raises:
            SeparatorError: they belong to another architecture.
        """
        load_weights(self.model, payload["model"], path)
        load_weights(self.ema.module, payload["ema"], path)
        self.ema.n_averaged.fill_(payload["averaged"])
        try:
            optim.load(self.optimizer, payload["optimizer"])
        except WRONG_STATE as error:
            raise other_architecture(path, "the optimizer's groups differ") from error
        if self.discriminator:
            try:
                self.discriminator.load_state_dict(payload["discriminator"])
            except WRONG_STATE as error:
                raise other_architecture(path, "the discriminator differs") from error

    def load(self, payload: Mapping[str, Any], path: Path) -> None:
        """Take everything from the payload of the checkpoint at a path."""
        self.load_weights(payload, path)
        self.step, self.skipped = payload["step"], payload["skipped"]
        self.rollbacks = payload["rollbacks"]
        self.scores = [(step, score) for step, score in payload["scores"]]


def save(path: Path, payload: Mapping[str, Any]) -> None:
    """Write a payload to a path; the earlier file stays whole until the new one is on the disk.

    Raises:
        SeparatorError: the disk is full or cannot be written.
    """
    try:
        with replacing(path) as temporary, temporary.open("wb") as file:
            torch.save(dict(payload), file)
    except (OSError, RuntimeError) as error:  # torch's own, while it handles the system's
        cause = error if isinstance(error, OSError) else error.__context__
        fix = FIXES.get(getattr(cause, "errno", None), "let its folder be written")
        intact = os.path.exists(path.parent / "last.pt")
        kept = " (the previous checkpoint is intact)" if intact else ""
        raise SeparatorError(
            f"{path}: cannot be written ({one_line(cause or error)}); {fix} and give the same "
            f"command again{kept}"
        ) from error


def load(path: Path) -> dict[str, Any]:
    """Read the checkpoint at a path into CPU memory without executing anything in it.

    Raises:
        SeparatorError: no such file, damaged, not plain tensors, or not ours.
    """
    path = Path(path)
    payload = read_archive(path)
    for key, kind in PAYLOAD_TYPES.items():
        if key not in payload:
            raise SeparatorError(
                f"{path}: not a checkpoint of separator (it has no {key!r}); choose a .pt file "
                "from a run folder"
            )
        if not isinstance(payload[key], kind):
            wrong = f"{key!r} is of type {type(payload[key]).__name__}, not {kind.__name__}"
            raise damaged(path, f"not a checkpoint of separator ({wrong})")
    if payload["format"] != CHECKPOINT_FORMAT:
        raise SeparatorError(
            f"{path}: checkpoint format {payload['format']}, this version reads "
            f"{CHECKPOINT_FORMAT}; use the version of separator that wrote it"
        )
    _check_values(payload, path)
    return payload


def _check_values(payload: Mapping[str, Any], path: Path) -> None:
    """Refuse weights that are no tensors, counts below 0, and scores that are no pairs."""
    for key in ("model", "ema"):
        for name, value in payload[key].items():
            if not isinstance(value, Tensor):
                raise damaged(path, f"not a checkpoint of separator ({key}: {name!r} is no tensor)")
    for key in ("averaged", "step", "skipped", "rollbacks"):
        if payload[key] < 0:
            raise damaged(path, f"not a checkpoint of separator ({key!r} is {payload[key]})")
    if payload["micro_batches"] < 1:
        raise damaged(path, "not a checkpoint of separator ('micro_batches' is no count)")
    if payload["songs"].dtype != torch.int64:
        raise damaged(path, "not a checkpoint of separator ('songs' holds no numbers)")
    for pair in payload["scores"]:
        numbers = isinstance(pair, list | tuple) and [isinstance(x, int | float) for x in pair]
        if numbers != [True, True]:
            raise damaged(path, "not a checkpoint of separator ('scores' holds no pairs)")


def save_run(folder: Path, payload: Mapping[str, Any], keep_best: int) -> None:
    """Write a payload to `last.pt` in a folder, and keep `best-STEP.pt` of the best validations.

    When the payload's step is one of the `keep_best` best, it is written under that name and
    `last.pt` becomes a second name of the same file: one write, and neither is ever missing.
    """
    last = folder / "last.pt"
    ranked = sorted(payload["scores"], key=lambda pair: pair[1], reverse=True)
    best = {step for step, _ in ranked[:keep_best]}
    name = f"best-{payload['step']}.pt"
    if payload["step"] in best:
        save(folder / name, payload)
        with replacing(last) as temporary:
            _link(folder / name, temporary)
    else:
        save(last, payload)
    for step, path in _best_files(folder).items():
        if step not in best:
            path.unlink()


def check_new(folder: Path) -> None:
    """Refuse to begin a run in a folder with checkpoints, which it would delete.

    Raises:
        SeparatorError: checkpoints of best validations are there; names the latest.
    """
    if best := _best_files(folder):
        raise SeparatorError(
            f"{folder}: last.pt is missing, but {best[max(best)].name} is there; copy it to "
            "last.pt to resume from it, or use another run="
        )


def _best_files(folder: Path) -> dict[int, Path]:
    """Return the checkpoints of the best validations by step; other names are not the run's."""
    paths = {path.stem.removeprefix("best-"): path for path in folder.glob("best-*.pt")}
    return {int(step): path for step, path in paths.items() if step.isdecimal()}


def git_id(root: Path = Path(__file__).parents[2]) -> str | None:
    """Return the commit of a clone's root, with "-dirty" if changed since, or None elsewhere."""
    if not (root / ".git").exists():  # installed: a repository further up is not ours
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)

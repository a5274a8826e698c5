"""The interface between a trainer and the loop: the task, and the result of a validation."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from separator.engine.checkpoint import Discriminator
from separator.errors import SeparatorError

# what may differ when a run is resumed: it changes how long, where and how often, not the training
RESUMABLE_KEYS = {
    *("steps", "run", "device", "max_minutes", "keep_best"),
    *("log_every", "checkpoint_every", "validate_every", "log.wandb", "log.project"),
    *("data.cache_gb", "data.memory_mb"),
}


@dataclass
class Validation:
    """The result of a validation.

    Attributes:
        scalars: numbers by name (`area/name`).
        score: the number that picks the best checkpoint; higher is better.
        images: (3 h w) in [0, 1] by name.
        audio: (c t) samples in [-1, 1] and their rate in Hz, by name.
        quality: the charts to look at first, by name (with the unit): for each its lines by name,
            of which "model" is the model's.
        summary: the score in words; with its number alone when empty.
        notes: what stands in brackets behind it.
    """

    scalars: dict[str, float]
    score: float
    images: dict[str, Tensor] = field(default_factory=dict)
    audio: dict[str, tuple[Tensor, int]] = field(default_factory=dict)
    quality: dict[str, dict[str, float]] = field(default_factory=dict)
    summary: str = ""
    notes: tuple[str, ...] = ()

    def text(self, best: bool) -> str:
        """Return the result in words; `best` if no earlier validation had a higher score."""
        notes = [*self.notes, *(["best so far"] if best else [])]
        aside = f" ({', '.join(notes)})" if notes else ""
        return (self.summary or f"validation score {self.score:.4g}") + aside


class Task(ABC):
    """A model with its data and losses, which the loop trains.

    Attributes:
        model: the weights.
        discriminator: trained beside it for an adversarial loss, if there is one.
        accumulate: micro-batches in a step on this rank, which the loop sets: a run that goes on on
            other ranks than before keeps the samples of a step.
    """

    model: nn.Module
    discriminator: Discriminator | None = None
    accumulate: int = 1

    def parameter_groups(self) -> list[dict]:
        """Return the weights in groups, with the factors on their learning rate."""
        return [{"params": list(self.model.parameters()), "lr_scale": 1.0}]

    def attach(self, averaged: nn.Module) -> None:  # noqa: B027 - most have no use for it
        """Take the averaged model, once, before the first step."""

    def songs(self) -> Tensor:
        """Return (n) int64: what tells the songs trained on and validated with, in their order.

        Equal where the same command would draw the same samples; see `data.identity`.
        """
        return torch.empty(0, dtype=torch.int64)

    @abstractmethod
    def batches(self, start: int, stride: int = 1) -> Iterator[Any]:
        """Yield micro-batches number `start`, `start + stride`, … without end.

        Each is a function of the seed and its number only. The micro-batches of a step, of all
        ranks together, have consecutive numbers.
        """

    @abstractmethod
    def step(
        self, model: nn.Module, batch: Any, step: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Return named scalars (`area/name`), of which `loss` is differentiated.

        Args:
            model: to call instead of `self.model`: it may be compiled or distributed.
            batch: from `batches`; the task moves it to the device.
            step: finished steps of the run, for schedules.
            generator: on the CPU, seeded by (seed, step, place of the micro-batch in the step).
        """

    @abstractmethod
    def seconds(self, batch: Any) -> float:
        """Return the seconds of audio in a batch, for the throughput."""

    def preview(self, model: nn.Module, batch: Any, generator: torch.Generator) -> Validation:
        """Return pictures and sounds of a new run's first micro-batch; only rank 0 calls it.

        Args:
            model: the averaged one before the first step, in evaluation mode; gradients are off.
            batch: the first of `batches`, which is trained on afterwards: it must not be changed.
            generator: on the CPU, seeded as for the first step.
        """
        return Validation({}, 0.0)

    @abstractmethod
    def validate(self, model: nn.Module, step: int) -> Validation:
        """Return the score of the averaged model, in evaluation mode and without gradients.

        All ranks call it after a step and share the work; the result of rank 0 counts.
        """

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return all that is needed to rebuild and use the model, as JSON can hold it.

        Where only a part of `model` is to be used, "part" is its name within it.
        """


def check_config(
    old: Mapping[str, Any], new: Mapping[str, Any], path: Path, free: Collection[str] = ()
) -> None:
    """Refuse to resume a run under a configuration that would not continue the same training.

    Args:
        old: configuration of the run so far.
        new: that of this command.
        path: where `old` was read.
        free: keys that may differ, beside those that always may.

    Raises:
        SeparatorError: names the first key that differs, and the fix.
    """
    before, after = flat(old), flat(new)
    for key in [*after, *before]:
        if key in RESUMABLE_KEYS or key in free or key.split(".")[-1] == "workers":
            continue
        if key not in before or key not in after:  # what it would have been, nobody knows
            raise SeparatorError(
                f"{key}: {path} was made by another version, which had other settings; go on with "
                "that version, or use another run="
            )
        if before[key] != after[key]:
            was, now = (values[key] or repr(values[key]) for values in (before, after))
            raise SeparatorError(
                f"{key}: {path} was made with {was}, this command says {now}; set it back, or use "
                "another run="
            )


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested dicts as {"prefix.a.b": value}; tuples become lists."""
    rows: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            rows |= flat(value, f"{prefix}{key}.")
        else:
            rows[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return rows

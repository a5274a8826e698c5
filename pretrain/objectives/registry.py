"""Objectives beside the masked error, by the name of their settings."""

import dataclasses
import importlib
import pkgutil
from typing import TypeVar

from separator.pretrain.objectives import auxiliary
from separator.pretrain.objectives.base import Objective

OBJECTIVES: dict[str, type[Objective]] = {}

Kind = TypeVar("Kind", bound=type[Objective])


def register(objective: Kind) -> Kind:
    """Add a class to the objectives, under its `key`."""
    OBJECTIVES[objective.key] = objective
    return objective


def load() -> dict[str, type[Objective]]:
    """Import every file of `auxiliary` and return the registered objectives by their keys."""
    for module in pkgutil.iter_modules(auxiliary.__path__, f"{auxiliary.__name__}."):
        importlib.import_module(module.name)
    return OBJECTIVES


def all_settings() -> type:
    """Make a dataclass with a field for the settings of each objective."""
    rows, lines = [], ["Settings of all objectives.", "", "Attributes:"]
    for key, objective in load().items():
        rows.append((key, objective.Config, dataclasses.field(default_factory=objective.Config)))
        summary = (objective.Config.__doc__ or "").split("\n")[0]
        lines.append(f"    {key}: {summary[:1].lower()}{summary[1:]}")
    made = dataclasses.make_dataclass("ObjectiveSettings", rows, frozen=True, kw_only=True)
    made.__doc__ = "\n".join(lines)
    return made

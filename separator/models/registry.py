"""The architectures that a configuration can name.

A new architecture is a module with a model (`models.base.Architecture`) and its configuration, and
a row in `ARCHITECTURES`: its settings, its files and its training follow from that. A module that
imports torch at its top makes `--help` import it too; the configurations in `models.config` do not.
"""

import pkgutil
from collections.abc import Callable
from dataclasses import field, make_dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

from separator.errors import SeparatorError
from separator.models.config import ModelConfig, PatchConfig, Sizes
from separator.stems import TWO_STEMS, StemSet

if TYPE_CHECKING:
    from separator.models.base import Architecture


class Entry(NamedTuple):
    """An architecture.

    Attributes:
        key: the group of its settings in a run's configuration.
        config: dataclass of these settings.
        model: where its class is, "module:name".
    """

    key: str
    config: type
    model: str

    def load(self) -> "Callable[..., Architecture]":
        """Return the class, imported."""
        return pkgutil.resolve_name(self.model)


ARCHITECTURES = {
    "frame_transformer": Entry(
        "model", ModelConfig, "separator.models.frame_transformer:FrameTransformer"
    ),
    "patch_transformer": Entry(
        "patch", PatchConfig, "separator.models.patch_transformer:PatchTransformer"
    ),
}


def architecture_of(sizes: Sizes) -> str:
    """Return the name of the architecture whose settings these sizes are."""
    return next(name for name, entry in ARCHITECTURES.items() if type(sizes) is entry.config)


def _sizes(choice: "ModelChoice") -> Sizes:
    """The settings of the chosen architecture, with the stems of `model.stems`."""
    key = ARCHITECTURES[choice.architecture].key
    sizes, stems = getattr(choice, key), choice.model.stems
    if sizes.stems not in (TWO_STEMS.names, stems):
        raise SeparatorError(f"{key}.stems: all architectures read model.stems; give that")
    return replace(sizes, stems=stems)


def _stems(choice: "ModelChoice") -> StemSet:
    """The stems that the model separates songs into."""
    return StemSet(choice.model.stems)


_groups = [(entry.key, entry.config, field(default_factory=entry.config))
           for entry in ARCHITECTURES.values()]  # fmt: skip
ModelChoice = make_dataclass(
    "ModelChoice",
    [("architecture", Literal[tuple(ARCHITECTURES)], next(iter(ARCHITECTURES))), *_groups],
    frozen=True,
    kw_only=True,
    namespace={"sizes": property(_sizes), "stems": property(_stems), "__module__": __name__},
)
ModelChoice.__doc__ = "\n".join(
    [
        "Which model a run trains.",
        "",
        "Attributes:",
        "    architecture: the model; its settings are in the group of its name below.",
        *(f"    {entry.key}: settings of {name}." for name, entry in ARCHITECTURES.items()),
    ]
)

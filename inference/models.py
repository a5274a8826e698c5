"""`separator models [NAME]`: the models that come with the package."""

import sys
from dataclasses import dataclass, field

from separator import bundled
from separator.config import parse
from separator.errors import UsageError


@dataclass(frozen=True)
class ModelsConfig:
    """List the models that come with the package, or show the card of one.

    Attributes:
        name: show the cards of these models; without a name, list all models.
    """

    name: list[str] = field(default_factory=list)


def main(argv: list[str]) -> int:
    """Print the list, or the cards."""
    config = parse(ModelsConfig, argv, "models", positional="name")
    names = bundled.names()
    for name in config.name:
        if name not in names:
            raise UsageError(f"models: {name} is not one of {', '.join(names) or '(none)'}")
    sys.stdout.write("\n".join(map(bundled.card, config.name)) if config.name else _table(names))
    return 0


def _table(names: list[str]) -> str:
    """Format a line for each model: its name, its size and what it is for."""
    lines = []
    for name in names:
        size = bundled.model_path(name).stat().st_size / 1e6
        purpose = next(line for line in bundled.card(name).splitlines()[1:] if line.strip())
        default = " (default)" if name == bundled.DEFAULT else ""
        lines.append(f"{name}{default}, {size:.1f} MB: {purpose}\n")
    return "".join(lines)

"""`separator export MODEL -o FILE`: a model file of half the size, to be given away."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from separator.config import parse
from separator.errors import SeparatorError, printable

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExportConfig:
    """Write a model's weights as 16-bit floats, which halves its file.

    Attributes:
        model: model file, or a checkpoint of a run, of which the averaged weights count.
        output: (or -o) the file to write, ending in .safetensors.
        license: licence of the weights, as the file is to say.
    """

    model: list[str]
    output: str = ""
    license: str = ""

    def __post_init__(self) -> None:
        if len(self.model) != 1:
            raise SeparatorError(f"model: {len(self.model)} are given; give one")
        if Path(self.output).suffix != ".safetensors":
            raise SeparatorError("output: give -o FILE.safetensors")


def main(argv: list[str]) -> int:
    """Write the file."""
    argv = ["--output" if word == "-o" else word for word in argv]
    config = parse(ExportConfig, argv, "export", positional="model")

    import torch

    from separator.engine.model_file import export, load_model_file

    state, description = load_model_file(config.model[0])
    description.pop("digest", None)
    if config.license:
        description["license"] = config.license
    export(Path(config.output), state, description, torch.float16)
    size = os.path.getsize(config.output) / 1e6
    log.info("%s: %.1f MB", printable(config.output), size)
    return 0

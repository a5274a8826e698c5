"""`separator export MODEL -o FILE`: a model file of half the size, or ONNX, to be given away."""

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path

from separator.atomic import check_folder
from separator.config import parse
from separator.errors import SeparatorError, printable, writing

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExportConfig:
    """Write a model's weights as 16-bit floats, which halves its file; or its network as ONNX.

    Attributes:
        model: model file, a name that `separator models` lists, or a checkpoint of a run, whose
            averaged weights are written.
        output: the file to write. NAME.safetensors is a model for this program; NAME.onnx is the
            network for programs without PyTorch: it computes in 32-bit floats, and its weights
            have 16 bits where all values of a tensor fit them.
        license: licence of the weights, which the file states.
    """

    model: list[str] = field(metadata={"nargs": 1})
    output: str = field(default="", metadata={"metavar": "FILE"})
    license: str = ""

    def __post_init__(self) -> None:
        if Path(self.output).suffix not in (".safetensors", ".onnx"):
            raise SeparatorError("output: give -o FILE.safetensors or -o FILE.onnx")


def main(argv: list[str]) -> int:
    """Write the file."""
    config = parse(ExportConfig, argv, "export", positional="model")

    path = Path(config.output)
    with writing(path, "give another file with -o"):  # before the work, which takes minutes
        check_folder(path.parent)
    if path.suffix == ".onnx":
        from separator.engine.onnx_file import export_onnx

        export_onnx(path, config.model[0], config.license)
    else:
        _write_half(path, config.model[0], config.license)
    log.info("%s: %.1f MB", printable(config.output), os.path.getsize(path) / 1e6)
    return 0


def _write_half(path: Path, model: str, license: str) -> None:
    """Write the model with weights of 16 bits."""
    import torch

    from separator.engine.model_file import export, load_model

    network, _, description = load_model(model)
    del description["digest"]
    if license:
        description["license"] = license
    state, largest = network.state_dict(), torch.finfo(torch.float16).max
    for name, value in state.items():
        if value.is_floating_point() and (value.abs() > largest).any():
            raise SeparatorError(f"{model}: {name} has values above {largest:.0f}, the largest of "
                                 "16 bits; share the file as it is")  # fmt: skip
    export(path, state, description, torch.float16)

"""ONNX files: the network of a model without PyTorch, with its description as metadata.

The file holds the network alone, from magnitudes to masks. Who runs it does the transform, as
`separator.dsp` does: the description in the metadata "separator" has its numbers.
"""

import json
import logging
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from separator.atomic import replacing
from separator.errors import SeparatorError

OPSET = 18
FRAMES, CROPS = 67, 2  # of the example that is traced; the file takes any number of both
MASK_TOLERANCE = 1e-4  # of a mask, between the file and PyTorch


def export_onnx(path: Path, source: str, license: str = "") -> None:
    """Write a model's network as ONNX, and compare its masks with PyTorch's.

    The input "magnitude" is (b c f n), compressed and normalised as `separator.dsp` does. The
    output "mask" has that shape, or (b s c f n) with several stems; b and n are free.

    Args:
        path: the file, ending in .onnx.
        source: a model file, as `load_model` takes.
        license: of the weights, for the description; that of the model file when empty.

    Raises:
        SeparatorError: a package is missing, or the written network gives other masks.
    """
    import_onnx()
    from separator.engine.model_file import load_model

    model, stft, description = load_model(source)
    if license:
        description["license"] = license
    model.eval().requires_grad_(False)
    example = torch.rand(CROPS, 2, stft.bins, FRAMES)
    free = torch.export.Dim.AUTO
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # about packages that we do not use
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch about its own code
        program: Any = torch.onnx.export(
            model, (example,), dynamo=True, opset_version=OPSET, verbose=False,
            input_names=["magnitude"], output_names=["mask"],
            dynamic_shapes={"x": {0: free, 3: free}},
        )  # fmt: skip
    network = _halved(program.model_proto)
    network.metadata_props.add(key="separator", value=json.dumps(description))
    with replacing(path) as temporary:
        temporary.write_bytes(network.SerializeToString())
        compare(temporary, model, stft.bins)


def _halved(network: Any) -> Any:
    """Store weights in 16 bits where that changes none, such as those of an exported model file.

    The network computes in 32 bits. The names of PyTorch's code at each node are left out.
    """
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in network.graph.initializer:
        array = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = array.astype(np.float16)
        if array.dtype == np.float32 and np.array_equal(half, array):
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
            casts.append(helper.make_node("Cast", [tensor.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *network.graph.node]
    for node in nodes:
        del node.metadata_props[:]
    del network.graph.node[:]
    network.graph.node.extend(nodes)
    return network


def compare(path: Path, model: nn.Module, bins: int) -> None:
    """Compare the masks of a file with those of a model, for another length than the example.

    Args:
        path: the ONNX file.
        model: maps magnitudes to masks.
        bins: of the spectrograms.

    Raises:
        SeparatorError: they differ by more than `MASK_TOLERANCE`.
    """
    session = import_onnx().InferenceSession(path, providers=["CPUExecutionProvider"])
    magnitude = torch.rand(1, 2, bins, 2 * FRAMES + 1)
    masks = torch.from_numpy(session.run(None, {"magnitude": magnitude.numpy()})[0])
    with torch.no_grad():
        error = (model(magnitude) - masks).abs().max().item()
    if not error <= MASK_TOLERANCE:
        raise SeparatorError(
            f"export: the ONNX network's masks differ from PyTorch's by {error:.0e}"
        )


def import_onnx() -> ModuleType:
    """Return the module onnxruntime, after a check for the packages that write ONNX.

    Raises:
        SeparatorError: one of them is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise SeparatorError(f"export: {error}; pip install 'separator[export]'") from error
    return onnxruntime

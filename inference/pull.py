"""`separator pull SOURCE`: a model from the Hugging Face hub or a web address, as a file."""

import logging
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from separator.atomic import replacing
from separator.config import parse
from separator.errors import SeparatorError, printable
from separator.model_sources import model_file

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PullConfig:
    """Fetch a model from the Hugging Face hub or a web address, check it, and copy it to a file.

    Attributes:
        source: hf:OWNER/NAME, hf:OWNER/NAME@REVISION or https://…, with #sha256=DIGEST if known.
        output: the file to write, NAME.safetensors by default; for NAME.onnx the source's ONNX file
            is fetched.
    """

    source: list[str] = field(metadata={"nargs": 1})
    output: str = field(default="", metadata={"metavar": "FILE"})


def main(argv: list[str]) -> int:
    """Fetch a model, check it, and write it."""
    config = parse(PullConfig, argv, "pull", positional="source")
    source, onnx = config.source[0], config.output.endswith(".onnx")
    name = source.removeprefix("hf:").partition("@")[0].partition("#")[0].rpartition("/")[2]
    output = Path(config.output or f"{name.removesuffix('.safetensors')}.safetensors")
    if output.exists():
        raise SeparatorError(f"{output}: exists; give another name with -o FILE")
    path = model_file(source, ".onnx" if onnx else ".safetensors", newest=True)
    if onnx:
        from separator.onnx_separator import OnnxSeparator

        OnnxSeparator(path)
    else:
        from separator.engine.model_file import load_model

        load_model(path)  # compares the digest
    with replacing(output) as temporary:
        shutil.copyfile(path, temporary)
    log.info("%s: written", printable(str(output)))
    return 0

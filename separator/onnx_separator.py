"""A separator that needs no PyTorch: a network in an ONNX file, run by onnxruntime."""

import hashlib
import os
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from separator.arguments import path_of
from separator.dsp.arrays import istft, linear_masks, normalise, stft, wiener
from separator.errors import SeparatorError, one_line
from separator.model_sources import model_file
from separator.models.description import from_json, refused, settings_of
from separator.stems import StemSet
from separator.streaming import Quality, StreamingSeparator


class OnnxSeparator(StreamingSeparator[np.ndarray]):
    """A network in an ONNX file with all that is needed to apply it to audio, as a `Separator`.

    Args:
        path: a file that `separator export -o x.onnx` wrote.
        quality: as of `Separator`.

    Raises:
        SeparatorError: no such file, not ours, or onnxruntime is missing.
    """

    def __init__(self, path: Path, **quality: Unpack[Quality]) -> None:
        path = path_of(path, "path", "that of a .onnx file")
        self._session = _session(path)
        properties = self._session.get_modelmeta().custom_metadata_map
        description = from_json(properties.get("separator", "{}"), path)
        sizes, stft = settings_of(description, path)
        if description.get("stage") != "train":
            reason = "it is a pretrained model, which does not separate yet"
            raise refused(path, reason)
        with path.open("rb") as file:
            description["digest"] = hashlib.file_digest(file, "sha256").hexdigest()
        stems = StemSet(sizes.stems)
        super().__init__(stft, description["rate"], description, stems, **quality)
        self._given = np.asarray

    @classmethod
    def load(cls, path: str | os.PathLike[str], **quality: Unpack[Quality]) -> "OnnxSeparator":
        """Read a `.onnx` file, wherever it is.

        Args:
            path: the file, or what else `model_sources.model_file` takes.
            quality: as of `Separator`.
        """
        return cls(model_file(path_of(path, "model", "a path"), ".onnx"), **quality)

    def _masked(self, mixtures: np.ndarray) -> np.ndarray:
        """Estimate the stems that masks are of: (b 2 t) to (b s 2 t)."""
        filtered, samples = self.stft.for_filter, mixtures.shape[-1]
        finer = self.stft.hop // filtered.hop  # each so-many-th frame is one of the model's
        target = stft(np.pad(mixtures, ((0, 0), (0, 0), (0, -samples % self.stft.hop))), filtered)
        spectrogram = target[..., ::finer, :]
        magnitude, scale = normalise(np.abs(spectrogram), self.stft)
        magnitude = np.ascontiguousarray(magnitude.swapaxes(-1, -2))
        masks = self._session.run(None, {"magnitude": magnitude})[0].swapaxes(-1, -2)
        if not np.isfinite(masks).all():
            raise SeparatorError("the model's estimate holds NaN or infinite values; retrain it")
        masks = linear_masks(masks, self.stft)
        estimate = wiener(spectrogram / scale, masks, self.stems.masks, target, finer)
        return istft(estimate, filtered, samples)


def _session(path: Path) -> Any:
    """Open an ONNX file with onnxruntime.

    Raises:
        SeparatorError: there is none, it holds no network, or onnxruntime is missing.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise SeparatorError(f"backend onnx: {error}; pip install onnxruntime") from error
    if path.suffix != ".onnx":
        raise SeparatorError(
            f"{path}: is no .onnx file; `separator export MODEL -o x.onnx` makes one from a model"
        )
    try:
        options = onnxruntime.SessionOptions()
        # waiting threads leave decoders and encoders a core: a third less time of the CPU
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common class
        raise SeparatorError(f"{path}: no ONNX network ({one_line(error)})") from error

"""The separator: a model with all that turns waves into stems."""

import logging
import math
import os
from typing import Any, Unpack

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from separator.arguments import as_array, check_floats, check_kind, is_samples, path_of
from separator.devices import find_device
from separator.dsp.config import STFTConfig
from separator.dsp.overlap_add import overlap_add
from separator.dsp.stft import istft, linear_masks, magnitude, normalise, stft
from separator.dsp.wiener import wiener, wiener_stems
from separator.errors import SeparatorError, one_line
from separator.stems import TWO_STEMS, StemSet
from separator.streaming import Quality, StreamingSeparator

log = logging.getLogger(__name__)


class Separator(StreamingSeparator[Tensor]):
    """A model with all that is needed to apply it to audio of any rate, layout and length.

    Args:
        model: magnitudes (b c f n) in [0, 1] to masks of `stems.estimated`: (b c f n) of one stem,
            (b s c f n) of several.
        stft: the transform and the scale the model was trained with.
        rate: the model's sample rate in hertz.
        device: where to run; "auto" takes a GPU when there is one.
        description: what the model's file says of itself.
        stems: what the model separates songs into.
        quality: `shifts`, `chunk` and `overlap`, see `StreamingSeparator`.
    """

    def __init__(
        self,
        model: nn.Module,
        stft: STFTConfig,
        rate: int = 44100,
        device: str = "auto",
        description: dict[str, Any] | None = None,
        stems: StemSet = TWO_STEMS,
        **quality: Unpack[Quality],
    ) -> None:
        super().__init__(stft, rate, description, stems, **quality)
        check_kind(model, "model", nn.Module, "torch.nn.Module")
        self._given = torch.from_numpy
        self.device = find_device(str(device))
        try:
            self.model = model.to(self.device).eval()
        except (RuntimeError, AssertionError) as error:  # no such card, a driver too old, no room
            raise SeparatorError(f"device: {device!s} cannot be used: {one_line(error)}") from error
        self._room = math.inf  # samples that fit the GPU at once, as far as is known

    @classmethod
    def load(
        cls, path: str | os.PathLike, device: str = "auto", **quality: Unpack[Quality]
    ) -> "Separator":
        """Read a `.safetensors` or checkpoint file, or a bundled model by its name.

        Args:
            path: of the file, or the name of a bundled model.
            device: "auto" takes a GPU where there is one; otherwise a device of torch.
            quality: `shifts`, `chunk` and `overlap`, see `StreamingSeparator`.

        Raises:
            SeparatorError: the file is missing, damaged, not ours, or cannot separate.
        """
        from separator.engine.model_file import load_model

        path = path_of(path, "model", "a path or a Separator")
        model, stft, description = load_model(path)
        if description.get("stage") != "train":
            raise SeparatorError(
                f"{path}: a pretrained model does not separate yet; fine-tune it with "
                f"`separator train CONFIG pretrained={path}`"
            )
        stems = StemSet(tuple(description["model"].get("stems", TWO_STEMS.names)))
        return cls(model, stft, description["rate"], device, description, stems, **quality)

    def __call__(self, mixtures: Tensor) -> Tensor:
        """Separate chunks, whose stems add up to them.

        What does not fit the GPU's memory is done in smaller batches, then in shorter chunks.

        Args:
            mixtures: (b 2 t) at the model's rate.

        Returns:
            (b s 2 t) on the CPU, in the order of `stems`.

        Raises:
            SeparatorError: `mixtures` are no floats of that shape or hold nothing, not even a short
                chunk fits, or the model's estimate is not finite.
        """
        if not is_samples(mixtures) or mixtures.ndim != 3 or mixtures.shape[1] != 2:
            raise SeparatorError("mixtures: give a tensor (b, 2, t) at the model's rate")
        if 0 in mixtures.shape:
            raise SeparatorError(f"mixtures of shape {tuple(mixtures.shape)}: hold nothing")
        check_floats(mixtures)
        return torch.from_numpy(self.estimate(as_array(mixtures)))

    def _masked(self, mixtures: np.ndarray) -> np.ndarray:
        """Estimate the stems that masks are of: (b 2 t) to (b s 2 t)."""
        count, _, samples = mixtures.shape
        if count * samples <= self._room:
            try:
                return self._once(torch.from_numpy(mixtures)).numpy()
            except RuntimeError as error:  # MPS has no class of its own for it
                out_of_memory = isinstance(error, torch.OutOfMemoryError)
                if not out_of_memory and "out of memory" not in str(error):
                    raise
            # Not inside `except`: there the traceback keeps the tensors alive.
            self._shrink(count * samples)
        if count > 1:
            halves = np.array_split(mixtures, 2)
            return np.concatenate([self._masked(half) for half in halves])
        fade = self.stft.n_fft
        if samples < 4 * fade:
            raise SeparatorError("the GPU's memory is full; free some or use --device cpu")
        pieces = overlap_add([mixtures[0]], self._flat, samples // 2 + fade, fade)
        return np.concatenate(list(pieces), axis=-1).reshape(1, -1, 2, samples)

    def _flat(self, mixtures: np.ndarray) -> np.ndarray:
        """Estimate as `_masked` does, with stems and channels as one axis."""
        return self._masked(mixtures).reshape(len(mixtures), -1, mixtures.shape[-1])

    @torch.inference_mode()
    def _once(self, mixtures: Tensor) -> Tensor:
        filtered, samples = self.stft.for_filter, mixtures.shape[-1]
        finer = self.stft.hop // filtered.hop  # each so-many-th frame is one of the model's
        mixtures = F.pad(mixtures.to(self.device), (0, -samples % self.stft.hop))
        target = stft(mixtures, filtered)
        spectrogram = target[..., ::finer]
        compressed, scale = normalise(magnitude(spectrogram), self.stft)
        masks = linear_masks(self.model(compressed), self.stft)
        if not masks.sum(dtype=torch.float32).isfinite():  # of numbers up to 1
            raise SeparatorError("the model's estimate holds NaN or infinite values; retrain it")
        scaled = spectrogram * (1 / scale)  # complex numbers are slow to divide
        if masks.shape[1] == 1:
            estimate = wiener(scaled, masks[:, 0], target, finer)[:, None]
        else:
            estimate = wiener_stems(scaled, masks, target, finer)
        return istft(estimate, filtered, samples).cpu()

    def _shrink(self, samples: int) -> None:
        """Remember that so many samples at once are too many."""
        self._room = samples * 3 // 4  # a half with its cross-fade is not more than that
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        seconds = samples / self.rate
        log.warning("out of GPU memory with %.1f s of sound at once; going on with less", seconds)

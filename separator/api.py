"""Separation from Python: `separator.separate("song.flac")`, or a `Separator` for many songs."""

import logging
import math
import os
from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from separator import audio, bundled
from separator.arguments import path_of, rate_of, samples_of
from separator.devices import find_device
from separator.dsp.config import STFTConfig
from separator.dsp.overlap_add import overlap_add
from separator.dsp.stft import istft, linear_mask, normalise, stft
from separator.dsp.wiener import wiener
from separator.errors import SeparatorError, one_line

log = logging.getLogger(__name__)

CHUNK_SECONDS = 12.0
OVERLAP_SECONDS = 1.0

Source = str | os.PathLike | Tensor | np.ndarray


class Separator:
    """A model with all that is needed to apply it to audio of any rate, layout and length.

    Args:
        model: magnitudes (b c f n) in [0, 1] to the accompaniment's mask of the same shape.
        stft: the transform and the scale the model was trained with.
        rate: the model's sample rate in hertz.
        device: where to run; "auto" takes a GPU when there is one.
        description: what the model's file says of itself.
    """

    def __init__(
        self,
        model: nn.Module,
        stft: STFTConfig,
        rate: int = 44100,
        device: str = "auto",
        description: dict | None = None,
    ) -> None:
        self.device = find_device(str(device))
        try:
            self.model = model.to(self.device).eval()
        except (RuntimeError, AssertionError) as error:  # no such card, a driver too old, no room
            raise SeparatorError(f"device: {device!s} cannot be used: {one_line(error)}") from error
        self.stft = stft
        self.rate = rate
        self.description = description or {}
        self._room = math.inf  # samples that fit the GPU at once, as far as is known

    @classmethod
    def load(cls, path: str | os.PathLike, device: str = "auto") -> "Separator":
        """Read a `.safetensors` or checkpoint file, or a bundled model by its name.

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
        return cls(model, stft, description["rate"], device, description)

    def accompaniment(self, mixtures: Tensor) -> Tensor:
        """Estimate the accompaniments of chunks: (b 2 t) at the model's rate to (b 2 t) on the CPU.

        What does not fit the GPU's memory is done in smaller batches, then in shorter chunks.

        Raises:
            SeparatorError: not even a short chunk fits, or the model's estimate is not finite.
        """
        count, _, samples = mixtures.shape
        if count * samples <= self._room:
            try:
                return self._estimate(mixtures)
            except RuntimeError as error:  # MPS has no class of its own for it
                out_of_memory = isinstance(error, torch.OutOfMemoryError)
                if not out_of_memory and "out of memory" not in str(error):
                    raise
            # Not inside `except`: there the traceback keeps the tensors alive.
            self._shrink(count * samples)
        if count > 1:
            halves = mixtures.split((count + 1) // 2)
            return torch.cat([self.accompaniment(half) for half in halves])
        fade = self.stft.n_fft
        if samples < 4 * fade:
            raise SeparatorError("the GPU's memory is full; free some or use --device cpu")
        pieces = overlap_add([mixtures[0]], self.accompaniment, samples // 2 + fade, fade)
        return torch.cat(list(pieces), dim=-1)[None]

    @torch.inference_mode()
    def _estimate(self, mixtures: Tensor) -> Tensor:
        spectrogram = stft(mixtures.to(self.device), self.stft)
        magnitude, scale = normalise(spectrogram.abs(), self.stft)
        mask = linear_mask(self.model(magnitude), self.stft)
        if not mask.isfinite().all():
            raise SeparatorError("the model's estimate holds NaN or infinite values; retrain it")
        estimate = wiener(spectrogram / scale, mask) * scale
        return istft(estimate, self.stft, mixtures.shape[-1]).cpu()

    def _shrink(self, samples: int) -> None:
        """Remember that so many samples at once are too many."""
        self._room = samples * 3 // 4  # a half with its cross-fade is not more than that
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        seconds = samples / self.rate
        log.warning("out of GPU memory with %.1f s of sound at once; going on with less", seconds)

    def stream(
        self, blocks: Iterable[Tensor], rate: int, batch: int = 1
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Separate audio that never is in memory as a whole.

        The vocals are estimated at the model's rate, brought back to `rate` and subtracted from
        the mixture by the caller, so what the model's rate cannot hold stays in the instrumental.

        Args:
            blocks: (c t) pieces of one recording; more than two channels are folded to stereo.
            rate: its sample rate in hertz.
            batch: chunks processed at once.

        Yields:
            (mixture, vocals), each (c t) with c at most 2, as many samples in all as came in.

        Raises:
            SeparatorError: samples that are not finite, more than 8 channels, or no rate of sound.
        """
        rate = rate_of(rate)
        mixtures: deque[Tensor] = deque()
        down = up = None

        def stereo() -> Iterator[Tensor]:
            nonlocal down, up
            for block in blocks:
                if not block.isfinite().all():
                    raise SeparatorError("the audio holds NaN or infinite samples; repair it first")
                mixture = audio.to_channels(block, min(block.shape[0], 2))
                if down is None:
                    down = audio.Resampler(rate, self.rate, mixture.shape[0])
                    up = audio.Resampler(self.rate, rate, mixture.shape[0])
                mixtures.append(mixture)
                yield audio.to_channels(down.push(mixture), 2)
            if down is not None:
                yield audio.to_channels(down.flush(), 2)

        def estimate(chunks: Tensor) -> Tensor:
            return chunks - self.accompaniment(chunks)

        chunk = int(CHUNK_SECONDS * self.rate) // self.stft.hop * self.stft.hop
        overlap = int(OVERLAP_SECONDS * self.rate)
        for vocals in overlap_add(stereo(), estimate, chunk, overlap, batch):
            yield from _paired(mixtures, up.push(audio.to_channels(vocals, up.channels)))
        if up is not None:
            yield from _paired(mixtures, up.flush())

    def separate_wave(self, mixture: Tensor | np.ndarray, rate: int) -> dict[str, Tensor]:
        """Separate a recording held in memory.

        Args:
            mixture: (c t) samples, floats of which ±1 is full scale.
            rate: their sample rate in hertz.

        Returns:
            "instrumental" and "vocals", (c t) with c at most 2 (more are folded to stereo). The
            instrumental is the mixture minus the vocals, so they add up to the mixture, to the
            rounding of one float32 addition.

        Raises:
            SeparatorError: the samples are not finite, not floats or not (c t), or the rate is not
                one of sound.
        """
        mixture, rate = samples_of(mixture), rate_of(rate)
        whole = audio.to_channels(mixture, min(mixture.shape[0], 2))
        vocals = torch.empty_like(whole)
        at = 0
        for _, piece in self.stream([whole], rate):
            vocals[:, at : at + piece.shape[-1]] = piece
            at += piece.shape[-1]
        return {"instrumental": whole - vocals, "vocals": vocals}

    def separate(self, source: Source, rate: int | None = None) -> dict[str, Tensor]:
        """Separate a file, or samples as `separate_wave` does; see `separator.separate`."""
        if isinstance(source, Tensor | np.ndarray):
            if rate is None:
                raise SeparatorError("separate: give rate= (hertz) with samples")
            return self.separate_wave(source, rate)
        path = path_of(source, "source", "a path or samples (c t)")
        if rate is not None:
            raise SeparatorError("separate: rate= is for samples; a file has its own, leave it out")
        info = audio.probe(path)  # refuses what cannot be read before all of it is
        return self.separate_wave(audio.read(path), info.rate)


def separate(
    source: Source | list[Source] | tuple[Source, ...],
    rate: int | None = None,
    model: str | os.PathLike | Separator | None = None,
    device: str = "auto",
) -> dict[str, Tensor] | list[dict[str, Tensor]]:
    """Split songs into "instrumental" and "vocals", (c t) each, at each song's own rate.

    Args:
        source: an audio file, or samples (c t), floats of which ±1 is full scale; or a list of
            such songs.
        rate: the sample rate of samples; a file has its own.
        model: a model file, the name of a bundled model, or a loaded `Separator`; by default
            $SEPARATOR_MODEL, else the bundled model.
        device: "auto", "cpu", "cuda" or "mps"; a loaded `Separator` stays where it is.

    Returns:
        The two stems, or for a list of songs a list of them.

    Raises:
        SeparatorError: any argument that cannot be used: an unreadable file, samples
            that are not finite, not floats or not (c t). Where it is one of a list, names which.
    """
    many = isinstance(source, list | tuple)
    songs = list(source) if many else [source]
    for song in songs:  # before a model is loaded
        if not isinstance(song, Tensor | np.ndarray):
            path_of(song, "source", "a path or samples (c t)")
    if not isinstance(model, Separator):
        model = Separator.load(find_model() if model is None else model, device)
    if not many:
        return model.separate(source, rate)
    results = []
    for number, song in enumerate(songs):
        samples = isinstance(song, Tensor | np.ndarray)
        try:
            results.append(model.separate(song, rate if samples else None))
        except SeparatorError as error:
            raise SeparatorError(f"separate: source[{number}]: {error}") from error
    return results


def find_model() -> str:
    """Return $SEPARATOR_MODEL, else the name of the model that comes with the package."""
    return os.environ.get("SEPARATOR_MODEL") or bundled.DEFAULT


def _paired(mixtures: deque[Tensor], vocals: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Pair new vocals with as many samples from the front of the waiting mixture.

    Two resamplings, each of which rounds its length up, may give a sample too many at the end.
    """
    while mixtures and vocals.shape[-1]:
        mixture = mixtures.popleft()
        count = min(mixture.shape[-1], vocals.shape[-1])
        if count < mixture.shape[-1]:
            mixtures.appendleft(mixture[:, count:])
        if count:
            yield mixture[:, :count], vocals[:, :count]
        vocals = vocals[:, count:]

"""The separator: a model with all that turns waves into stems."""

import logging
import math
import os
from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from separator import audio
from separator.arguments import path_of, rate_of, samples_of
from separator.devices import find_device
from separator.dsp.config import STFTConfig
from separator.dsp.overlap_add import overlap_add
from separator.dsp.stft import istft, linear_masks, normalise, stft
from separator.dsp.wiener import wiener, wiener_stems
from separator.errors import SeparatorError, one_line
from separator.stems import TWO_STEMS, StemSet, public_name

log = logging.getLogger(__name__)

CHUNK_SECONDS = 12.0
OVERLAP_SECONDS = 1.0
MAX_SHIFTS = 16

Source = str | os.PathLike | Tensor | np.ndarray


class Separator:
    """A model with all that is needed to apply it to audio of any rate, layout and length.

    Args:
        model: magnitudes (b c f n) in [0, 1] to masks of `stems.estimated`: (b c f n) of one stem,
            (b s c f n) of several.
        stft: the transform and the scale the model was trained with.
        rate: the model's sample rate in hertz.
        device: where to run; "auto" takes a GPU when there is one.
        description: what the model's file says of itself.
        stems: what the model separates songs into.
        shifts: the estimate is the mean of so many, between which the song is shifted by parts of
            a hop: a higher SDR, in so many times the time.
    """

    def __init__(
        self,
        model: nn.Module,
        stft: STFTConfig,
        rate: int = 44100,
        device: str = "auto",
        description: dict | None = None,
        stems: StemSet = TWO_STEMS,
        shifts: int = 1,
    ) -> None:
        if not 1 <= shifts <= MAX_SHIFTS:
            raise SeparatorError(f"shifts: {shifts} is not in 1..{MAX_SHIFTS}")
        self.device = find_device(str(device))
        try:
            self.model = model.to(self.device).eval()
        except (RuntimeError, AssertionError) as error:  # no such card, a driver too old, no room
            raise SeparatorError(f"device: {device!s} cannot be used: {one_line(error)}") from error
        self.stft, self.rate, self.stems = stft, rate, stems
        self.description, self.shifts = description or {}, shifts
        self._room = math.inf  # samples that fit the GPU at once, as far as is known

    @classmethod
    def load(cls, path: str | os.PathLike, device: str = "auto", shifts: int = 1) -> "Separator":
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
        stems = StemSet(model.config.stems)
        return cls(model, stft, description["rate"], device, description, stems, shifts)

    def __call__(self, mixtures: Tensor) -> Tensor:
        """Separate chunks, whose stems add up to them.

        What does not fit the GPU's memory is done in smaller batches, then in shorter chunks.

        Args:
            mixtures: (b 2 t) at the model's rate.

        Returns:
            (b s 2 t) on the CPU, in the order of `stems`.

        Raises:
            SeparatorError: not even a short chunk fits, or the model's estimate is not finite.
        """
        stems, mixtures = self._masked(mixtures), mixtures.cpu()
        stems = rearrange(stems, "b (s c) t -> s b c t", c=2)
        names = self.stems.names
        waves = dict(zip(self.stems.estimated, stems, strict=True))
        # what is not estimated, or else the rest, is what the others leave: the sum is exact
        missing = next((name for name in names if name not in waves), self.stems.rest)
        others = [waves[name] for name in names if name != missing]
        waves[missing] = mixtures - (others[0] if len(others) == 1 else torch.stack(others).sum(0))
        return torch.stack([waves[name] for name in names], dim=1)

    def _masked(self, mixtures: Tensor) -> Tensor:
        """Estimate the stems that masks are of: (b 2 t) to (b s·2 t) on the CPU."""
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
            return torch.cat([self._masked(half) for half in halves])
        fade = self.stft.n_fft
        if samples < 4 * fade:
            raise SeparatorError("the GPU's memory is full; free some or use --device cpu")
        pieces = overlap_add([mixtures[0]], self._masked, samples // 2 + fade, fade)
        return torch.cat(list(pieces), dim=-1)[None]

    def _estimate(self, mixtures: Tensor) -> Tensor:
        """Average the estimates of the mixtures, each delayed by another part of a hop."""
        if self.shifts == 1:
            return self._once(mixtures)
        delays = [round(number * self.stft.hop / self.shifts) for number in range(self.shifts)]
        estimates = (self._once(F.pad(mixtures, (delay, 0)))[..., delay:] for delay in delays)
        return sum(estimates) / self.shifts

    @torch.inference_mode()
    def _once(self, mixtures: Tensor) -> Tensor:
        spectrogram = stft(mixtures.to(self.device), self.stft)
        magnitude, scale = normalise(spectrogram.abs(), self.stft)
        masks = linear_masks(self.model(magnitude), self.stft)
        if not masks.isfinite().all():
            raise SeparatorError("the model's estimate holds NaN or infinite values; retrain it")
        if masks.shape[1] == 1:
            estimate = wiener(spectrogram / scale, masks[:, 0]) * scale
        else:
            estimate = wiener_stems(spectrogram / scale, masks).flatten(1, 2) * scale
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

        All stems but `stems.rest` are estimated at the model's rate and brought back to `rate`; the
        rest is the mixture without them, so it holds what the model's rate cannot.

        Args:
            blocks: (c t) pieces of one recording; more than two channels are folded to stereo.
            rate: its sample rate in hertz.
            batch: chunks processed at once.

        Yields:
            The mixture (c t) with c at most 2, and its stems (s c t) in the order of `stems`; as
            many samples in all as came in.

        Raises:
            SeparatorError: samples that are not finite, more than 8 channels, or no rate of sound.
        """
        rate = rate_of(rate)
        mixtures: deque[Tensor] = deque()
        names, rest = self.stems.names, self.stems.rest
        others = [place for place, name in enumerate(names) if name != rest]
        down = up = None
        channels = 2

        def stereo() -> Iterator[Tensor]:
            nonlocal down, up, channels
            for block in blocks:
                if not block.isfinite().all():
                    raise SeparatorError("the audio holds NaN or infinite samples; repair it first")
                mixture = audio.to_channels(block, min(block.shape[0], 2))
                if down is None:
                    channels = mixture.shape[0]
                    down = audio.Resampler(rate, self.rate, channels)
                    up = audio.Resampler(self.rate, rate, len(others) * channels)
                mixtures.append(mixture)
                yield audio.to_channels(down.push(mixture), 2)
            if down is not None:
                yield audio.to_channels(down.flush(), 2)

        def estimate(chunks: Tensor) -> Tensor:
            return self(chunks)[:, others].flatten(1, 2)

        chunk = int(CHUNK_SECONDS * self.rate) // self.stft.hop * self.stft.hop
        overlap = int(OVERLAP_SECONDS * self.rate)
        for waves in overlap_add(stereo(), estimate, chunk, overlap, batch):
            stems = [audio.to_channels(wave, channels) for wave in waves.unflatten(0, (-1, 2))]
            for pair in _paired(mixtures, up.push(torch.cat(stems))):
                yield self._complete(*pair)
        if up is not None:
            for pair in _paired(mixtures, up.flush()):
                yield self._complete(*pair)

    def _complete(self, mixture: Tensor, waves: Tensor) -> tuple[Tensor, Tensor]:
        """Return a mixture (c t) and its stems (s c t), of which `waves` lacks the rest."""
        stems = [*waves.unflatten(0, (-1, mixture.shape[0]))]
        left = mixture - (stems[0] if len(stems) == 1 else torch.stack(stems).sum(0))
        stems.insert(self.stems.names.index(self.stems.rest), left)
        return mixture, torch.stack(stems)

    def separate_wave(self, mixture: Tensor | np.ndarray, rate: int) -> dict[str, Tensor]:
        """Separate a recording held in memory.

        Args:
            mixture: (c t) samples, floats of which ±1 is full scale.
            rate: their sample rate in hertz.

        Returns:
            The stems of the model by name, such as "instrumental" and "vocals": (c t) with c at
            most 2 (more are folded to stereo). One is the mixture minus the others, so they add up
            to the mixture, to the rounding of float32 additions.

        Raises:
            SeparatorError: the samples are not finite, not floats or not (c t), or the rate is not
                one of sound.
        """
        mixture, rate = samples_of(mixture), rate_of(rate)
        whole = audio.to_channels(mixture, min(mixture.shape[0], 2))
        stems = whole.new_empty(len(self.stems.names), *whole.shape)
        at = 0
        for _, piece in self.stream([whole], rate):
            stems[..., at : at + piece.shape[-1]] = piece
            at += piece.shape[-1]
        return {public_name(name): wave for name, wave in zip(self.stems.names, stems, strict=True)}

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


def _paired(mixtures: deque[Tensor], waves: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Pair new estimates with as many samples from the front of the waiting mixture.

    Two resamplings, each of which rounds its length up, may give a sample too many at the end.
    """
    while mixtures and waves.shape[-1]:
        mixture = mixtures.popleft()
        count = min(mixture.shape[-1], waves.shape[-1])
        if count < mixture.shape[-1]:
            mixtures.appendleft(mixture[:, count:])
        if count:
            yield mixture[:, :count], waves[:, :count]
        waves = waves[:, count:]

"""Separation from Python: `separator.separate("song.flac")`, or a `Separator` for many songs."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from separator import audio
from separator.errors import SeparatorError
from separator.overlap import overlap_add
from separator.stft import STFTConfig, istft, linear_mask, normalise, stft

CHUNK_SECONDS = 12.0
OVERLAP_SECONDS = 1.0


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
        self.device = find_device(device)
        self.model = model.to(self.device).eval()
        self.stft = stft
        self.rate = rate
        self.description = description or {}

    @classmethod
    def load(cls, path: str | os.PathLike, device: str = "auto") -> "Separator":
        """Read a `.safetensors` or checkpoint file.

        Raises:
            SeparatorError: the file is missing, damaged, not ours, or cannot separate.
        """
        from separator.engine.checkpoint import load_model_file
        from separator.models import build

        state, description = load_model_file(path)
        if description.get("stage") != "train":
            raise SeparatorError(
                f"{path}: a pretrained model does not separate yet; fine-tune it with "
                f"`separator train CONFIG pretrained={path}`"
            )
        model, stft = build(description, state, path)
        return cls(model, stft, description["rate"], device, description)

    @torch.inference_mode()
    def accompaniment(self, mixtures: Tensor) -> Tensor:
        """Estimate the accompaniments of chunks: (b 2 t) at the model's rate to (b 2 t).

        A chunk that does not fit the GPU's memory is tried again in smaller pieces.
        """
        try:
            spectrogram = stft(mixtures.to(self.device), self.stft)
            magnitude, _ = normalise(spectrogram.abs(), self.stft)
            mask = linear_mask(self.model(magnitude), self.stft)
            return istft(spectrogram * mask, self.stft, mixtures.shape[-1]).cpu()
        except torch.OutOfMemoryError:
            return self._in_pieces(mixtures)

    def _in_pieces(self, mixtures: Tensor) -> Tensor:
        """Halve the batch, then the chunk, until it fits."""
        import logging

        length = mixtures.shape[-1]
        if len(mixtures) == 1 and length < 4 * self.stft.n_fft:
            raise SeparatorError("the GPU's memory is full; free some or use --device cpu")
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        log = logging.getLogger(__name__)
        if len(mixtures) > 1:
            log.warning("out of GPU memory: going on with half the batch")
            halves = mixtures.split((len(mixtures) + 1) // 2)
            return torch.cat([self.accompaniment(half) for half in halves])
        log.warning("out of GPU memory: going on with chunks of half the length")
        chunk = length // 2 + self.stft.n_fft
        pieces = overlap_add([mixtures[0]], self.accompaniment, chunk, self.stft.n_fft)
        return torch.cat(list(pieces), dim=-1)[None]

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
        """
        mixtures: list[Tensor] = []
        channels = 0

        def stereo() -> Iterator[Tensor]:
            nonlocal channels
            down = None
            for block in blocks:
                channels = min(block.shape[0], 2)
                mixture = audio.to_channels(block, channels)
                mixtures.append(mixture)
                down = down or audio.Resampler(rate, self.rate, channels)
                yield audio.to_channels(down.push(mixture), 2)
            if down is not None:
                yield audio.to_channels(down.flush(), 2)

        def estimate(chunks: Tensor) -> Tensor:
            return chunks - self.accompaniment(chunks)

        chunk = int(CHUNK_SECONDS * self.rate) // self.stft.hop * self.stft.hop
        overlap = int(OVERLAP_SECONDS * self.rate)
        up = None
        for vocals in overlap_add(stereo(), estimate, chunk, overlap, batch):
            up = up or audio.Resampler(self.rate, rate, channels)
            yield from _aligned(mixtures, up.push(audio.to_channels(vocals, channels)))
        if up is not None:
            yield from _aligned(mixtures, up.flush(), last=True)

    def separate_wave(self, mixture: Tensor, rate: int) -> dict[str, Tensor]:
        """Separate a recording held in memory.

        Args:
            mixture: (c t) samples.
            rate: their sample rate in hertz.

        Returns:
            "instrumental" and "vocals", (c t), which add up to the mixture exactly.

        Raises:
            SeparatorError: the samples are not finite.
        """
        if not torch.isfinite(mixture).all():
            raise SeparatorError("the audio holds NaN or infinite samples; repair it first")
        if not mixture.shape[-1]:
            return {"instrumental": mixture, "vocals": mixture.clone()}
        pieces = list(self.stream([mixture.float()], rate))
        vocals = torch.cat([vocals for _, vocals in pieces], dim=-1)
        whole = torch.cat([mixture for mixture, _ in pieces], dim=-1)
        return {"instrumental": whole - vocals, "vocals": vocals}


def separate(
    source: str | os.PathLike | Tensor,
    rate: int | None = None,
    model: str | os.PathLike | Separator | None = None,
    device: str = "auto",
) -> dict[str, Tensor]:
    """Split a song into "instrumental" and "vocals", (c t) each, at the song's own rate.

    Args:
        source: an audio file, or samples (c t).
        rate: the sample rate of `source` when it is a tensor.
        model: a model file or a loaded `Separator`; by default as the command finds it.
        device: "auto", "cpu", "cuda" or "mps".

    Raises:
        SeparatorError: no model, an unreadable file, or samples that are not finite.
    """
    if isinstance(source, Tensor) and rate is None:
        raise SeparatorError("separate: give rate= (hertz) with a tensor")
    if not isinstance(model, Separator):
        model = Separator.load(model or find_model(), device)
    if isinstance(source, Tensor):
        return model.separate_wave(source, rate)
    return model.separate_wave(audio.read(source), audio.probe(source).rate)


def find_model() -> Path:
    """Return $SEPARATOR_MODEL, else the newest runs/*/model.safetensors that can separate.

    Raises:
        SeparatorError: there is none.
    """
    if os.environ.get("SEPARATOR_MODEL"):
        return Path(os.environ["SEPARATOR_MODEL"])
    from separator.engine.checkpoint import load_description

    files = sorted(Path("runs").glob("*/model.safetensors"), key=lambda p: -p.stat().st_mtime)
    for path in files:
        if load_description(path).get("stage") == "train":
            return path
    raise SeparatorError(
        "no model: give one with -m MODEL or $SEPARATOR_MODEL, or make one with `separator demo` "
        "or `separator train`"
    )


def find_device(name: str) -> torch.device:
    """Turn "auto", "cpu", "cuda" or "mps" into a device that this machine has.

    Raises:
        SeparatorError: an unknown or absent device.
    """
    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return torch.device(next(kind for kind, here in present.items() if here))
    if not present.get(name.split(":")[0], False):
        here = ", ".join(kind for kind, there in present.items() if there)
        raise SeparatorError(f"device: {name!r} is not on this machine; it has {here}")
    return torch.device(name)


def _aligned(
    mixtures: list[Tensor], vocals: Tensor, last: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """Pair new vocals with as many samples from the front of the waiting mixture."""
    if last:  # rounding of two resamplings may leave a few samples over or missing
        missing = sum(block.shape[-1] for block in mixtures) - vocals.shape[-1]
        vocals = torch.nn.functional.pad(vocals, (0, max(missing, 0)))
    start = 0
    while mixtures and start < vocals.shape[-1]:
        mixture = mixtures.pop(0)
        piece = vocals[:, start : start + mixture.shape[-1]]
        start += piece.shape[-1]
        if piece.shape[-1] < mixture.shape[-1]:
            mixtures.insert(0, mixture[:, piece.shape[-1] :])
        yield mixture[:, : piece.shape[-1]], piece

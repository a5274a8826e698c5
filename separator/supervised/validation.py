"""Validation as a user would hear it: overlap-add separation of whole songs, scored by SDR."""

import logging
import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from separator.api import Separator
from separator.data.reader import load_stems
from separator.data.tracks import Track
from separator.dsp.stft import normalise, stft
from separator.engine import distributed
from separator.engine.pictures import spectrogram_image, with_axes
from separator.engine.task import Validation
from separator.errors import SeparatorError
from separator.losses import SeparationLoss
from separator.metrics import global_sdr
from separator.supervised.config import SupervisedConfig

log = logging.getLogger(__name__)

STEMS = "accompaniment", "vocals", "mixture"  # the last: the mixture taken for accompaniment
SHOWN = 2  # songs, or crops, whose spectrograms and audio are logged
SHOWN_SECONDS = 6.0
LOSS_CROPS = 2  # of each song, of which the loss is taken


def validate(
    model: nn.Module,
    tracks: Sequence[Track],
    config: SupervisedConfig,
    device: torch.device,
    loss: SeparationLoss,
    read: Callable[[Track, int, int, int | None], dict[str, Tensor]] = load_stems,
) -> Validation:
    """Score a model on songs with stems; the score is the mean global SDR of the accompaniment.

    Ranks share the songs out; rank 0 returns the scores of all, the others an empty result.

    Args:
        model: the averaged one.
        tracks: songs that training does not see.
        config: of the run.
        device: where to compute.
        loss: of the training, which is logged beside the SDR.
        read: maps a track, the rate, the first sample and the number of samples to stems.

    Raises:
        SeparatorError: none of the songs can be read or scored.
    """
    separator = Separator(model, config.stft, config.rate, str(device))
    own: list[tuple[int, tuple[Tensor, dict[str, Tensor], Validation]]] = []
    for place, track in distributed.share(tracks):
        samples = round(config.valid_seconds * config.rate) or None
        try:
            stems = read(track, config.rate, 0, samples)
        except SeparatorError as error:
            log.warning("left out of the validation: %s", error)
            continue
        mixture = stems["vocals"] + stems["accompaniment"]
        estimates = separator.separate_wave(mixture, config.rate)
        losses = song_loss(model, loss, mixture, stems["accompaniment"], config, device)
        shown = Validation({}, 0.0)
        if len(own) < SHOWN:  # the first songs of all are among the first of each rank
            waves = {"mixture": mixture, "estimate": estimates["instrumental"]}
            waves["target"] = stems["accompaniment"]
            show_waves(shown, track.name, waves, config)
        own.append((place, (_ratios(stems, estimates, mixture), losses, shown)))
    rows = distributed.gather(own)
    result = Validation({}, 0.0)
    if not distributed.rank():
        _collect(result, rows)
    return result


def _ratios(stems: dict[str, Tensor], estimates: dict[str, Tensor], mixture: Tensor) -> Tensor:
    """Return the SDR of a song's estimates, and of its mixture, as `STEMS` orders them: (3) dB."""
    vocals, accompaniment = stems["vocals"], stems["accompaniment"]
    pairs = [
        (accompaniment, estimates["instrumental"]),
        (vocals, estimates["vocals"]),
        (accompaniment, mixture),
    ]
    return torch.stack([global_sdr(true, guess) for true, guess in pairs]).cpu()


@torch.no_grad()
def song_loss(
    model: nn.Module,
    loss: SeparationLoss,
    mixture: Tensor,
    target: Tensor,
    config: SupervisedConfig,
    device: torch.device,
) -> dict[str, Tensor]:
    """Return the training's loss and its parts, the mean over crops of a song.

    The crops are as long as the training's, always the same, and scored one at a time: neither
    memory nor time grows with the song. Crops whose target is silent are left out, since losses
    relative to its level would outweigh all others.

    Args:
        model: in evaluation mode.
        loss: of the training.
        mixture: (c t).
        target: (c t) the true accompaniment.
        config: of the run.
        device: where to compute.

    Returns:
        "loss" and its parts; empty where all crops are left out.
    """
    samples = round(config.data.segment_seconds * config.rate)
    room, rows = max(0, mixture.shape[-1] - samples), []
    for number in range(LOSS_CROPS):
        start = room * (2 * number + 1) // (2 * LOSS_CROPS)
        crop = torch.stack([wave[None, :, start : start + samples] for wave in (mixture, target)])
        crop = F.pad(crop, (0, samples - crop.shape[-1]))  # the training pads short songs too
        if crop[1].square().mean().sqrt() < 10 ** (config.data.silence_db / 20):
            continue
        mixed, true = crop.to(device)
        spectrogram = stft(mixed, config.stft)
        magnitude, scale = normalise(spectrogram.abs(), config.stft)
        rows.append(loss(model(magnitude), spectrogram, scale, true))
    names = rows[0] if rows else ()
    return {name: torch.stack([row[name] for row in rows]).mean().cpu() for name in names}


def _collect(result: Validation, rows: list[tuple[Tensor, dict[str, Tensor], Validation]]) -> None:
    """Put the SDRs, the losses and the pictures and sounds of songs into one result.

    Raises:
        SeparatorError: none of the songs was scored.
    """
    for *_, shown in rows[:SHOWN]:
        result.images |= shown.images
        result.audio |= shown.audio
    table = torch.stack([ratios for ratios, *_ in rows]) if rows else torch.empty(0, 3)
    if not table[:, 0].isfinite().any():
        raise SeparatorError(
            "data.roots: no validation song could be scored (all unreadable or silent); "
            "see the messages above"
        )
    losses = [losses for _, losses, _ in rows if losses]
    for name in losses[0] if losses else ():
        values = torch.stack([song[name] for song in losses])
        result.scalars[f"valid/{name}"] = values.nanmean().item()
    _summarise(result, table)


def _summarise(result: Validation, table: Tensor) -> None:
    """Put the scores of songs, (songs 3) in dB as `STEMS` orders them, into one result."""
    scalars = result.scalars
    for name, column in zip(STEMS, table.unbind(1), strict=True):
        kept = column[column.isfinite()]
        if len(kept):
            scalars[f"valid/{name}_sdr_mean"] = kept.mean().item()
            scalars[f"valid/{name}_sdr_median"] = kept.quantile(0.5).item()
    model, vocals, mixture = (scalars.get(f"valid/{name}_sdr_mean", math.nan) for name in STEMS)
    result.score = model
    result.quality["accompaniment_db"] = {"model": model, "mixture": mixture}
    result.quality["vocals_db"] = {"model": vocals}
    result.summary = f"accompaniment {model:.2f} dB"
    result.notes = (f"mixture {mixture:.2f}",)


def show_waves(
    result: Validation, name: str, waves: dict[str, Tensor], config: SupervisedConfig
) -> None:
    """Add spectrograms and the sound of the first seconds of waves.

    Args:
        result: takes them as `NAME/KIND`.
        name: of the song or crop.
        waves: (c t) by kind.
        config: of the run.
    """
    span = round(SHOWN_SECONDS * config.rate)
    for kind, wave in waves.items():
        start = wave[:, :span]
        picture = spectrogram_image(start, config.stft)
        seconds = start.shape[-1] / config.rate
        result.images[f"{name}/{kind}"] = with_axes(picture, seconds, config.rate)
        result.audio[f"{name}/{kind}"] = (start, config.rate)

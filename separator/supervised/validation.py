"""Validation as a user would hear it: overlap-add separation of whole songs, scored by SDR."""

import logging
import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from separator.dsp.stft import stft
from separator.engine import distributed
from separator.engine.pictures import spectrogram_image, with_axes
from separator.engine.task import Validation
from separator.errors import SeparatorError
from separator.losses import Estimate, Target
from separator.metrics import global_sdr
from separator.separation import Separator
from separator.stems import MIXTURE, VOCALS, StemSet, public_name
from separator.supervised.config import SupervisedConfig

if TYPE_CHECKING:
    from separator.supervised.task import SupervisedTask

log = logging.getLogger(__name__)

Scores = tuple[Tensor, dict[str, Tensor], Validation]  # ratios, losses, pictures of a song
MAX_SHOWN = 2  # songs, or crops, whose spectrograms and audio are logged
SHOWN_SECONDS = 6.0
LOSS_CROPS = 2  # of each song, of which the loss is taken


def validate(task: "SupervisedTask", model: nn.Module) -> Validation:
    """Score a model on the songs that training does not see by the mean global SDR over songs.

    With two stems, whose errors are equal, this is the SDR of the accompaniment; with more, the
    mean over the stems. Ranks divide the songs among themselves.

    Args:
        task: of the run; its loss is logged beside the SDR.
        model: the averaged weights.

    Returns:
        The scores of all songs on rank 0, an empty result on the other ranks.

    Raises:
        SeparatorError: none of the songs can be read or scored.
    """
    config = task.config
    separator = Separator(model, config.stft, config.rate, str(task.device), stems=config.stems)
    results: list[tuple[int, Scores]] = []
    for place, track in distributed.share(task.valid):
        samples = round(config.valid_seconds * config.rate) or None
        try:
            stems = task.read_stems(track, samples)
        except SeparatorError as error:
            log.warning("left out of the validation: %s", error)
            continue
        true = torch.stack([stems[name] for name in config.stems.names])
        mixture = true.sum(dim=0)
        estimates = separator.separate_wave(mixture, config.rate)
        guess = torch.stack([estimates[public_name(name)] for name in config.stems.names])
        targets = torch.stack([stems[name] for name in config.stems.estimated])
        losses = song_loss(task, model, mixture, targets)
        shown = Validation({}, 0.0)
        if len(results) < MAX_SHOWN:  # the first songs of all are among the first of each rank
            waves = {MIXTURE: mixture, **named_waves(config.stems, guess, "estimate")}
            waves |= named_waves(config.stems, true, "target")
            show_waves(shown, track.name, waves, config)
        ratios = _ratios(_scored(true, config.stems), _scored(guess, config.stems), mixture)
        results.append((place, (ratios, losses, shown)))
    rows = distributed.gather(results)
    return Validation({}, 0.0) if distributed.rank() else _collected(rows, config.stems)


def _scored(waves: Tensor, stems: StemSet) -> Tensor:
    """Add the accompaniment to stems (s c t) beside which it is scored."""
    if stems.scored == stems.names:
        return waves
    rest = [place for place, name in enumerate(stems.names) if name != VOCALS]
    return torch.cat([waves, waves[rest].sum(dim=0, keepdim=True)])


def _ratios(stems: Tensor, estimates: Tensor, mixture: Tensor) -> Tensor:
    """Return the SDR of a song's estimates (s c t), and of its mixture for each: (2 s) dB."""
    guesses = estimates, mixture.expand_as(stems)
    return torch.stack([global_sdr(stems, guess).cpu() for guess in guesses])


@torch.no_grad()
def song_loss(
    task: "SupervisedTask", model: nn.Module, mixture: Tensor, targets: Tensor
) -> dict[str, Tensor]:
    """Return the training's loss and its parts, the mean over crops of a song.

    The crops are as long as the training's, always the same, and scored one at a time: neither
    memory nor time grows with the song. Crops in which a target is silent are left out, since
    losses relative to its level would outweigh all others.

    Args:
        task: of the run.
        model: in evaluation mode.
        mixture: (c t).
        targets: (s c t) the true stems that masks are of.

    Returns:
        "loss" and its parts; empty where all crops are left out.
    """
    config = task.config
    samples = round(config.data.segment_seconds * config.rate)
    room, rows = max(0, mixture.shape[-1] - samples), []
    for number in range(LOSS_CROPS):
        start = room * (2 * number + 1) // (2 * LOSS_CROPS)
        crop = torch.cat([mixture[None], targets])[None, ..., start : start + samples]
        crop = F.pad(crop, (0, samples - crop.shape[-1]))  # the training pads short songs too
        levels = crop[:, 1:].square().mean(dim=(0, 2, 3)).sqrt()
        if levels.min() < 10 ** (config.data.silence_db / 20):
            continue
        crop = crop.to(task.device)
        spectrogram = stft(crop[:, 0], config.stft)
        estimate = Estimate.of(model, spectrogram, config.stft, samples)
        rows.append(task.loss(estimate, Target(crop[:, 1:], estimate)))
    names = rows[0] if rows else ()
    return {name: torch.stack([row[name] for row in rows]).mean().cpu() for name in names}


def _collected(rows: list[Scores], stems: StemSet) -> Validation:
    """Put the SDRs, the losses and the pictures and sounds of songs into one result.

    Raises:
        SeparatorError: none of the songs was scored.
    """
    result = Validation({}, 0.0)
    for *_, shown in rows[:MAX_SHOWN]:
        result.images |= shown.images
        result.audio |= shown.audio
    places = [stems.names.index(name) for name in stems.estimated]
    table = torch.stack([ratios for ratios, *_ in rows]) if rows else None
    if table is None or not table[:, 0, places].isfinite().any():
        raise SeparatorError(
            "data.roots: no validation song could be scored (all unreadable or silent); "
            "see the messages above"
        )
    losses = [losses for _, losses, _ in rows if losses]
    for name in losses[0] if losses else ():
        values = torch.stack([song[name] for song in losses])
        result.scalars[f"valid/{name}"] = values.nanmean().item()
    _summarise(result, table, stems)
    return result


def _summarise(result: Validation, table: Tensor, stems: StemSet) -> None:
    """Put the scores (songs 2 s) in dB of the estimates and of mixtures into one result."""
    scalars = result.scalars
    scored = [stems.names.index(name) for name in stems.estimated]
    baseline = table[:, 1, scored].mean(dim=1)
    columns = dict(zip(stems.scored, table[:, 0].unbind(1), strict=True)) | {MIXTURE: baseline}
    for name, column in columns.items():
        kept = column[column.isfinite()]
        if len(kept):
            scalars[f"valid/{name}_sdr_mean"] = kept.mean().item()
            scalars[f"valid/{name}_sdr_median"] = kept.quantile(0.5).item()
    means = {name: scalars.get(f"valid/{name}_sdr_mean", math.nan) for name in stems.scored}
    mixture = scalars.get(f"valid/{MIXTURE}_sdr_mean", math.nan)
    scores = [means[name] for name in stems.estimated if not math.isnan(means[name])]
    result.score = sum(scores) / len(scores)
    for name, mean in means.items():
        result.quality[f"{name}_db"] = {"model": mean}
    if len(scores) == 1:
        result.quality[f"{stems.rest}_db"]["mixture"] = mixture
        result.summary = f"{stems.rest} {result.score:.2f} dB"
        result.notes = (f"mixture {mixture:.2f}",)
    else:
        each = (f"{name} {mean:.2f}" for name, mean in means.items())
        result.summary = f"mean of the stems {result.score:.2f} dB"
        result.notes = (*each, f"mixture {mixture:.2f}")


def named_waves(stems: StemSet, waves: Tensor, kind: str) -> dict[str, Tensor]:
    """Name the stems that the log shows.

    Args:
        stems: the model's.
        waves: (s c t) of all stems.
        kind: "estimate" or "target".

    Returns:
        Of two stems only the one that has a mask, by `kind`; otherwise all, by "KIND_STEM".
    """
    if stems.masks == 1:
        return {kind: waves[stems.names.index(stems.rest)]}
    return {f"{kind}_{name}": wave for name, wave in zip(stems.names, waves, strict=True)}


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

"""Validation as a user would hear it: overlap-add separation of whole songs, scored by SDR."""

import logging
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from separator.api import Separator
from separator.data.tracks import Track, load_stems
from separator.engine import distributed
from separator.engine.pictures import spectrogram_image, with_axes
from separator.engine.task import Validation
from separator.errors import SeparatorError
from separator.metrics import global_sdr
from separator.train.config import TrainConfig

log = logging.getLogger(__name__)

STEMS = "accompaniment", "vocals", "mixture"  # the last: the mixture taken for accompaniment
SHOWN = 2  # songs whose spectrograms and audio are logged
SHOWN_SECONDS = 6.0


def validate(
    model: nn.Module, tracks: Sequence[Track], config: TrainConfig, device: torch.device
) -> Validation:
    """Score a model on songs with stems; the score is the mean global SDR of the accompaniment.

    Ranks share the songs out; rank 0 returns the scores of all, the others an empty result.

    Raises:
        SeparatorError: none of the songs can be read or scored.
    """
    separator = Separator(model, config.stft, config.rate, str(device))
    own: list[tuple[int, tuple[Tensor, Validation]]] = []
    for place, track in distributed.share(tracks):
        samples = round(config.valid_seconds * config.rate) or None
        try:
            stems = load_stems(track, config.rate, 0, samples)
        except SeparatorError as error:
            log.warning("left out of the validation: %s", error)
            continue
        vocals, accompaniment = stems["vocals"], stems["accompaniment"]
        mixture = vocals + accompaniment
        estimates = separator.separate_wave(mixture, config.rate)
        estimate = estimates["instrumental"]
        scores = [
            (accompaniment, estimate),
            (vocals, estimates["vocals"]),
            (accompaniment, mixture),
        ]
        row = torch.stack([global_sdr(true, guess) for true, guess in scores]).cpu()
        shown = Validation({}, 0.0)
        if len(own) < SHOWN:  # the first songs of all are among the first of each rank
            _show(shown, track.name, config, mixture, estimate, accompaniment)
        own.append((place, (row, shown)))
    rows = distributed.gather(own)
    result = Validation({}, 0.0)
    if distributed.rank():
        return result
    for _, shown in rows[:SHOWN]:
        result.images |= shown.images
        result.audio |= shown.audio
    table = torch.stack([row for row, _ in rows]) if rows else torch.empty(0, 3)
    if not table[:, 0].isfinite().any():
        raise SeparatorError(
            "data.roots: no validation song could be scored (all unreadable or silent); "
            "see the messages above"
        )
    _summarise(result, table)
    return result


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


def _show(
    result: Validation,
    name: str,
    config: TrainConfig,
    mixture: Tensor,
    estimate: Tensor,
    target: Tensor,
) -> None:
    """Add spectrograms of a song's first seconds and the audio to what is logged."""
    span = round(SHOWN_SECONDS * config.rate)
    waves = {"mixture": mixture, "estimate": estimate, "target": target}
    for kind, wave in waves.items():
        start = wave[:, :span]
        picture = spectrogram_image(start, config.stft)
        seconds = start.shape[-1] / config.rate
        result.images[f"{name}/{kind}"] = with_axes(picture, seconds, config.rate)
        result.audio[f"{name}/{kind}"] = (start, config.rate)

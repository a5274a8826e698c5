"""Validation of the pretext task on unseen songs, against the best trivial answer."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from separator.data.config import AugmentConfig, DataConfig
from separator.data.dataset import Batch, batches
from separator.data.tracks import Track
from separator.engine import distributed
from separator.engine.task import Validation
from separator.pretrain.batch import Example, make_example
from separator.pretrain.config import PretrainConfig
from separator.pretrain.crop_media import show_crops
from separator.pretrain.masking.grid import channel_mean
from separator.pretrain.model import Pretrainer, predict_errors
from separator.pretrain.objectives import Objective, Prediction
from separator.pretrain.objectives.balance import auxiliary_losses
from separator.pretrain.objectives.restoration import baselines

SEED = 0x76616C  # the crops are the same for every run, whatever its seed
SIZE = 4  # crops at a time, whatever the batches of the training


@dataclass(frozen=True)
class _Score:
    """Errors and logs of a batch of crops.

    Attributes:
        masked: summed errors on the chosen patches of the model and of the trivial answers, and
            "patches", how many these are.
        whole: the model's summed error on all patches that count, and "patches".
        heads: the objectives' scalars, times the batch's share of the crops.
        observed: the objectives' observations of the crops, by their keys.
    """

    masked: dict[str, float]
    whole: dict[str, float]
    heads: dict[str, float]
    observed: dict[str, Tensor]


class ValidationCrops:
    """Fixed crops of fixed songs with fixed masked patches, all of them filled with 1.0.

    Args:
        tracks: songs that training does not see.
        config: crop length, patches, transform.
        objectives: what is scored beside the masked error.
    """

    def __init__(
        self, tracks: Sequence[Track], config: PretrainConfig, objectives: Sequence[Objective]
    ) -> None:
        read = fixed_batches(tracks, config, config.crops.data(), SEED)
        self.config = replace(config, crop_frames=0)
        self.objectives = [objective for objective in objectives if objective.validated]
        first = slice(config.valid_crops)
        self.waves = torch.cat([batch.mixture for batch in read])[first].split(SIZE)
        self.music = torch.cat([batch.valid for batch in read])[first].split(SIZE)
        self.songs = torch.cat([batch.songs for batch in read])[first]
        self.mask = replace(config.mask, mask=1.0, noise=0.0, mix=0.0, clean_share=0.0)
        self.mask = replace(self.mask, warmup_steps=0)
        self.shown = replace(config.mask, clean_share=0.0, voices=[])

    def validate(self, model: Pretrainer, device: torch.device, step: int) -> Validation:
        """Score a model: the share by which its error is below the best trivial answer's.

        Args:
            model: the averaged weights; ranks divide the crops among themselves.
            device: where to compute.
            step: finished steps of the run; the pictures show the masks and corruptions of that
                step, while the scores are of the same patches at any step.

        Returns:
            The scores of all crops on rank 0, an empty result on the other ranks.
        """
        generator, result = torch.Generator().manual_seed(SEED), Validation({}, 0.0)
        rank_scores: list[tuple[int, _Score]] = []
        crops = zip(self.waves, self.music, self.songs.split(SIZE), strict=True)
        for place, (waves, music, songs) in enumerate(crops):
            # on every rank: masks come from one sequence of random numbers
            waves = waves.to(device)
            example = make_example(waves, self.config, self.mask, 0, generator, music, songs=songs)
            if place % distributed.world() == distributed.rank():
                rank_scores.append((place, self._score(model, example, place)))
            if place == distributed.rank() == 0:
                self._show(result, model, waves, music, step)
        scores = distributed.gather(rank_scores)
        if not distributed.rank():
            self._collect(result, scores)
        return result

    def _score(self, model: Pretrainer, example: Example, place: int) -> _Score:
        """Score the batch at a place."""
        corrupted = example.corrupted
        # a generator of its own, so that the masks do not depend on the objectives
        draws = torch.Generator().manual_seed(SEED + place)
        outputs = model(corrupted.spectrogram, corrupted.masked)
        restored = corrupted.spectrogram * outputs.mask
        prediction = Prediction(outputs, restored, 0, draws)
        _, scalars = auxiliary_losses(self.objectives, model, example, prediction)
        share = len(self.waves[place]) / len(self.songs)
        heads = {name: value.item() * share for name, value in scalars.items()}
        observed = {}
        for objective in self.objectives:
            rows = objective.observe(model.head(objective), example)
            if rows is not None:
                observed[objective.key] = rows.cpu()
        masked, whole = _errors(example, restored)
        return _Score(masked, whole, heads, observed)

    def _collect(self, result: Validation, scores: list[_Score]) -> None:
        """Put the scores of all batches into one result.

        Its own score is the gain over the best trivial answer, a share of its error.
        """
        masked = _means([score.masked for score in scores])
        whole = _means([score.whole for score in scores])
        heads = _summed([score.heads for score in scores])
        metrics = {f"l1_{name}": value for name, value in masked.items()}
        metrics |= {"l1_whole": whole["model"], **heads}
        for objective in self.objectives:
            if objective.key in scores[0].observed:
                rows = torch.cat([score.observed[objective.key] for score in scores])
                metrics |= objective.summarise(rows, self.songs)
        result.scalars |= {f"valid/{name}": value for name, value in metrics.items()}
        best = min(value for name, value in masked.items() if name != "model")
        gain = 1 - masked["model"] / max(best, 1e-12)
        result.score = result.scalars["valid/improvement"] = gain
        result.quality["gain_over_trivial"] = {"model": gain}
        share = f"{100 * abs(gain):.1f} % {'better' if gain >= 0 else 'worse'}"
        result.summary = f"restores masked frames {share} than the best trivial answer"

    def _show(
        self, result: Validation, model: Pretrainer, waves: Tensor, music: Tensor, step: int
    ) -> None:
        """Add pictures and sounds of the first crops."""
        generator = torch.Generator().manual_seed(SEED)
        predict = functools.partial(predict_errors, model, self.objectives)
        example = make_example(waves, self.config, self.shown, step, generator, music, predict)
        show_crops(result, "crop", model, example, self.config)


def fixed_batches(
    tracks: Sequence[Track], config: PretrainConfig, data: DataConfig, seed: int
) -> list[Batch]:
    """Return `valid_crops` crops or a few more, not varied, in batches of `SIZE`.

    Args:
        tracks: songs to crop.
        config: settings of the run.
        data: how crops are drawn.
        seed: of the draw.
    """
    plain = AugmentConfig(gain_db=0.0, swap=0.0, polarity=0.0, remix=0.0)
    data = replace(data, augment=plain, workers=0, batch=SIZE)
    stream = batches(tracks, data, config.rate, seed, mixtures=True)
    return [next(stream) for _ in range(-(-config.valid_crops // SIZE))]


def _errors(example: Example, restored: Tensor) -> tuple[dict[str, float], dict[str, float]]:
    """Sum errors and count patches: of all answers on the chosen ones, of the model's on all."""
    target, corrupted = example.target, example.corrupted
    answers = {"model": restored, **baselines(target, ~corrupted.untouched)}
    errors = {name: channel_mean((answer - target).abs()) for name, answer in answers.items()}
    chosen = corrupted.chosen.expand_as(target[:, :1])
    masked = {name: (error * chosen).sum().item() for name, error in errors.items()}
    counted = chosen | corrupted.untouched
    whole = {"model": (errors["model"] * counted).sum().item(), "patches": counted.sum().item()}
    return masked | {"patches": chosen.sum().item()}, whole


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    """Divide summed errors by the number of their patches; NaN where there is none."""
    total = _summed(rows)
    patches = total.pop("patches") or math.nan
    return {name: value / patches for name, value in total.items()}


def _summed(rows: list[dict[str, float]]) -> dict[str, float]:
    """Add dicts of the same keys up, in order."""
    return {name: sum(row[name] for row in rows) for name in rows[0]}

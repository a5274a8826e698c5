"""Validation of the pretext task on unseen songs, against the best trivial answer."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from separator.data.config import AugmentConfig
from separator.data.loader import batches
from separator.data.tracks import Track
from separator.engine import distributed
from separator.engine.pictures import colour, with_axes
from separator.engine.task import Validation
from separator.pretrain.clusters import Spectrum, Trunk, health
from separator.pretrain.config import PretrainConfig
from separator.pretrain.example import Example, make_example
from separator.pretrain.heads import Pretrainer
from separator.pretrain.labels import unigram_entropy, without_outside
from separator.pretrain.masks.geometry import channel_mean
from separator.pretrain.objectives import baselines
from separator.stft import istft

SHOWN = 2  # crops whose pictures and audio are logged
SEED = 0x76616C  # the crops are the same for every run, whatever its seed
SIZE = 4  # crops at a time, whatever the batches of the training


class ValidationCrops:
    """Fixed crops of fixed songs with fixed cells hidden, all of them filled with 1.0.

    Args:
        tracks: songs that training does not see.
        config: crop length, cells, transform.
    """

    def __init__(self, tracks: Sequence[Track], config: PretrainConfig) -> None:
        plain = AugmentConfig(gain_db=0.0, swap=0.0, polarity=0.0, remix=0.0)
        data = replace(config.items, augment=plain, workers=0, batch=SIZE)
        stream = batches(tracks, data, config.rate, SEED, mixtures=True)
        read = [next(stream) for _ in range(-(-config.valid_crops // SIZE))]
        self.config = replace(config, crop_frames=0)
        kept = slice(config.valid_crops)
        self.waves = torch.cat([batch.mixture for batch in read])[kept].split(SIZE)
        self.music = torch.cat([batch.valid for batch in read])[kept].split(SIZE)
        self.songs = torch.cat([batch.songs for batch in read])[kept]
        self.mask = replace(config.mask, fill=1.0, noise=0.0, other=0.0, clean_share=0.0)
        self.mask = replace(self.mask, warmup_steps=0)
        self.shown = replace(config.mask, clean_share=0.0)

    def validate(
        self,
        model: Pretrainer,
        device: torch.device,
        step: int,
        extract: Spectrum | Trunk | None = None,
    ) -> Validation:
        """Score a model: the share by which its error is below the best trivial answer's.

        Ranks share the crops out; rank 0 returns the scores of all, the others an empty result.

        Args:
            model: the averaged one.
            device: where to compute.
            step: finished steps of the run; the pictures show what is hidden then, and how, while
                the scores are of the same cells at any step.
            extract: makes what is clustered, where there are labels.
        """
        generator, config = torch.Generator().manual_seed(SEED), self.config
        # apart, so that the cells do not depend on which heads there are
        draws = torch.Generator()
        own: list[tuple[int, tuple[dict[str, float], dict[str, float], Tensor | None]]] = []
        result = Validation({}, 0.0)
        songs = self.songs.split(SIZE)
        for place, (waves, music, numbers) in enumerate(
            zip(self.waves, self.music, songs, strict=True)
        ):
            # on every rank: what is hidden comes from one sequence of numbers
            example = make_example(
                waves.to(device), config, self.mask, 0, generator, music, songs=numbers
            )
            if place % distributed.world() != distributed.rank():
                continue
            draws.manual_seed(SEED + place)
            shown = example.corrupted
            outputs = model(shown.spectrogram, shown.hidden, features=True)
            restored = shown.spectrogram * outputs.mask
            _, scalars = model.objectives(example, outputs, restored, config, 0, draws, extract)
            share = len(waves) / len(self.songs)
            heads = {name: value.item() * share for name, value in scalars.items()}
            labels = None
            if extract:
                found = model.labeller(extract(example.spectrogram))
                labels = without_outside(found, shown, config.labels.group).cpu()
            own.append((place, (_errors(example, restored), heads, labels)))
            if place == 0:
                self._show(result, model, waves.to(device), music, step)
        rows = distributed.gather(own)
        if distributed.rank():
            return result
        errors, heads = (_summed([row[part] for row in rows]) for part in (0, 1))
        labels = [row[2] for row in rows if row[2] is not None]
        cells = max(1, errors.pop("cells"))
        means = {name: value / cells for name, value in errors.items()}
        best = min(value for name, value in means.items() if name != "model")
        result.scalars |= {f"valid/l1_{name}": value for name, value in means.items()}
        result.scalars |= {f"valid/{name}": value for name, value in heads.items()}
        if labels:
            found = torch.cat(labels)
            told = health(found, self.songs, config.labels.clusters)
            told["labels/unigram_entropy"] = unigram_entropy(found).item()
            result.scalars |= {f"valid/{name}": value for name, value in told.items()}
        _summarise(result, 1 - means["model"] / max(best, 1e-12))
        return result

    def _show(
        self, result: Validation, model: Pretrainer, waves: Tensor, music: Tensor, step: int
    ) -> None:
        """Add pictures and audio of the first crops; phases are the original's."""
        config, generator = self.config, torch.Generator().manual_seed(SEED)
        example = make_example(waves, config, self.shown, step, generator, music, model.predict)
        target, corrupted = example.target, example.corrupted
        mask = model(corrupted.spectrogram, corrupted.hidden)
        whole = torch.where(corrupted.chosen, corrupted.spectrogram * mask, target)
        shown = {
            "original": target,
            "masked": corrupted.spectrogram,
            "reconstructed": whole,
            "mask": mask,
            "error": (whole - target).abs(),
        }
        phase = torch.polar(torch.ones_like(target), example.spectrogram.angle())
        length = (target.shape[-1] - 1) * config.stft.hop
        seconds = length / config.rate
        for index in range(min(SHOWN, len(target))):
            for name, values in shown.items():
                picture = colour(values[index].mean(0).float())
                result.images[f"crop{index}/{name}"] = with_axes(picture, seconds, config.rate)
                if name in ("mask", "error"):
                    continue
                linear = values[index].float() ** (1 / config.stft.power)
                wave = istft(linear * phase[index], config.stft, length)
                peak = wave.abs().amax().clamp(min=1e-6)
                result.audio[f"crop{index}/{name}"] = ((wave / peak).cpu(), config.rate)


def _summarise(result: Validation, gain: float) -> None:
    """Take the gain over the best trivial answer, a share of its error, as the score."""
    result.score = result.scalars["valid/improvement"] = gain
    result.quality["gain_over_trivial"] = {"model": gain}
    which = "better" if gain >= 0 else "worse"
    result.summary = (
        f"restores masked frames {100 * abs(gain):.1f} % {which} than the best trivial answer"
    )


def _errors(example: Example, restored: Tensor) -> dict[str, float]:
    """Sum the model's and the trivial answers' errors on the chosen cells, and count these."""
    target, corrupted = example.target, example.corrupted
    answers = {"model": restored, **baselines(target, ~corrupted.untouched)}
    chosen = corrupted.chosen.expand_as(target[:, :1])
    errors = {
        name: (channel_mean((answer - target).abs()) * chosen).sum().item()
        for name, answer in answers.items()
    }
    return errors | {"cells": chosen.sum().item()}


def _summed(rows: list[dict[str, float]]) -> dict[str, float]:
    """Add dicts of the same keys up, in order."""
    total: dict[str, float] = {}
    for row in rows:
        for name, value in row.items():
            total[name] = total.get(name, 0.0) + value
    return total

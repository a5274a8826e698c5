"""Validation of the pretext task on unseen songs, against the best trivial answer."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from separator.data.loader import batches
from separator.data.tracks import Track
from separator.engine.pictures import colour
from separator.engine.task import Validation
from separator.pretrain.config import PretrainConfig
from separator.pretrain.corrupt import Corrupted, corrupt
from separator.pretrain.objectives import baselines
from separator.stft import istft, normalise, stft

SHOWN = 2  # crops whose pictures and audio are logged
SEED = 0x76616C  # the crops are the same for every run, whatever its seed


class ValidationCrops:
    """Fixed crops of fixed songs with fixed cells hidden, all of them filled with 1.0.

    Args:
        tracks: songs that training does not see.
        config: crop length, cells, transform.
    """

    def __init__(self, tracks: Sequence[Track], config: PretrainConfig) -> None:
        self.config = config
        plain = replace(config.data.augment, gain_db=0.0, swap=0.0, polarity=0.0, remix=0.0)
        size = min(config.data.batch, config.valid_crops)
        data = replace(config.data, augment=plain, workers=0, batch=size)
        stream = batches(tracks, data, config.rate, SEED, mixtures=True)
        waves = [next(stream).mixture for _ in range(-(-config.valid_crops // size))]
        self.waves = torch.cat(waves)[: config.valid_crops].split(size)
        self.mask = replace(config.mask, fill=1.0, noise=0.0, other=0.0, clean_share=0.0)
        self.mask = replace(self.mask, warmup_steps=0)

    def validate(self, model: nn.Module, device: torch.device) -> Validation:
        """Score a model: the share by which its error is below the best trivial answer's."""
        generator = torch.Generator().manual_seed(SEED)
        errors: dict[str, float] = {}
        result = Validation({}, 0.0)
        for waves in self.waves:
            spectrogram = stft(waves.to(device), self.config.stft)
            target, _ = normalise(spectrogram.abs(), self.config.stft)
            hidden = corrupt(target, self.mask, 0, generator)
            mask = model(hidden.spectrogram, hidden.hidden)
            answers = {"model": hidden.spectrogram * mask, **baselines(target, hidden.chosen)}
            chosen = hidden.chosen.expand_as(target[:, :1])
            for name, answer in answers.items():
                error = ((answer - target).abs().mean(dim=1, keepdim=True) * chosen).sum()
                errors[name] = errors.get(name, 0.0) + error.item()
            errors["cells"] = errors.get("cells", 0.0) + chosen.sum().item()
            if not result.images:
                self._show(result, target, hidden, mask, answers["model"], spectrogram)
        means = {
            name: value / max(1, errors["cells"])
            for name, value in errors.items()
            if name != "cells"
        }
        best = min(value for name, value in means.items() if name != "model")
        result.scalars |= {f"valid/l1_{name}": value for name, value in means.items()}
        result.score = 1 - means["model"] / max(best, 1e-12)
        result.scalars["valid/improvement"] = result.score
        return result

    def _show(
        self,
        result: Validation,
        target: Tensor,
        hidden: Corrupted,
        mask: Tensor,
        restored: Tensor,
        spectrogram: Tensor,
    ) -> None:
        """Add pictures and audio of the first crops; phases are the original's."""
        shown = {
            "original": target,
            "masked": hidden.spectrogram,
            "reconstructed": torch.where(hidden.chosen, restored, target),
            "mask": mask,
        }
        phase = torch.polar(torch.ones_like(target), spectrogram.angle())
        for index in range(min(SHOWN, len(target))):
            for name, values in shown.items():
                picture = colour(values[index].mean(0).float())
                result.images[f"crop{index}/{name}"] = picture
                if name == "mask":
                    continue
                linear = values[index].float() ** (1 / self.config.stft.power)
                length = (target.shape[-1] - 1) * self.config.stft.hop
                wave = istft(linear * phase[index], self.config.stft, length)
                peak = wave.abs().amax().clamp(min=1e-6)
                result.audio[f"crop{index}/{name}"] = ((wave / peak).cpu(), self.config.rate)

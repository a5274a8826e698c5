"""Pictures and sounds of crops: as they are, corrupted, and restored by the model."""

import torch
from torch import nn

from separator.dsp.stft import istft
from separator.engine.pictures import colour, with_axes
from separator.engine.task import Validation
from separator.pretrain.batch import Example
from separator.pretrain.config import PretrainConfig
from separator.pretrain.masking.corruption import with_masked_group

MAX_CROPS = 2  # crops of a batch whose pictures and sounds are logged


def show_crops(
    result: Validation, name: str, model: nn.Module, example: Example, config: PretrainConfig
) -> None:
    """Add pictures and sounds of a batch's first crops; phases are the original's.

    A crop without a masked patch gets a masked group, so that each picture shows a restoration.

    Args:
        result: takes them as `NAME0/original`, `NAME0/masked`, …
        name: of the crops.
        model: restores them.
        example: the batch.
        config: of the transform.
    """
    target, phase = example.target[:MAX_CROPS], example.spectrogram[:MAX_CROPS].angle()
    corrupted = with_masked_group(example.corrupted)
    spectrogram, chosen = corrupted.spectrogram[:MAX_CROPS], corrupted.chosen[:MAX_CROPS]
    mask = model(spectrogram, corrupted.masked[:MAX_CROPS]).mask
    restored = torch.where(chosen, spectrogram * mask, target)
    pictures = {
        "original": target,
        "masked": spectrogram,
        "reconstructed": restored,
        "mask": mask,
        "error": (restored - target).abs(),
    }
    length = (target.shape[-1] - 1) * config.stft.hop
    for index in range(len(target)):
        for kind, values in pictures.items():
            picture = colour(values[index].mean(0).float())
            seconds = length / config.rate
            result.images[f"{name}{index}/{kind}"] = with_axes(picture, seconds, config.rate)
            if kind in ("mask", "error"):
                continue
            linear = values[index].float() ** (1 / config.stft.power)
            wave = istft(torch.polar(linear, phase[index]), config.stft, length)
            peak = wave.abs().amax().clamp(min=1e-6)
            result.audio[f"{name}{index}/{kind}"] = ((wave / peak).cpu(), config.rate)
